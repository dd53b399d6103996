"""nearest_neighbor beyond what the generic tests say of every op."""

from __future__ import annotations

import pytest
import torch
from backends import backends
from errors import raises_in_one_line
from golden import relative_error
from memory_growth import memory_growth

import imgops
from imgops.ops._common import STATUSES
from tests.op_specs.nearest_neighbor import similarities

X = torch.ones(2, 3, 4)
FAST = pytest.mark.parametrize(("backend", "device"), backends("nearest_neighbor", fast_only=True))
EVERY = pytest.mark.parametrize(("backend", "device"), backends("nearest_neighbor"))


def features(*shape: int, device: str = "cpu") -> torch.Tensor:
    """As those of a network, less their mean: many are equally negative."""
    x = torch.randn(shape, device=device).relu()
    return x - x.mean(2, keepdim=True)


@FAST
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 40, 3), (2, 31, 33, 65), (1, 300, 70, 90), (1, 40, 20, 2100)], ids=str)
@pytest.mark.parametrize("vectors_last", [False, True])
def test_agrees_with_the_reference(shape, dtype, vectors_last, backend, device):
    """Sizes around those of blocks and of chunks; the vectors side by side, and one after the other."""
    n, c, queries, keys = shape
    if device == "cpu" and backend == "triton" and keys > 1000:
        pytest.skip("takes long in the interpreter")
    x, y = (features(n, c, count, device=device).to(dtype) for count in (queries, keys))
    if vectors_last:
        x, y = x.mT.contiguous().mT, y.mT.contiguous().mT
    similarity, index = imgops.nearest_neighbor(x, y, impl=backend)
    every = similarities(x, y)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert index.dtype == torch.int64
    assert relative_error(similarity, every.max(2).values) < tolerance
    # no other key is nearer but by rounding
    assert (every.gather(2, index[..., None])[..., 0] >= every.max(2).values - tolerance).all()


@FAST
@pytest.mark.parametrize("keys", [150, 5200])
def test_keys_that_a_screen_cannot_tell_apart(keys, backend, device):
    """The kernels that look at the keys in bfloat16 or bytes first compare those again in float32 that could be the
    nearest: here all of a block. After such a chunk of keys some go unscreened; of 5200 keys the last are screened
    again."""
    if device == "cpu" and backend == "triton" and keys > 1000:
        pytest.skip("takes long in the interpreter")
    y = torch.randn(1, 96, 1, device=device) + 4e-3 * torch.randn(1, 96, keys, device=device)
    x = y[:, :, 7 : keys - 10 : keys // 50] + 1e-5
    _, index = imgops.nearest_neighbor(x, y, impl=backend)
    assert index[0].tolist() == list(range(7, keys - 10, keys // 50))


@FAST
@pytest.mark.parametrize("channels", [65536, 65537])
def test_as_many_channels_as_sums_of_bytes_hold(channels, backend, device):
    """All bytes at the end of their range, of one sign or of both; with one channel more no bytes are taken. Equal
    terms lose the same in each sum, so that more is lost than of random ones."""
    if device == "cpu" and backend == "triton":
        pytest.skip("takes long in the interpreter")
    first, flipped = torch.ones(2, channels, device=device)
    flipped[: channels // 4] = -1
    y = torch.stack([-first, flipped, first, -flipped], 1)[None]
    similarity, index = imgops.nearest_neighbor(y.flip(2), y, impl=backend)
    assert index[0].tolist() == [3, 2, 1, 0]
    torch.testing.assert_close(similarity, torch.ones_like(similarity), rtol=0, atol=1e-4)


@FAST
def test_a_channel_that_stands_out(backend, device):
    """A channel that would take the whole range of the bytes leaves the result exact."""
    x, y = features(1, 200, 40, device=device), features(1, 200, 90, device=device)
    for t in (x, y):
        t[:, 5] *= 300
        t[:, 100, ::3] = 50
    similarity, index = imgops.nearest_neighbor(x, y, impl=backend)
    every = similarities(x, y)
    torch.testing.assert_close(similarity.double(), every.max(2).values, rtol=0, atol=2e-6)
    assert (every.gather(2, index[..., None])[..., 0] >= every.max(2).values - 2e-6).all()


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_first_of_equals(dtype, backend, device):
    """Of equal keys, in one block or in several, and of keys of another length."""
    y = torch.randn(1, 8, 3, device=device).to(dtype).repeat(1, 1, 40)
    y[:, :, 60:] *= 4
    _, index = imgops.nearest_neighbor(y[:, :, :3], y.flip(2), impl=backend)
    assert index.tolist() == [[2, 1, 0]]


@EVERY
def test_vectors_without_a_direction(backend, device):
    """Zeros have a similarity of 0; a NaN and an infinity one of NaN, which counts as the largest."""
    y = torch.randn(1, 5, 40, device=device)
    x = y[:, :, :4].clone()
    x[:, :, 1], x[:, 2, 2] = 0, float("nan")
    similarity, index = imgops.nearest_neighbor(x, y, impl=backend)
    assert index.tolist() == [[0, 0, 0, 3]]
    assert similarity.isnan().tolist() == [[False, False, True, False]]
    assert float(similarity[0, 1]) == 0
    y[:, :, 0] = 0
    y[:, 1, 37], y[:, 4, 35] = float("nan"), float("inf")
    similarity, index = imgops.nearest_neighbor(x, y, impl=backend)
    assert similarity.isnan().all()
    assert index.tolist() == [[35, 35, 0, 35]]
    opposite = imgops.nearest_neighbor(x[:, :, 3:], -x[:, :, 3:].repeat(1, 1, 2), impl=backend)
    torch.testing.assert_close(opposite[0], torch.tensor([[-1.0]], device=device))
    assert opposite[1].tolist() == [[0]]


@EVERY
def test_a_vector_of_zeros_has_no_gradient(backend, device):
    x, y = torch.randn(1, 4, 3, device=device), torch.randn(1, 4, 5, device=device)
    x[:, :, 1] = 0
    x.requires_grad_()
    imgops.nearest_neighbor(x, y, impl=backend)[0].sum().backward()
    assert not x.grad[:, :, 1].any()
    assert x.grad[:, :, [0, 2]].all()


@EVERY
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_whose_squares_are_beyond_float32(scale, backend, device):
    x, y = torch.randn(1, 6, 9, device=device), torch.randn(1, 6, 20, device=device)
    expected = imgops.nearest_neighbor(x, y, impl="reference")
    actual = imgops.nearest_neighbor(x * scale, y * scale, impl=backend)
    torch.testing.assert_close(actual, expected)


@EVERY
def test_the_index_has_no_gradient_and_the_keys_of_all_samples_have_one(backend, device):
    x = torch.randn(3, 4, 6, device=device, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 4, 5, device=device, dtype=torch.float64, requires_grad=True)
    similarity, index = imgops.nearest_neighbor(x, y, impl=backend)
    assert not index.requires_grad
    plain = torch.cosine_similarity(x, y.expand(3, -1, -1).gather(2, index[:, None].expand(-1, 4, -1)), dim=1)
    d = torch.randn_like(plain)
    for actual, wanted in zip(
        torch.autograd.grad(similarity, [x, y], d), torch.autograd.grad(plain, [x, y], d), strict=True
    ):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.skipif(not STATUSES["cpu", "cpu"].available, reason="the CPU extension is not built")
@pytest.mark.parametrize("level", ["avx2", "amx"])
def test_memory_does_not_grow_with_the_similarities(level):
    """All of them would be 576 MiB; what the kernels keep is about the keys once or twice."""
    small = 'x, y = torch.randn(2, 1, 16, 12288); imgops.nearest_neighbor(x[:, :, :64], y[:, :, :64], impl="cpu")'
    assert memory_growth(small, 'imgops.nearest_neighbor(x, y, impl="cpu")', IMGOPS_SIMD=level) < 8 * 2**20


@pytest.mark.parametrize(
    ("kind", "message", "call"),
    [
        (TypeError, "x must be a torch.Tensor", lambda: imgops.nearest_neighbor([1.0], X)),
        (TypeError, "y must have x's dtype", lambda: imgops.nearest_neighbor(X, X.double())),
        (ValueError, "x must have 3 dimensions", lambda: imgops.nearest_neighbor(X[0], X)),
        (ValueError, r"y must have shape \[2 or 1, 3, K\]", lambda: imgops.nearest_neighbor(X, X[:, :2])),
        (ValueError, r"y must have shape \[2 or 1, 3, K\]", lambda: imgops.nearest_neighbor(X, X.repeat(2, 1, 1))),
        (ValueError, "x must have at least one channel", lambda: imgops.nearest_neighbor(X[:, :0], X[:, :0])),
        (ValueError, "y must have at least one vector", lambda: imgops.nearest_neighbor(X, X[:, :, :0])),
        (RuntimeError, "cuda backend is not available", lambda: imgops.nearest_neighbor(X, X, impl="cuda")),
    ],
)
def test_bad_input(kind, message, call):
    raises_in_one_line(kind, message, call)
