"""The CPU kernels' cache of the memory of large results; test_memory.py runs this, in a process that has the cache."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import imgops

#: float32 values of a result that is large enough to be cached
LARGE = 4 << 20
#: source of a function that says how many MiB the process has
RESIDENT = """
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) >> 10
"""


def doubled(x):
    return imgops.bias_act(x, gain=2.0, impl="cpu")


resident_is_ours = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="memory is read from /proc, and AddressSanitizer keeps what was freed",
)

on_torch_with_blobs = pytest.mark.skipif(
    torch.__version__ < (2, 11) or not sys.platform.startswith("linux"), reason="there memory is PyTorch's"
)


def test_memory_is_shared_by_no_two_and_used_again():
    x = torch.arange(LARGE, dtype=torch.float32)
    first, second = doubled(x), doubled(x + 1)
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, 2 * x)
    assert torch.equal(second, 2 * x + 2)
    place, view = second.data_ptr(), second[LARGE // 2 :]
    del second
    # a view keeps the memory
    other = doubled(x).data_ptr()
    assert other != place
    assert torch.equal(view, 2 * x[LARGE // 2 :] + 2)
    del view
    if torch.__version__ >= (2, 11) and sys.platform.startswith("linux"):
        third, fourth = doubled(x), doubled(x)
        assert {third.data_ptr(), fourth.data_ptr()} == {place, other}
    assert torch.equal(first, 2 * x)


@pytest.mark.parametrize("shape", [(2, 64, 160, 256), (LARGE + 7,)], ids=str)
def test_a_result_is_a_tensor_like_any_other(shape, tmp_path):
    for form in (torch.contiguous_format, torch.channels_last) if len(shape) == 4 else (torch.contiguous_format,):
        x = torch.randn(shape).contiguous(memory_format=form)
        y = doubled(x)
        assert y.stride() == x.stride()
        assert torch.equal(y, 2 * x)
        torch.save(y, tmp_path / "y")
        assert torch.equal(torch.load(tmp_path / "y"), y)
        assert torch.equal(copy.deepcopy(y), y)
        y.add_(1).requires_grad_().sum().backward()
        assert torch.equal(y.grad, torch.ones_like(y))


def test_several_threads_at_once():
    def work(number):
        for i in range(8):
            x = torch.full((LARGE + number % 2 * LARGE,), float(10 * number + i))
            first, second = doubled(x), doubled(x + 1)
            assert torch.equal(first, 2 * x)
            assert torch.equal(second, 2 * x + 2)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@resident_is_ours
def test_what_was_in_use_long_ago_is_given_back():
    code = f"""
import torch, imgops
{RESIDENT}
x = torch.zeros({LARGE} // 2)
before = resident()
many = [imgops.bias_act(x, gain=2.0, impl="cpu") for _ in range(16)]
del many
for _ in range(2100):
    imgops.bias_act(x, gain=2.0, impl="cpu")
print(resident() - before)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 4 * 8


@resident_is_ours
@pytest.mark.parametrize("failed", [False, True])
def test_it_holds_no_more_than_was_in_use_at_once(failed):
    """One result of each of many sizes, the largest last: all but that one are given back."""
    code = f"""
import torch, imgops
{RESIDENT}
x = torch.zeros({LARGE} * 3)
imgops.bias_act(x[:64], gain=2.0, impl="cpu")
if {failed}:
    # what could not be had was not in use
    try:
        imgops.upfirdn2d(x[:64].reshape(1, 1, 8, 8), None, padding=1 << 22, impl="cpu")
    except RuntimeError as error:
        assert "memory" in str(error), error
    else:
        raise AssertionError("256 TiB?")
before = resident()
for n in range({LARGE}, {LARGE} * 3, {LARGE} // 8):
    imgops.bias_act(x[:n], gain=2.0, impl="cpu")
print(resident() - before)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 3 * 16 + 16


@resident_is_ours
@on_torch_with_blobs
def test_a_pass_over_many_sizes_needs_no_fresh_memory_again():
    """Sizes that rise and fall while others live: the first passes take what is in use at once, or little more."""
    code = f"""
import resource, torch, imgops
{RESIDENT}
x = torch.zeros({LARGE} * 8)
imgops.bias_act(x[:64], gain=2.0, impl="cpu")
mib = {LARGE} // 16
def one_pass():
    kept = []
    for n in (8, 33, 10, 16, 64, 8, 32, 19, 64, 128, 9, 48, 33, 16):
        kept = kept[-1:] + [imgops.bias_act(x[: n * mib], gain=2.0, impl="cpu")]
before = resident()
for _ in range(16):
    one_pass()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
one_pass()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults, resident() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    faults, grown = map(int, run.stdout.split())
    assert faults < 16
    # 19 and 64 and 128, of whole huge pages
    assert grown < 5 / 4 * 212 + 16


@on_torch_with_blobs
def test_free_neighbors_are_one():
    code = f"""
import torch, imgops
x = torch.zeros({LARGE})
def doubled(n):
    return imgops.bias_act(x[:n], gain=2.0, impl="cpu")
place = doubled({LARGE}).data_ptr()
for order in (0, 1):
    halves = [doubled({LARGE} // 2), doubled({LARGE} // 2)]
    print(*(half.data_ptr() - place for half in halves))
    del halves[order]
    halves.clear()
    print(doubled({LARGE}).data_ptr() - place)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # by whichever half is given back first: both lie in what the whole had, which a whole one has again
    assert run.stdout.split() == ["0", str(2 * LARGE), "0"] * 2


def test_a_size_past_all_memory_raises():
    """Whose bytes do not fit in 64 bits, and whose remainder would."""
    with pytest.raises(ValueError, match="larger than any memory"):
        imgops.upfirdn2d(torch.zeros(1, 1, 8, 8), None, padding=(0, 2**22 - 8, 0, 2**40 - 7), impl="cpu")
