"""The fact sheet of filtered_lrelu."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import imgops
from imgops import _eager
from imgops.reference import filtered_lrelu as reference
from imgops.reference.upfirdn2d import upfirdn2d as reference_upfirdn2d

from . import _sheet as s
from . import upfirdn2d
from ._random import Pick, RandomCall, filter_size, random_filter, random_image, strided
from .bias_act import LAUNCH_SHAPE
from .upfirdn2d import FOUR, resample_filter


def _call(filters: bool) -> s.Call:
    fixed = torch.tensor([0.3, 1.0, 0.5], dtype=torch.float64)

    def run(impl: str, x: Tensor, b: Tensor, fu: Tensor | None = None, fd: Tensor | None = None) -> Tensor:
        fu, fd = (fixed.to(x.device) if f is None else f for f in (fu, fd))
        return imgops.filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=[3, 2, 2, 3], clamp=2.0, impl=impl)

    shapes = {"x": "NCHW", "b": "C"} | ({"fu": "3", "fd": "3"} if filters else {})
    return s.Call(run, shapes, {"N": 1, "C": 2, "H": 5, "W": 4}, frozenset({"fu", "fd"} if filters else ()))


def _sized(impl: str, x: Tensor, b: Tensor) -> Tensor:
    f = FOUR.to(x.device)
    return imgops.filtered_lrelu(x, f, f, b, 2, 2, 9, clamp=2, impl=impl)


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    # the CPU's kernel takes sixteen planes at once
    x, fu, fd = random_image(pick, dtype, most_channels=pick.one([5, 35])), random_filter(pick), random_filter(pick)
    up, down = pick.integer(1, 4), pick.integer(1, 4)
    padding = tuple(pick.integer(-3, 14) for _ in range(4))
    (uw, uh), (dw, dh), (h, w) = filter_size(fu), filter_size(fd), x.shape[2:]
    pick.assume(w * up + padding[0] + padding[1] - uw + 1 >= dw)
    pick.assume(h * up + padding[2] + padding[3] - uh + 1 >= dh)
    pick.assume(w * up + padding[0] + padding[1] >= uw)
    pick.assume(h * up + padding[2] + padding[3] >= uh)
    slope, gain, clamp = pick.one([0.2, 1.0]), 1.4, pick.one([None, 0.5])
    flip = pick.one([True, False])
    tensors = [x] + ([strided(pick, (x.shape[1],), dtype)] if pick.one([True, False]) else [])

    def run(impl: str | None, x: Tensor, b: Tensor | None = None) -> Tensor:
        arguments = {"gain": gain, "slope": slope, "clamp": clamp, "flip_filter": flip}
        return imgops.filtered_lrelu(x, fu, fd, b, up, down, padding, **arguments, impl=impl)

    with torch.no_grad():
        z = imgops.bias_act(*(t.double() for t in tensors), impl="reference")
        z = imgops.upfirdn2d(z, fu, up, 1, padding, flip, up**2, impl="reference")
    kinks = [z] if clamp is None else [z, z * gain - clamp, z * gain * slope + clamp]
    # zeros around the image are on the kink in every backend
    smooth = not any(bool(((t.abs() < 1e-3) & (t != 0)).any()) for t in kinks)
    return RandomCall(run, tensors, squashed=clamp is not None, smooth=smooth)


def eager(x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, up: int, down: int, padding: list[int], clamp: float) -> Tensor:
    """Each step as one writes it first."""
    return _by(upfirdn2d.eager, x, fu, fd, b, up, down, padding, clamp)


def eager_strided(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, up: int, down: int, padding: list[int], clamp: float
) -> Tensor:
    """Each step with the fastest known filter, by strides."""
    return _by(_eager.upfirdn2d, x, fu, fd, b, up, down, padding, clamp)


def _by(
    resample: Callable[..., Tensor],
    x: Tensor,
    fu: Tensor,
    fd: Tensor,
    b: Tensor,
    up: int,
    down: int,
    padding: list[int],
    clamp: float,
) -> Tensor:
    x = resample(x + b.to(x.dtype)[:, None, None], fu, up, 1, padding, float(up**2))
    return resample(_eager.lrelu(x).clamp(-clamp, clamp), fd, 1, down, [0] * 4, 1.0)


class Filtered(NamedTuple):
    """A case of filtered_lrelu."""

    shape: s.Shape
    taps: tuple[s.Shape, s.Shape]
    up: int
    down: int
    padding: tuple[int, int, int, int]


FILTERED = [
    Filtered((2, 3, 9, 8), ((12,), (12,)), 2, 2, (11, 10, 10, 11)),
    Filtered((1, 2, 6, 7), ((24,), (12,)), 4, 2, (24, 20, 25, 22)),
    Filtered((1, 3, 7, 6), ((12,), (4, 5)), 2, 4, (9, 8, 7, 12)),
    Filtered((2, 3, 8, 5), ((3, 2), (5,)), 3, 1, (-2, 3, 4, -1)),
    Filtered((2, 20, 41, 37), ((12,), (12,)), 2, 2, (11, 10, 10, 11)),
    Filtered((1, 20, 40, 36), ((12,), (12, 12)), 2, 2, (10, 11, 12, 9)),
    Filtered((2, 9, 21, 19), ((24,), (12,)), 4, 2, (23, 21, 22, 20)),
    Filtered((1, 3, 18, 17), ((24,), (12, 12)), 4, 2, (22, 20, 24, 23)),
]


def _problem(case: Filtered, clamp: float | None, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    filters = [resample_filter(taps, False, device) for taps in case.taps]
    # of the size of low-pass filters, so that the image keeps its magnitude
    fu, fd = (f / (2 * f.numel() ** (0.5 if f.ndim == 2 else 1)) for f in filters if f is not None)

    def call(backend: str, x: Tensor, b: Tensor) -> Tensor:
        return imgops.filtered_lrelu(
            x, fu, fd, b, case.up, case.down, case.padding, gain=1.3, clamp=clamp, impl=backend
        )

    return [s.image(case.shape, dtype, device), torch.randn(case.shape[1], device=device, dtype=acc_dtype)], call


def _problems(dry: bool) -> Iterator[s.Problem]:
    for case, clamp in itertools.product(FILTERED[: 1 if dry else None], (None, 0.5)):
        name = f"{case.shape}/up {case.up} down {case.down}{'' if clamp is None else ' clamped'}"
        yield s.Problem(name, partial(_problem, case, clamp))


def filtered_case(
    shape: s.Shape, dtype: torch.dtype, channels_last: bool = False, up: int = 2, down: int = 2, radial: bool = False
) -> s.Case:
    """The nonlinearity of a StyleGAN3 layer, with 6 taps per phase; ``radial``: down by a 2-D filter, StyleGAN3-R's."""
    taps_up, taps_down = 6 * up, 6 * down
    n, c, h, w = shape
    # so that a factor of up / down is left of the size
    total = taps_up + taps_down - 1 - down
    padding = (total - total // 2, total // 2)

    def make(device: torch.device) -> s.Kwargs:
        fu, fd = (torch.kaiser_window(taps, False, 6.0, device=device) for taps in (taps_up, taps_down))
        fu, fd = fu / fu.sum(), fd / fd.sum()
        return {
            "x": s.image(shape, dtype, device, channels_last),
            "fu": fu,
            "fd": fd.outer(fd) if radial else fd,
            "b": torch.randn(c, device=device),
            "up": up,
            "down": down,
            "padding": [*padding, *padding],
            "clamp": 256.0,
        }

    high_h, high_w = (size * up + total - taps_up + 1 for size in (h, w))
    out_h, out_w = ((size - taps_down) // down + 1 for size in (high_h, high_w))
    x, y = (n * c * area * dtype.itemsize for area in (h * w, out_h * out_w))
    flops = 2 * n * c * taps_up // up * (h * high_w + high_h * high_w)
    flops += 2 * n * c * taps_down * (out_h * out_w * taps_down if radial else out_w * (high_h + out_h))
    name = s.label(shape, dtype, channels_last, f"up{up} down{down}{' radial' if radial else ''}")
    # backward: dy, x, dx
    costs = (x + y, 3 * x + 2 * y), (flops, 2 * flops)
    return s.Case("filtered_lrelu", name, make, ("x", "b"), *costs, dtype, "float32")


_CASES = s.cases_of(
    filtered_case((1, 2, 8, 8), s.SINGLE),
    filtered_case((4, 512, 36, 36), s.SINGLE),
    filtered_case((4, 512, 148, 148), s.HALF, up=4),
    filtered_case((4, 256, 276, 276), s.HALF),
    filtered_case((4, 256, 276, 276), s.HALF, channels_last=True),
    filtered_case((4, 256, 276, 276), s.HALF, radial=True),
    filtered_case((4, 32, 1044, 1044), s.HALF),
)


FORMS: dict[str, s.Form] = {"eager": eager, "eager strided": eager_strided}
#: of make bench: name, shape, factors, taps of both filters, padding (x and y alike), goals
LAYERS = [
    ("nchw", (4, 64, 64, 64), 2, 2, (12, 12), (11, 10), (None, 15.0)),
    ("nhwc", (4, 64, 64, 64), 2, 2, (12, 12), (11, 10), (None, None)),
    ("nchw", (4, 64, 36, 36), 4, 2, (24, 12), (22, 21), (None, None)),
    ("nchw", (4, 64, 64, 64), 2, 4, (12, 24), (11, 10), (None, None)),
]


def _comparisons() -> list[s.Comparison]:
    """The nonlinearities of StyleGAN3's layers, each without gradients, and the first two with them."""
    forms, rows = {"imgops": imgops.filtered_lrelu, **FORMS}, []
    for i, (layout, shape, up, down, taps, pads, goals) in enumerate(LAYERS):
        fu, fd = (imgops.setup_filter(torch.kaiser_window(n, False, 6.0).tolist(), separable=True) for n in taps)
        x = s.image(shape, torch.float32, "cpu", layout == "nhwc")
        kwargs = {"x": x, "fu": fu, "fd": fd, "b": torch.randn(shape[1])}
        kwargs |= {"up": up, "down": down, "padding": [*pads, *pads], "clamp": 1.0}
        name = f"{'x'.join(map(str, shape))} {layout} up {up} down {down}"
        rows.append(s.Comparison("filtered_lrelu", name, s.forward(forms, kwargs), *goals))
        if i < 2:
            # a pixel whose sign is lost in float32's rounding has either slope
            sides = s.both(forms, kwargs, ("x", "b"))
            rows.append(s.Comparison("filtered_lrelu", f"{name} with gradients", sides, tolerance=1e-3))
    return rows


def _recorded(a: dict[str, Tensor], params: s.Kwargs, backend: str) -> dict[str, Tensor]:
    x, b = a["x"].requires_grad_(), a["b"].requires_grad_()
    y = imgops.filtered_lrelu(x, a.get("fu"), a.get("fd"), b, **params, impl=backend)
    dx, db = torch.autograd.grad(y, [x, b], a["dy"])
    return {"y": y, "dx": dx, "db": db}


def _pictures() -> dict[str, nn.Module]:
    # filters whose sizes are none of the pictures' sizes
    long, taps = imgops.setup_filter([1, 2, 4, 6, 8, 6, 4, 2, 1]), imgops.setup_filter([1, 3, 3, 1])
    return {
        "filtered_lrelu": s.Called(
            lambda x, fu, fd, b: imgops.filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=5, clamp=1.0),
            fu=long, fd=taps, b=torch.randn(4),
        )
    }  # fmt: skip


def _slopes(
    x: Tensor,
    sign_mask: Tensor,
    fu: Tensor,
    fd: Tensor,
    up: int,
    down: int,
    padding_up: Any,
    padding_down: Any,
    flip: bool,
    gain_up: float,
    gain_down: float,
    *_: float,
) -> Tensor:
    high = reference_upfirdn2d(x, fu, (up, up), (1, 1), padding_up, flip, gain_up)
    return reference_upfirdn2d(high, fd, (1, 1), (down, down), padding_down, flip, gain_down)  # fmt: skip


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    x, b = s.unread(LAUNCH_SHAPE, dtype, channels_last), torch.empty(LAUNCH_SHAPE[1])
    short, long, radial, padding = torch.empty(12), torch.empty(24), torch.empty(12, 12), (9, 8, 9, 8)
    for name, up, down, fu, fd in (
        ("up 2, down 2", 2, 2, short, short),
        ("up 4, down 2", 4, 2, long, short),
        ("up 2, down 4", 2, 4, short, long),
        ("up 2, down 2 by 12x12", 2, 2, short, radial),
    ):
        arguments = x, fu, fd, b, up, down, padding, 2**0.5, 0.2, 256.0, False, True
        tested = (up, down) == (2, 2)
        yield s.Launch(f"filtered_lrelu {name}", "filtered_lrelu.filtered_lrelu", arguments, tested=tested)
    sign_mask = s.unread((*LAUNCH_SHAPE[:2], 66, 262), torch.uint8, channels_last)
    yield s.Launch(
        "filtered_lrelu_slopes up 2, down 2",
        "filtered_lrelu.filtered_lrelu_slopes",
        (x, sign_mask, short, short, 2, 2, padding, (0, 0, 0, 0), False, 4.0, 1.0, 2**0.5, 0.2),
    )


_TAPS = torch.tensor([0.3, 1.0, 0.5])
_REST = (2, 2, [3, 2, 2, 3], 1.3, 0.2, 2.0, False)
SHEET = s.Sheet(
    calls={"filtered_lrelu": _call(filters=False), "filtered_lrelu-filters": _call(filters=True)},
    sized={"filtered_lrelu": s.Call(_sized, {"x": "NCHW", "b": "C"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems, cases=_CASES, launches=_launches,
    comparisons=_comparisons, recorded=_recorded,
    schemas={
        "filtered_lrelu": lambda: (s.values(1, 2, 5, 4), _TAPS, _TAPS, s.values(2), *_REST, True),
        "filtered_lrelu: channels-last": lambda: (
            s.values(2, 3, 5, 4).contiguous(memory_format=torch.channels_last), None, _TAPS, None, *_REST, False,
        ),
        "filtered_lrelu_slopes": lambda: (
            s.values(1, 2, 5, 4), torch.randint(0, 256, (1, 2, 3, 9), dtype=torch.uint8), _TAPS, _TAPS, 2, 2,
            [1, 2, 2, 1], [0, 0, 0, 0], False, 4.0, 1.0, 1.3, 0.2,
        ),
    },
    products={
        "filtered_lrelu": lambda *a: reference.filtered_lrelu(
            *a[:7], gain=a[7], slope=a[8], clamp=a[9], flip_filter=a[10]
        ),
        "filtered_lrelu_slopes": _slopes,
    },
    cuda=True,
)  # fmt: skip
