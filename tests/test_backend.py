"""The choice of backends: use_impl, IMGOPS_IMPL, reasons and remedies, instruction sets, no extensions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from golden import relative_error

import imgops
from imgops import _backend
from imgops._backend import BACKENDS, PREFERENCE, Status, choose

ROOT = Path(__file__).resolve().parent.parent
CPU = _backend.load()["cpu", "cpu"]
needs_cpu_backend = pytest.mark.skipif(not CPU.available, reason=CPU.reason)

HERE = {(backend, "cpu"): Status(True) for backend in BACKENDS}
GONE = HERE | {("cpu", "cpu"): Status(False, "no compiler was found", "Install one")}


@pytest.fixture(autouse=True)
def no_choice_from_outside(monkeypatch):
    monkeypatch.setattr(_backend, "_environment", None)


def python(code: str, folder: Path = ROOT, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, from ``folder``, without Triton's interpreter unless asked for."""
    given = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "IMGOPS_IMPL", "IMGOPS_SIMD")}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env={**given, **environment}, capture_output=True, text=True, check=check
    )


def chosen(impl: str | None = None) -> str:
    return choose("bias_act", "cpu", impl, HERE)


def test_the_automatic_choice_takes_the_best_that_is_there():
    assert chosen() == PREFERENCE["cpu"][0] == "cpu"
    assert choose("bias_act", "cpu", None, GONE) == "reference"
    assert choose("bias_act", "meta", None, HERE) == "reference"
    on_gpu = {(backend, "cuda"): Status(backend in ("cuda", "reference")) for backend in BACKENDS}
    assert choose("bias_act", "cuda", None, on_gpu) == "cuda"


def test_a_call_may_suit_another_backend_best():
    on_gpu = {(backend, "cuda"): Status(backend in ("triton", "cuda", "reference")) for backend in BACKENDS}
    assert choose("filtered_lrelu", "cuda", None, on_gpu, "cuda") == "cuda"
    assert choose("filtered_lrelu", "cuda", "triton", on_gpu, "cuda") == "triton"
    without = on_gpu | {("cuda", "cuda"): Status(False, "not built")}
    assert choose("filtered_lrelu", "cuda", None, without, "cuda") == "triton"
    on_cpu = {("cpu", "cpu"): Status(True), ("cuda", "cpu"): Status(False, "no GPU")}
    assert choose("filtered_lrelu", "cpu", None, on_cpu, "cuda") == "cpu"


def test_use_impl_nests():
    with imgops.use_impl("reference"):
        assert chosen() == "reference"
        with imgops.use_impl("triton"):
            assert chosen() == "triton"
            with imgops.use_impl(None):
                assert chosen() == "cpu"
            assert chosen() == "triton"
        assert chosen() == "reference"
        # a call's own word goes first
        assert chosen("cpu") == "cpu"
    assert chosen() == "cpu"


def test_use_impl_ends_with_an_exception():
    with pytest.raises(KeyError), imgops.use_impl("reference"):
        raise KeyError
    assert chosen() == "cpu"


def test_use_impl_is_of_its_thread():
    inside, outside = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        seen.append(chosen())
        with imgops.use_impl("triton"):
            inside.set()
            outside.wait(10)
            seen.append(chosen())

    with imgops.use_impl("reference"):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        assert chosen() == "reference"
    outside.set()
    thread.join()
    assert seen == ["cpu", "triton"]


def test_use_impl_reaches_the_ops_and_the_compiled_ones():
    x = torch.randn(2, 3)
    calls = []

    def backend(graph, inputs):
        calls.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    compiled = torch.compile(lambda x: imgops.bias_act(x, act="lrelu"), backend=backend, fullgraph=True)
    with imgops.use_impl("reference"):
        torch.testing.assert_close(compiled(x), imgops.bias_act(x, act="lrelu"))
    assert not any("imgops" in name for name in calls[0])
    if CPU.available:
        compiled(x)
        # the choice is guarded on: another one makes another graph
        assert any("imgops" in name for name in calls[1])


@pytest.mark.parametrize("impl", ["eager", "", "CPU", 3])
def test_unknown_backend(impl):
    for call in (lambda: imgops.bias_act(torch.zeros(1, 1), impl=impl), lambda: imgops.use_impl(impl).__enter__()):
        with pytest.raises(ValueError, match="impl must be None or one of reference, cpu, triton, cuda; got"):
            call()


def test_a_backend_that_was_asked_for_does_not_fall_back():
    reason = r"^imgops.bias_act: the cpu backend is not available on cpu: no compiler was found. Install one$"
    with pytest.raises(RuntimeError, match=reason):
        choose("bias_act", "cpu", "cpu", GONE)
    with imgops.use_impl("cpu"), pytest.raises(RuntimeError, match=reason):
        choose("bias_act", "cpu", None, GONE)
    with pytest.raises(RuntimeError, match="the CUDA backend takes tensors on a GPU"):
        imgops.upfirdn2d(torch.zeros(1, 1, 2, 2), None, impl="cuda")
    with pytest.raises(RuntimeError, match="the cpu backend is not available on meta: it does not run on meta"):
        imgops.bias_act(torch.zeros(1, 1, device="meta"), impl="cpu")
    assert imgops.bias_act(torch.zeros(1, 1, device="meta"), impl="reference").is_meta


def test_every_backend_that_is_missing_says_why_and_what_to_do():
    statuses = _backend.load()
    assert set(statuses) == {(backend, device) for backend in BACKENDS for device in ("cpu", "cuda")}
    assert statuses["reference", "cpu"].available
    for status in statuses.values():
        assert status.available != bool(status.reason and status.remedy)
        assert "\n" not in status.remedy


def test_environment_variable_gives_way_to_use_impl(monkeypatch):
    monkeypatch.setattr(_backend, "_environment", "triton")
    assert chosen() == "triton"
    with imgops.use_impl("reference"):
        assert chosen() == "reference"
    assert chosen("cpu") == "cpu"


def test_environment_variable_is_read():
    call = "import torch, imgops; imgops.bias_act(torch.zeros(1, 1))"
    asked = python(call, check=False, IMGOPS_IMPL="cuda")
    assert asked.stderr.splitlines()[-1].startswith("RuntimeError: imgops.bias_act: the cuda backend is not available")
    wrong = python(call, check=False, IMGOPS_IMPL="fast")
    assert wrong.stderr.splitlines()[-1] == (
        "ValueError: the environment variable IMGOPS_IMPL must be None or one of reference, cpu, triton, cuda; "
        "got 'fast'"
    )


#: every op, forward and backward, on inputs that leave no loop its round size; the results go to a file
EVERY_OP = """
import sys, torch, imgops
torch.manual_seed(0)
results = []
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 5, 11, 13, dtype=torch.float64).to(dtype).contiguous(memory_format=layout).requires_grad_()
        b = torch.randn(5, dtype=torch.float64).to(dtype).requires_grad_()
        f = imgops.setup_filter([1, 3, 3, 1])
        weight, styles = torch.randn(4, 5, 3, 3).to(dtype).requires_grad_(), torch.randn(2, 5).to(dtype)
        outputs = [
            imgops.bias_act(x, b, act="swish", clamp=1.0),
            imgops.bias_act(x, b, act="lrelu"),
            imgops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1]),
            imgops.upfirdn2d(x, f[0], down=(1, 2), padding=3),
            imgops.upfirdn2d(x, torch.randn(5, 3), up=(3, 1), down=2, padding=4),
            imgops.modulated_conv2d(x, weight, styles, bias=b[:4], act="lrelu", padding=1),
            imgops.modulated_conv2d(x, weight, styles, padding=1, up=2, resample_filter=f),
        ]
        if dtype.itemsize >= 4:
            # large enough for Winograd's algorithm, in one block of channels and in several
            large, many = x.repeat(1, 1, 3, 2), x.repeat(1, 30, 4, 4)
            outputs += [
                imgops.modulated_conv2d(large, weight, styles, bias=b[:4], act="lrelu", padding=1),
                imgops.modulated_conv2d(
                    many, weight.repeat(20, 30, 1, 1), styles.repeat(1, 30), padding=1, up=2, resample_filter=f
                ),
                imgops.modulated_conv2d(
                    many, weight.repeat(20, 30, 1, 1), styles.repeat(1, 30), padding=1, down=2, resample_filter=f
                ),
                imgops.modulated_conv2d(many, weight.repeat(20, 30, 1, 1), styles.repeat(1, 30), padding=1),
            ]
        for y in outputs:
            wanted = [t for t in (x, b, weight) if t is not None]
            gradients = torch.autograd.grad(y.float().square().sum(), wanted, allow_unused=True)
            results += [y.detach(), *(g for g in gradients if g is not None)]
torch.save(results, sys.argv[1])
"""


def every_op(path: Path, **environment: str) -> list[torch.Tensor]:
    """The results of EVERY_OP."""
    python(EVERY_OP.replace("sys.argv[1]", repr(str(path))), **environment)
    return torch.load(path)


@pytest.mark.slow
@needs_cpu_backend
def test_every_instruction_set_agrees_with_the_reference(tmp_path):
    expected = every_op(tmp_path / "reference", IMGOPS_IMPL="reference")
    # a gradient sums what was rounded on the way, so that a half-precision one is off by more than one rounding, and
    # one in float32 by what two of Winograd's convolutions add
    tolerance = {torch.float64: 1e-11, torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
    for level in ("baseline", "avx2", "avx512", "vnni", "amx"):
        actual = every_op(tmp_path / level, IMGOPS_IMPL="cpu", IMGOPS_SIMD=level)
        assert len(actual) == len(expected) > 100
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == e.dtype
            assert relative_error(a, e) < tolerance[e.dtype], level


@pytest.mark.skipif(not _backend.build_report().get("_host", {}).get("built"), reason="imgops._host was not built here")
def test_instruction_set_is_lowered_and_never_raised():
    import imgops._host as host

    best = host.simd_level()
    code = "import imgops._host as h; print(h.simd_level())"
    levels = ["baseline", "avx2", "avx512", "vnni", "amx"]
    for level in levels:
        lower = min(level, best, key=levels.index)
        assert python(code, IMGOPS_SIMD=level).stdout.strip() == lower
    assert python(code, IMGOPS_SIMD="sse9").stdout.strip() == best


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A copy of the Python files and the tests alone: the package as it is where nothing could be compiled."""
    folder = tmp_path_factory.mktemp("bare")
    leave = shutil.ignore_patterns("*.so", "*.pyd", "_build_report.json", "__pycache__")
    for name in "imgops", "kernels", "tests", "benchmarks":
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_without_extensions_the_reference_runs_and_one_warning_says_why(bare):
    code = (
        "import warnings, json\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import torch, imgops\n"
        "    x, f = torch.ones(1, 2, 4, 4), imgops.setup_filter([1, 3, 3, 1])\n"
        "    sums = [imgops.bias_act(x, torch.ones(2), act='relu', gain=1).sum().item(),\n"
        "            imgops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], gain=4)[..., 2:-2, 2:-2].mean().item(),\n"
        "            imgops.modulated_conv2d(x, torch.ones(1, 2, 1, 1), torch.ones(1, 2), demodulate=False)"
        ".mean().item()]\n"
        "print(json.dumps([imgops.__file__, sums, [str(w.message) for w in caught]]))"
    )
    where, sums, messages = json.loads(python(code, bare).stdout)
    assert Path(where).parent.parent == bare
    assert sums == pytest.approx([64, 1, 2])
    assert len(messages) == 1
    assert messages[0].startswith("imgops runs without its CPU kernels: the extension was not built. To mend it: ")


@pytest.mark.parametrize("call", ["imgops.bias_act(x)", "imgops.upfirdn2d(x, None)", "imgops.gram_matrix(x)"])
def test_without_extensions_the_warning_is_shown_where_warnings_are_errors_and_no_op_raises(bare, call):
    code = f"import torch, imgops; x = torch.ones(1, 2, 4, 4); print({call}.shape == {call}.shape)"
    result = python(code, bare, PYTHONWARNINGS="error")
    assert result.stdout == "True\n"
    assert result.stderr.count("imgops runs without its CPU kernels") == 1
    assert result.stderr.count("\n") == 1


def test_without_extensions_an_explicit_cpu_backend_raises(bare):
    code = "import torch, imgops; imgops.bias_act(torch.zeros(1, 1), impl='cpu')"
    last = python(code, bare, check=False).stderr.splitlines()[-1]
    assert last.startswith(
        "RuntimeError: imgops.bias_act: the cpu backend is not available on cpu: the extension was not built. pip "
        "install "
    )


def test_a_broken_extension_is_a_reason_and_not_a_crash(bare, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(bare, broken)
    import sysconfig

    (broken / "imgops" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"not a library")
    code = "import torch, imgops; print(imgops.bias_act(torch.ones(1, 1)).item())"
    result = python(code, broken)
    assert result.stdout == "1.0\n"
    assert "the extension does not load" in result.stderr


@pytest.mark.slow
def test_without_extensions_the_recorded_cases_pass(bare):
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "recorded", "-m", "not slow"]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    result = subprocess.run(
        [sys.executable, *arguments, "tests/ops", "tests/models"],
        cwd=bare,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert "the extension was not built" in result.stdout
    assert " failed" not in result.stdout


def test_loading_again_warns_no_more():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _backend.load() is _backend.load()
