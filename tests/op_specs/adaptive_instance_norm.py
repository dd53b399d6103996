"""The fact sheet of adaptive_instance_norm."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops

from . import _sheet as s
from ._random import Pick, RandomCall, random_image, strided
from .adain import FEATURES, LAUNCH_SHAPES, NORMALIZED, compare


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    x, eps = random_image(pick, dtype), pick.one([1e-2, 0.1])
    shapes = [(pick.one([x.shape[0], 1]), x.shape[1]) for _ in range(2)]
    return RandomCall(
        lambda impl, x, scale, bias: imgops.adaptive_instance_norm(x, scale, bias, eps=eps, impl=impl),
        [x, *(strided(pick, shape, dtype) for shape in shapes)],
    )


def _affine(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return (1 + scale.to(x.dtype)[:, :, None, None]) * x + bias.to(x.dtype)[:, :, None, None]


def eager(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The formula."""
    centered = x - x.mean([2, 3], keepdim=True)
    x_hat = centered * torch.rsqrt(centered.square().mean([2, 3], keepdim=True) + 1e-8)
    return _affine(x_hat, scale, bias)


def eager_instance_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """instance_norm and an affine map."""
    return _affine(F.instance_norm(x, eps=1e-8), scale, bias)


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    def call(backend: str, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return imgops.adaptive_instance_norm(x, scale, bias, impl=backend)

    of_planes = (torch.randn(shape[:2], device=device, dtype=acc_dtype) for _ in range(2))
    return [s.image(shape, dtype, device), *of_planes], call


def _case(shape: s.Shape, dtype: torch.dtype, channels_last: bool = False) -> s.Case:
    """StyleGAN1's normalization, with a scale and a bias per plane."""

    def make(device: torch.device) -> s.Kwargs:
        of_planes = {name: torch.randn(shape[:2], device=device) for name in ("scale", "bias")}
        return {"x": s.image(shape, dtype, device, channels_last), **of_planes}

    gradients = ("x", "scale", "bias")
    # forward: x, y; backward: dy, x, dx
    return s.image_case("adaptive_instance_norm", shape, dtype, channels_last, make, gradients, images=(2, 5))


_CASES = s.cases_of(
    _case((1, 2, 6, 6), s.SINGLE),
    _case((16, 128, 128, 128), s.HALF),
    _case((4, 32, 1024, 1024), s.HALF, channels_last=True),
)


FORMS: dict[str, s.Form] = {"eager": eager, "eager instance_norm": eager_instance_norm}


def _comparisons() -> list[s.Comparison]:
    rows: list[s.Comparison] = []
    forms = {"imgops": imgops.adaptive_instance_norm, **FORMS}
    for layout in ("nchw", "nhwc"):
        of_planes = {name: torch.randn(FEATURES[:2]) for name in ("scale", "bias")}
        kwargs = {"x": s.image(FEATURES, torch.float32, "cpu", layout == "nhwc"), **of_planes}
        rows += compare("adaptive_instance_norm", forms, layout, kwargs, ("x", "scale", "bias"))
    return rows


def _pictures() -> dict[str, nn.Module]:
    bias = torch.randn(1, 4)
    return {"adaptive_instance_norm": s.Called(lambda x, b: imgops.adaptive_instance_norm(x, b, b), b=bias)}


def _run(impl: str, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return imgops.adaptive_instance_norm(x, scale, bias, impl=impl)


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    op = "adaptive_instance_norm"
    for shape in LAUNCH_SHAPES:
        x, of_planes, size = s.unread(shape, dtype, channels_last), torch.empty(shape[:2]), f"{shape[2]}x{shape[3]}"
        arguments, smallest, largest = (of_planes, 1e-5, True), shape == LAUNCH_SHAPES[0], shape == LAUNCH_SHAPES[-1]
        yield s.Launch(f"{op} of {size}", f"adain.{op}", (x, of_planes, *arguments), tested=smallest)
        yield s.Launch(f"{op}_backward of {size}", f"adain.{op}_backward", (x, x, *arguments), tested=largest)


SHEET = s.Sheet(
    calls={
        "adaptive_instance_norm": s.Call(
            _run, {"x": "NCHW", "scale": "NC", "bias": "1C"}, {"N": 2, "C": 2, "H": 3, "W": 2}, frozenset({"x"})
        )
    },
    sized={"adaptive_instance_norm": s.Call(_run, {"x": "NCHW", "scale": "NC", "bias": "NC"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, cases=_CASES, launches=_launches, comparisons=_comparisons,
    problems=s.of_shapes(NORMALIZED, _problem),
    schemas={
        "adaptive_instance_norm": lambda: (s.values(2, 2, 3, 2), s.values(2, 2), s.values(2, 2), 1e-5, True),
        "adaptive_instance_norm_backward": lambda: (
            s.values(2, 2, 3, 2), s.values(2, 2, 3, 2), s.values(2, 2), 1e-5, False,
        ),
    },
    tolerance=s.SEVERAL_ROUNDINGS,
)  # fmt: skip
