"""The fact sheet of adain."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops

from . import _sheet as s
from ._random import Pick, RandomCall, random_image, strided
from .bias_act import PLANES

#: planes of one block, and of several
NORMALIZED = [*PLANES, (2, 8, 72, 65), (1, 5, 260, 251)]


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    content = random_image(pick, dtype)
    n, c = content.shape[:2]
    shape = (pick.one([n, 1]), c, pick.integer(1, 9), pick.integer(2, 9))
    unbiased, eps = pick.one([True, False]), pick.one([1e-2, 0.1])
    pick.assume(content.shape[2] * content.shape[3] > 1)
    return RandomCall(
        lambda impl, content, style: imgops.adain(content, style, eps=eps, unbiased=unbiased, impl=impl),
        [content, strided(pick, shape, dtype)],
    )


def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    mean = x.mean([2, 3], keepdim=True)
    return mean, (x.var([2, 3], keepdim=True) + eps).sqrt()


def eager(content: Tensor, style: Tensor) -> Tensor:
    """The formula, as the published code has it."""
    mean, std = _statistics(content, 1e-5)
    style_mean, style_std = _statistics(style, 1e-5)
    return (content - mean) / std * style_std + style_mean


def eager_instance_norm(content: Tensor, style: Tensor) -> Tensor:
    """instance_norm, whose variance is the biased one, and an affine map."""
    style_mean, style_std = _statistics(style, 1e-5)
    return F.instance_norm(content, eps=1e-5) * style_std + style_mean


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    style = s.image((*shape[:2], 6, 7), dtype, device) * 2 + 1
    return [s.image(shape, dtype, device), style], lambda backend, x, style: imgops.adain(x, style, impl=backend)


def _case(shape: s.Shape, dtype: torch.dtype, channels_last: bool = False) -> s.Case:
    """The features of a content with the statistics of a style's of the same size."""

    def make(device: torch.device) -> s.Kwargs:
        return {name: s.image(shape, dtype, device, channels_last) for name in ("content", "style")}

    # forward: content, style, y; backward: dy, content, style and two gradients
    return s.image_case("adain", shape, dtype, channels_last, make, ("content", "style"), images=(3, 8))


_CASES = s.cases_of(
    _case((1, 2, 6, 6), s.SINGLE),
    _case((8, 512, 64, 64), s.SINGLE),
    _case((8, 512, 64, 64), s.HALF),
    _case((8, 512, 64, 64), s.HALF, channels_last=True),
    _case((8, 64, 512, 512), s.HALF),
)


#: of make bench: relu4_1 of a picture of 512 x 512, with half of its channels
FEATURES = (4, 256, 64, 64)
FORMS: dict[str, s.Form] = {"eager": eager, "eager instance_norm": eager_instance_norm}


def compare(
    op: str,
    forms: dict[str, s.Form],
    layout: str,
    kwargs: s.Kwargs,
    names: tuple[str, ...],
    goals: tuple = (None, None),
) -> list[s.Comparison]:
    """The rows of a normalization in one layout; instance_norm's biased variance moves results by 1.2e-4."""
    name = f"4x256x64x64 {layout}"
    return [
        s.Comparison(op, f"{name} forward", s.forward(forms, kwargs), *goals, tolerance=2e-4),
        s.Comparison(op, f"{name} forward+backward", s.both(forms, kwargs, names), tolerance=2e-4),
    ]


def _comparisons() -> list[s.Comparison]:
    rows: list[s.Comparison] = []
    for layout, goals in (("nchw", (6.0, 12.0)), ("nhwc", (None, None))):
        kwargs = {name: s.image(FEATURES, torch.float32, "cpu", layout == "nhwc") for name in ("content", "style")}
        rows += compare("adain", {"imgops": imgops.adain, **FORMS}, layout, kwargs, ("content", "style"), goals)
    return rows


def _pictures() -> dict[str, nn.Module]:
    return {"adain": s.Called(lambda x: imgops.adain(x, 2 * x[:, :, 1:].contiguous()))}


def _run(impl: str, content: Tensor, style: Tensor) -> Tensor:
    return imgops.adain(content, style, impl=impl)


#: the fewest and the most pixels in a plane of VGG's, and between
LAUNCH_SHAPES = [(8, 512, 16, 16), (8, 128, 128, 128), (8, 64, 512, 512)]


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    for shape in LAUNCH_SHAPES:
        x, name = s.unread(shape, dtype, channels_last), f"mean_std of {shape[2]}x{shape[3]}"
        yield s.Launch(name, "adain.mean_std", (x, 1e-5, True), tested=False)


SHEET = s.Sheet(
    calls={
        "adain": s.Call(
            _run,
            {"content": "NCHW", "style": "1CWH"},
            {"N": 2, "C": 2, "H": 3, "W": 2},
            frozenset({"content", "style"}),
        )
    },
    sized={"adain": s.Call(_run, {"content": "NCHW", "style": "NCOO"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, cases=_CASES, launches=_launches, comparisons=_comparisons,
    problems=s.of_shapes(NORMALIZED, _problem),
    schemas={"mean_std": lambda: (s.values(2, 2, 3, 2), 1e-5, True)},
    tolerance=s.SEVERAL_ROUNDINGS,
)  # fmt: skip
