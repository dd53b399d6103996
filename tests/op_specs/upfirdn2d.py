"""The fact sheet of upfirdn2d."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops
from imgops import _eager
from imgops.reference.upfirdn2d import upfirdn2d as reference

from . import _sheet as s
from ._random import Pick, RandomCall, filter_size, random_filter, random_image
from .bias_act import LAUNCH_SHAPE, launch_epilogue


class Resample(NamedTuple):
    """A case of upfirdn2d: the image, the filter ("none", or taps (n,) separable or (h, w)), and the arguments."""

    shape: tuple[int, int, int, int]
    taps: tuple[int, ...] | None
    up: tuple[int, int] = (1, 1)
    down: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip_filter: bool = False
    gain: float = 1.0


RESAMPLE = [
    Resample((2, 3, 8, 8), (4,), up=(2, 2), padding=(2, 1, 2, 1), gain=4.0),
    Resample((2, 3, 8, 9), (4, 4), down=(2, 2), padding=(1, 1, 1, 1)),
    Resample((1, 2, 7, 5), (4, 4), padding=(2, 1, 2, 1), flip_filter=True),
    Resample((2, 2, 9, 8), (12,), up=(2, 2), padding=(6, 5, 6, 5), gain=4.0),
    Resample((1, 3, 16, 15), (12,), down=(2, 2), padding=(5, 5, 5, 5)),
    Resample((2, 1, 5, 6), (3, 5), up=(3, 2), down=(2, 3), padding=(2, 3, 1, 4), gain=0.7),
    Resample((1, 2, 10, 11), (2, 3), up=(1, 2), down=(3, 1), padding=(-1, 2, 3, -2)),
    Resample((1, 1, 6, 6), None, up=(2, 3), padding=(1, 0, -1, 2), gain=1.5),
    Resample((1, 2, 6, 5), None, down=(2, 2)),
    Resample((2, 2, 4, 4), (7,), up=(4, 4), padding=(3, 3, 3, 3), flip_filter=True),
    Resample((1, 2, 6, 20), (5, 5), padding=(2, 2, 2, 2)),
    Resample((1, 1, 1, 1), (4,), up=(2, 2), padding=(2, 1, 2, 1)),
]
#: more than a tile of the kernels, and planes enough for several in a block
LARGE = [
    RESAMPLE[0]._replace(shape=(2, 16, 70, 75), taps=(4, 4)),
    RESAMPLE[1]._replace(shape=(2, 16, 133, 70)),
    RESAMPLE[2]._replace(shape=(2, 16, 67, 129)),
    RESAMPLE[1]._replace(shape=(40, 3, 4, 4)),
]


def resample_filter(taps: tuple[int, ...] | None, rank_one: bool = False, device: str = "cpu") -> Tensor | None:
    """A random filter of the case's size; ``rank_one`` makes a 2-D one the outer product of two others."""
    if taps is None:
        return None
    if rank_one and len(taps) == 2:
        return torch.randn(taps[0], 1, device=device) * torch.randn(1, taps[1], device=device)
    return torch.randn(taps, device=device)


def _call(f: str, **arguments: Any) -> s.Call:
    return s.Call(
        lambda impl, x, f: imgops.upfirdn2d(x, f, **arguments, impl=impl),
        {"x": "NCHW", "f": f},
        {"N": 1, "C": 2, "H": 4, "W": 3},
        frozenset({"x", "f"}),
    )


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x, f = random_image(pick, dtype), random_filter(pick)
    up, down = ((pick.integer(1, 4), pick.integer(1, 4)) for _ in range(2))
    padding = tuple(pick.integer(-3, 14) for _ in range(4))
    (fw, fh), (h, w) = filter_size(f), x.shape[2:]
    pick.assume(w * up[0] + padding[0] + padding[1] >= fw)
    pick.assume(h * up[1] + padding[2] + padding[3] >= fh)
    flip, gain = pick.one([True, False]), pick.one([1.0, 4.0, 0.3])

    def run(impl: str | None, x: Tensor) -> Tensor:
        return imgops.upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip, gain=gain, impl=impl)

    return RandomCall(run, [x])


def eager(x: Tensor, f: Tensor, up: int, down: int, padding: list[int], gain: float) -> Tensor:
    """Insert zeros, pad, convolve each channel, keep each down-th pixel."""
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, padding)
    kernels = [f] if f.ndim == 2 else [f[None, :], f[:, None]]
    for kernel in kernels:
        kernel = (kernel * gain ** (1 / len(kernels))).flip([0, 1]).to(x.dtype)
        x = F.conv2d(x, kernel.expand(c, 1, *kernel.shape), groups=c)
    return x[:, :, ::down, ::down]


def _problem(case: Resample, rank_one: bool, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    f = resample_filter(case.taps, rank_one, device)

    def call(backend: str, x: Tensor) -> Tensor:
        return imgops.upfirdn2d(x, f, case.up, case.down, case.padding, case.flip_filter, case.gain, impl=backend)

    return [s.image(case.shape, dtype, device)], call


def _problems(dry: bool) -> Iterator[s.Problem]:
    for i, case in enumerate([*RESAMPLE, *LARGE][: 1 if dry else None]):
        yield s.Problem(f"{i} {case.shape}", partial(_problem, case, False))
        if case.taps is not None and len(case.taps) == 2:
            yield s.Problem(f"{i} {case.shape}/rank one", partial(_problem, case, True))


def resample_case(
    shape: s.Shape,
    dtype: torch.dtype,
    channels_last: bool = False,
    up: int = 1,
    down: int = 1,
    taps: int = 4,
    padding: tuple[int, int] = (1, 1),
) -> s.Case:
    """A low-pass filter with a factor; 4 taps are [1, 3, 3, 1] made 2-D, more are a separable 1-D window."""

    def make(device: torch.device) -> s.Kwargs:
        f = torch.hann_window(taps + 2, periodic=False, device=device)[1:-1]
        if taps == 4:
            f = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device)
            f = f.outer(f)
        return {
            "x": s.image(shape, dtype, device, channels_last),
            "f": f / f.sum(),
            "up": up,
            "down": down,
            "padding": [*padding, *padding],
            "gain": float(up**2),
        }

    n, c, h, w = shape
    out_h, out_w = ((size * up + sum(padding) - taps) // down + 1 for size in (h, w))
    size_in, size_out = n * c * h * w * dtype.itemsize, n * c * out_h * out_w * dtype.itemsize
    # along x on the rows of the input, then along y; only the taps that meet a sample
    flops = 2 * n * c * taps // up * (h * out_w + out_h * out_w)
    note = f"up{up}" if up > 1 else f"down{down}" if down > 1 else "filter"
    name = s.label(shape, dtype, channels_last, note, f"{taps} taps")
    return s.Case(
        "upfirdn2d", name, make, ("x",), (size_in + size_out, 2 * (size_in + size_out)), (flops, 2 * flops), dtype
    )


_CASES = s.cases_of(
    resample_case((1, 3, 8, 8), s.SINGLE, up=2, padding=(2, 1)),
    resample_case((16, 3, 128, 128), s.SINGLE, up=2, padding=(2, 1)),
    resample_case((16, 64, 257, 257), s.HALF),
    resample_case((16, 64, 257, 257), s.HALF, channels_last=True),
    resample_case((16, 64, 256, 256), s.HALF, down=2),
    resample_case((16, 64, 256, 256), s.HALF, channels_last=True, down=2),
    resample_case((16, 64, 128, 128), s.HALF, up=2, padding=(2, 1)),
    resample_case((4, 32, 1025, 1025), s.HALF),
    resample_case((4, 128, 148, 148), s.HALF, up=2, taps=12, padding=(6, 5)),
)


#: [1, 3, 3, 1], of one axis
FOUR = torch.tensor([1.0, 3.0, 3.0, 1.0]).double() / 8
FORMS = {"eager": eager, "eager strided": _eager.upfirdn2d}


def _comparisons() -> list[s.Comparison]:
    """The resampling of StyleGAN2 with [1, 3, 3, 1]: up, down, and the filter alone, in both layouts."""
    f, forms = imgops.setup_filter([1, 3, 3, 1]), {"imgops": imgops.upfirdn2d, **FORMS}
    problems = [
        ("up 2", 2, 1, [2, 1, 2, 1], 4.0),
        ("down 2", 1, 2, [1, 1, 1, 1], 1.0),
        ("filter", 1, 1, [2, 1, 2, 1], 1.0),
    ]
    rows = []
    for name, up, down, padding, gain in problems:
        for layout in ("nchw", "nhwc"):
            x = s.image((4, 64, 128, 128), torch.float32, "cpu", layout == "nhwc")
            kwargs = {"x": x, "f": f, "up": up, "down": down, "padding": padding, "gain": gain}
            goals = (5.0, 15.0) if name == "up 2" and layout == "nchw" else (None, None)
            rows.append(s.Comparison("upfirdn2d", f"4x64x128x128 {layout} {name}", s.forward(forms, kwargs), *goals))
    return rows


def _recorded(a: dict[str, Tensor], params: s.Kwargs, backend: str) -> dict[str, Tensor]:
    del params["filter"]
    x = a["x"].requires_grad_()
    y = imgops.upfirdn2d(x, a.get("f"), **params, impl=backend)
    return {"y": y, "dx": torch.autograd.grad(y, x, a["dy"])[0]}


def _pictures() -> dict[str, nn.Module]:
    f = imgops.setup_filter([1, 3, 3, 1])
    return {"upfirdn2d": s.Called(lambda x, f: imgops.upfirdn2d(x, f, up=3, down=2, padding=3), f=f)}


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    x, square, long = s.unread(LAUNCH_SHAPE, dtype, channels_last), torch.empty(4, 4), torch.empty(12)
    for name, f, up, down, padding in (
        ("up 2, 4x4", square, 2, 1, (2, 1, 2, 1)),
        ("down 2, 4x4", square, 1, 2, (1, 1, 1, 1)),
        ("up 2, 12 separable", long, 2, 1, (6, 5, 6, 5)),
        ("down 2, 12 separable", long, 1, 2, (5, 5, 5, 5)),
        ("8x8", torch.empty(8, 8), 1, 1, (4, 3, 4, 3)),
    ):
        arguments = x, f, (up, up), (down, down), padding, False, 1.0
        yield s.Launch(f"upfirdn2d {name}", "upfirdn2d.upfirdn2d", arguments, tested=name == "8x8")
    n, c, h, w = LAUNCH_SHAPE
    grown = s.unread((n, c, h + 1, w + 1), dtype, channels_last)
    arguments = grown, square, (1, 1), (1, 1), (1, 1, 1, 1), False, 4.0, *launch_epilogue(), True
    yield s.Launch("upfirdn2d_bias_act 4x4", "upfirdn2d.upfirdn2d_bias_act", arguments)


_FACTORS = ([2, 1], [1, 2], [2, 1, 1, 2])
_TAPS = torch.tensor([0.3, 1.0, 0.5])
SHEET = s.Sheet(
    calls={
        "upfirdn2d-separable": _call("3", up=2, padding=2),
        "upfirdn2d-matrix": _call("32", down=2, padding=1, flip_filter=True),
    },
    sized={
        "upfirdn2d": s.Call(
            lambda impl, x: imgops.upfirdn2d(x, FOUR.to(x.device), up=2, padding=4, impl=impl), {"x": "NCHW"}, {}
        ),
        "upfirdn2d, learned": s.Call(
            lambda impl, x, f: imgops.upfirdn2d(x, f, down=2, padding=4, impl=impl), {"x": "NCHW", "f": "32"}, {}
        ),
    },
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems, cases=_CASES, launches=_launches,
    comparisons=_comparisons, recorded=_recorded,
    schemas={
        "upfirdn2d": lambda: (s.values(1, 2, 4, 3), _TAPS.double(), *_FACTORS, False, 0.7),
        "upfirdn2d: channels-last": lambda: (
            s.values(2, 3, 6, 5).contiguous(memory_format=torch.channels_last), None, *_FACTORS, False, 1.5,
        ),
        "upfirdn2d_bias_act": lambda: (
            s.values(1, 2, 4, 3), _TAPS, *_FACTORS, False, 0.7, s.values(2), s.values(1, 2), s.values(1, 1, 3, 7),
            "swish", 0.0, 1.3, 4.0, True,
        ),
    },
    products={
        "upfirdn2d": reference,
        "upfirdn2d_bias_act": lambda *arguments: reference(*arguments[:7]),
    },
    cuda=True,
)  # fmt: skip
