"""Random calls of every op on the CPU backend, forward and backward, against the float64 reference.

``make test`` draws a few hundred calls, ``make fuzz`` 20,000 and more: shapes, strides (channels-last, transposed,
expanded, views with an offset), dtypes, factors, paddings, filters and thread counts. What a draw once found is a test
of its op.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from backends import TOLERANCE
from golden import relative_error
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import imgops
from imgops.ops._common import accumulation_dtype
from imgops.reference.bias_act import ACTIVATIONS

#: draws an op
DRAWS = int(os.environ.get("IMGOPS_FUZZ_DRAWS", "40"))
#: activations whose slope jumps where the output is 0
KINKED = ("relu", "lrelu", "selu")


class Call(NamedTuple):
    """``run(impl, *tensors)``, the tensors that it is differentiable by, and the |outputs| where its slope jumps."""

    run: Callable[..., Tensor]
    tensors: list[Tensor]
    kinks: tuple[float, ...] = ()
    #: how many times its last rounding a half-precision result may be off: of results between two passes
    roundings: float = 1
    #: whether what is rounded may be larger than what an activation or a clamp leaves of it
    squashed: bool = False
    #: whether no value within is so close to a kink that rounding decides on its slope
    smooth: bool = True


def _strided(draw: Any, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Random values, times ``scale``, in memory laid out in one of the ways that users' tensors are."""
    if not shape:
        return torch.randn(shape).to(dtype)
    layouts = ["contiguous", "permuted", "offset", "expanded"] + ["channels_last"] * 2 * (len(shape) == 4)
    layout = draw(st.sampled_from(layouts))
    if layout == "permuted":
        order = draw(st.permutations(range(len(shape))))
        back = [order.index(i) for i in range(len(shape))]
        return (torch.randn([shape[i] for i in order]) * scale).to(dtype).permute(back)
    if layout == "offset":
        return (torch.randn([n + 3 for n in shape]) * scale).to(dtype)[tuple(slice(2, n + 2) for n in shape)]
    if layout == "expanded":
        where = draw(st.integers(0, len(shape) - 1))
        return (torch.randn([1 if i == where else n for i, n in enumerate(shape)]) * scale).to(dtype).expand(shape)
    x = (torch.randn(shape) * scale).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def _image(draw: Any, dtype: torch.dtype, largest: int = 18, most_channels: int = 5) -> Tensor:
    n, c = draw(st.sampled_from([0, 1, 1, 2, 2, 3])), draw(st.integers(1, most_channels))
    return _strided(draw, (n, c, draw(st.integers(1, largest)), draw(st.integers(1, largest))), dtype)


def _filter(draw: Any) -> Tensor | None:
    kind = draw(st.sampled_from(["none", "separable", "matrix", "rank one"]))
    a, b = torch.randn(draw(st.integers(1, 13))), torch.randn(draw(st.integers(1, 6)))
    return {"none": None, "separable": a, "matrix": torch.randn(len(b), len(a)), "rank one": torch.outer(b, a)}[kind]


def _size(f: Tensor | None) -> tuple[int, int]:
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def _epilogue(draw: Any) -> dict[str, Any]:
    act = draw(st.sampled_from(list(ACTIVATIONS)))
    return {"act": act, "gain": draw(st.sampled_from([None, 0.7])), "clamp": draw(st.sampled_from([None, None, 2.0]))}


def _kinks(act: str, clamp: float | None) -> tuple[float, ...]:
    return ((0.0,) if act in KINKED else ()) + (() if clamp is None else (clamp,))


def bias_act(draw: Any, dtype: torch.dtype) -> Call:
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=5)))
    dim, epilogue = draw(st.integers(0, len(shape) - 1)), _epilogue(draw)
    tensors = [_strided(draw, shape, dtype)]
    if draw(st.booleans()):
        tensors.append(_strided(draw, (shape[dim],), draw(st.sampled_from([dtype, torch.float32]))))
    return Call(
        lambda impl, x, b=None: imgops.bias_act(x, b, dim=dim, **epilogue, impl=impl),
        tensors,
        _kinks(epilogue["act"], epilogue["clamp"]),
    )


def upfirdn2d(draw: Any, dtype: torch.dtype) -> Call:
    x, f = _image(draw, dtype), _filter(draw)
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    up, down = draw(pairs), draw(pairs)
    padding = draw(st.tuples(*[st.integers(-3, 14)] * 4))
    (fw, fh), (h, w) = _size(f), x.shape[2:]
    assume(w * up[0] + padding[0] + padding[1] >= fw)
    assume(h * up[1] + padding[2] + padding[3] >= fh)
    flip, gain = draw(st.booleans()), draw(st.sampled_from([1.0, 4.0, 0.3]))

    def run(impl: str | None, x: Tensor) -> Tensor:
        return imgops.upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip, gain=gain, impl=impl)

    return Call(run, [x])


def modulated_conv2d(draw: Any, dtype: torch.dtype) -> Call:
    # every other call is large enough for the kernels of large images
    largest = draw(st.sampled_from([12, 40]))
    x = _image(draw, dtype, largest)
    n, i, h, w = x.shape
    o, kernel = draw(st.integers(1, 6)), draw(st.sampled_from([1, 3, 3, 4]))
    up, down = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (3, 1)]))
    f = draw(st.sampled_from([None, imgops.setup_filter([1, 3, 3, 1])]))
    padding, epilogue = draw(st.integers(0, 3)), _epilogue(draw)
    assume(min(h, w) * up + 2 * padding >= kernel + 4)
    arguments = {
        "up": up,
        "down": down,
        "padding": padding,
        "resample_filter": f,
        "demodulate": draw(st.booleans()),
        "flip_weight": draw(st.booleans()),
    } | epilogue
    tensors = [x, _strided(draw, (o, i, kernel, kernel), dtype), _strided(draw, (n, i), dtype)]
    has_bias, noise_samples = draw(st.booleans()), draw(st.sampled_from([0, 1, n]))
    if dtype in (torch.float16, torch.bfloat16) and arguments["demodulate"] and n > 0:
        # a gradient is a difference of rounded terms that go with 1 / |weight| and 1 / |styles|; and float16 scales
        # both first, so that there the eps of 1e-8 weighs less
        assume(tensors[1].abs().amax((1, 2, 3)).min() > 0.1)
        assume(tensors[2].abs().amax(1).min() > 0.1)
    with torch.no_grad():
        y = imgops.modulated_conv2d(*(t.float() for t in tensors), **arguments, impl="reference")
    if has_bias:
        tensors.append(_strided(draw, (o,), dtype))
    if noise_samples:
        tensors.append(_strided(draw, (noise_samples, 1, *y.shape[2:]), dtype))

    def run(impl: str | None, x: Tensor, weight: Tensor, styles: Tensor, *others: Tensor) -> Tensor:
        rest = list(others)
        bias = rest.pop(0) if has_bias else None
        noise = rest.pop() if noise_samples else None
        return imgops.modulated_conv2d(x, weight, styles, bias=bias, noise=noise, **arguments, impl=impl)

    squashed = epilogue["act"] not in ("linear", "relu", "lrelu") or epilogue["clamp"] is not None
    return Call(run, tensors, _kinks(epilogue["act"], epilogue["clamp"]), roundings=4, squashed=squashed)


def adain(draw: Any, dtype: torch.dtype) -> Call:
    content = _image(draw, dtype)
    n, c = content.shape[:2]
    shape = (draw(st.sampled_from([n, 1])), c, draw(st.integers(1, 9)), draw(st.integers(2, 9)))
    unbiased, eps = draw(st.booleans()), draw(st.sampled_from([1e-2, 0.1]))
    assume(content.shape[2] * content.shape[3] > 1)
    return Call(
        lambda impl, content, style: imgops.adain(content, style, eps=eps, unbiased=unbiased, impl=impl),
        [content, _strided(draw, shape, dtype)],
    )


def adaptive_instance_norm(draw: Any, dtype: torch.dtype) -> Call:
    x, eps = _image(draw, dtype), draw(st.sampled_from([1e-2, 0.1]))
    shapes = [(draw(st.sampled_from([x.shape[0], 1])), x.shape[1]) for _ in range(2)]
    return Call(
        lambda impl, x, scale, bias: imgops.adaptive_instance_norm(x, scale, bias, eps=eps, impl=impl),
        [x, *(_strided(draw, shape, dtype) for shape in shapes)],
    )


def filtered_lrelu(draw: Any, dtype: torch.dtype) -> Call:
    # the CPU's kernel takes sixteen planes at once
    x, fu, fd = _image(draw, dtype, most_channels=draw(st.sampled_from([5, 35]))), _filter(draw), _filter(draw)
    up, down = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = draw(st.tuples(*[st.integers(-3, 14)] * 4))
    (uw, uh), (dw, dh), (h, w) = _size(fu), _size(fd), x.shape[2:]
    assume(w * up + padding[0] + padding[1] - uw + 1 >= dw)
    assume(h * up + padding[2] + padding[3] - uh + 1 >= dh)
    assume(w * up + padding[0] + padding[1] >= uw)
    assume(h * up + padding[2] + padding[3] >= uh)
    slope, gain, clamp = draw(st.sampled_from([0.2, 1.0])), 1.4, draw(st.sampled_from([None, 0.5]))
    flip = draw(st.booleans())
    tensors = [x] + ([_strided(draw, (x.shape[1],), dtype)] if draw(st.booleans()) else [])

    def run(impl: str | None, x: Tensor, b: Tensor | None = None) -> Tensor:
        arguments = {"gain": gain, "slope": slope, "clamp": clamp, "flip_filter": flip}
        return imgops.filtered_lrelu(x, fu, fd, b, up, down, padding, **arguments, impl=impl)

    with torch.no_grad():
        z = imgops.bias_act(*(t.double() for t in tensors), impl="reference")
        z = imgops.upfirdn2d(z, fu, up, 1, padding, flip, up**2, impl="reference")
    kinks = [z] if clamp is None else [z, z * gain - clamp, z * gain * slope + clamp]
    # zeros around the image are on the kink in every backend
    smooth = not any(bool(((t.abs() < 1e-3) & (t != 0)).any()) for t in kinks)
    return Call(run, tensors, squashed=clamp is not None, smooth=smooth)


def gram_matrix(draw: Any, dtype: torch.dtype) -> Call:
    normalization = draw(st.sampled_from(["chw", "hw", "nchw", "none"]))
    x = _strided(draw, (draw(st.integers(0, 2)), draw(st.integers(0, 70)), *draw(_SIDES)), dtype)
    return Call(lambda impl, x: imgops.gram_matrix(x, normalization=normalization, impl=impl), [x])


def style_loss(draw: Any, dtype: torch.dtype) -> Call:
    n, c = draw(st.integers(1, 2)), draw(st.integers(1, 40))
    target = _strided(draw, (draw(st.sampled_from([1, n])), c, c), dtype)
    reduction = draw(st.sampled_from(["mean", "sum", "none"]))
    x = _strided(draw, (n, c, *draw(_SIDES)), dtype)
    # of a difference that cancels, rounding leaves no digit
    gram = imgops.gram_matrix(x.double(), impl="reference")
    assume((gram - target).flatten(1).norm(dim=1).min() > 0.05 * gram.norm())
    return Call(lambda impl, x, target: imgops.style_loss(x, target, reduction=reduction, impl=impl), [x, target])


def feature_statistics(draw: Any, dtype: torch.dtype) -> Call:
    x = _strided(draw, (draw(st.integers(0, 2)), draw(st.integers(1, 40)), *draw(_SIDES)), dtype)

    def run(impl: str | None, x: Tensor) -> Tensor:
        mean, covariance = imgops.feature_statistics(x, impl=impl)
        return torch.cat([mean[:, None], covariance], 1)

    return Call(run, [x])


def _away_from_pixels(places: Tensor) -> bool:
    """Whether these positions, in pixels, are between the centres of pixels, where the slope of a sample jumps."""
    places = places.double()
    return bool(((places - places.round()).abs() > 1e-4 + 1e-6 * places.abs()).all())


def grid_sample(draw: Any, dtype: torch.dtype) -> Call:
    x = _image(draw, dtype)
    # at a position that another dtype rounds, the sample is another
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    grid = _strided(draw, (x.shape[0], *draw(_SIDES), 2), acc_dtype, draw(st.sampled_from([0.5, 0.5, 2.0, 1e4])))
    places = ((grid.double() + 1) * torch.tensor([x.shape[3], x.shape[2]]) - 1) / 2
    return Call(
        lambda impl, x, grid: imgops.grid_sample(x, grid, impl=impl), [x, grid], smooth=_away_from_pixels(places)
    )


def displace(draw: Any, dtype: torch.dtype) -> Call:
    x, mode = _image(draw, dtype), draw(st.sampled_from(["zeros", "border", "reflection"]))
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    field = _strided(draw, (x.shape[0], 2, *x.shape[2:]), acc_dtype, draw(st.sampled_from([0.5, 4.0])))
    return Call(
        lambda impl, x, field: imgops.displace(x, field, padding_mode=mode, impl=impl),
        [x, field],
        # reflection turns between pixels too
        smooth=_away_from_pixels(2 * field),
    )


_SIDES = st.tuples(st.integers(1, 20), st.integers(1, 20))
CALLS = [
    adain,
    adaptive_instance_norm,
    bias_act,
    displace,
    feature_statistics,
    filtered_lrelu,
    gram_matrix,
    grid_sample,
    modulated_conv2d,
    style_loss,
    upfirdn2d,
]


@pytest.mark.parametrize("make", CALLS, ids=lambda make: make.__name__)
@settings(max_examples=DRAWS, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_calls(make, data):
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    call = make(data.draw, dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(st.integers(1, 3)))
    try:
        errors = _errors(data.draw, call, dtype)
        assert all(error <= allowed for error, allowed in errors), errors
    finally:
        torch.set_num_threads(threads)


def _errors(draw: Any, call: Call, dtype: torch.dtype) -> list[tuple[float, float]]:
    """(error, what is allowed) of the output and, where it is smooth, of each gradient."""
    leaves = [t.detach().requires_grad_() for t in call.tensors]
    acc_dtype = [t.detach().double().requires_grad_() for t in call.tensors]
    half = dtype in (torch.float16, torch.bfloat16)
    tolerance = 4 * TOLERANCE[dtype] * (call.roundings if half else 4 if call.squashed else 1)
    y, expected = call.run(None, *leaves), call.run("reference", *acc_dtype)
    assert y.dtype in (dtype, accumulation_dtype(dtype))
    errors = [(relative_error(y, expected), tolerance)]
    margin = 0.05 * call.roundings if half else 1e-4
    if not call.smooth or any(bool(((expected.abs() - kink).abs() < margin).any()) for kink in call.kinks):
        # rounding may put a value on the other side, where the slope is another
        return errors
    dy = _strided(draw, tuple(y.shape), y.dtype)
    gradients = torch.autograd.grad(y, leaves, dy)
    wanted = torch.autograd.grad(expected, acc_dtype, dy.double())
    largest = max((float(t.abs().max()) for t in (dy, *wanted) if t.numel() > 0), default=0.0)
    for t, g, e in zip(leaves, gradients, wanted, strict=True):
        assert g.dtype == t.dtype
        assert g.shape == t.shape
        if g.numel() == 0 or y.numel() == 0:
            assert not g.any()
            continue
        # sums of what was rounded on the way; where cancellation leaves little of one, its error is that of the terms
        terms = max(float(e.abs().max()), (0.2 if call.roundings == 1 else 1.0) * largest)
        many = math.sqrt(max(1, y.numel() / t.numel()))
        allowed = 5 * max(tolerance, TOLERANCE[t.dtype]) * many
        errors.append((float((g.double() - e).abs().max()), min(allowed, 0.3) * terms))
    return errors
