"""The fact sheet of adain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import imgops

from ._random import Pick, RandomCall, random_image, strided
from ._sheet import (
    SEVERAL_ROUNDINGS,
    Call,
    Called,
    Case,
    Comparison,
    Form,
    Kwargs,
    Made,
    Problem,
    Shape,
    Sheet,
    both,
    forward,
    image,
    label,
    values,
)
from .bias_act import PLANES

#: planes of one block, and of several
NORMALISED = [*PLANES, (2, 8, 72, 65), (1, 5, 260, 251)]


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


def _problem(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    style = image((*shape[:2], 6, 7), dtype, device) * 2 + 1
    return [image(shape, dtype, device), style], lambda backend, x, style: imgops.adain(x, style, impl=backend)


def _problems(dry: bool) -> Iterator[Problem]:
    for shape in NORMALISED[: 1 if dry else None]:
        yield Problem(str(shape), partial(_problem, shape))


def _case(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> Case:
    """The features of a content with the statistics of a style's of the same size."""

    def make(device: torch.device) -> Kwargs:
        return {name: image(shape, dtype, device, channels_last) for name in ("content", "style")}

    size = math.prod(shape) * dtype.itemsize
    # forward: content, style, y; backward: dy, content, style and two gradients
    name = label(shape, dtype, channels_last)
    return Case("adain", name, make, ("content", "style"), (3 * size, 8 * size), (0, 0), dtype)


def _cases(dry: bool) -> list[Case]:
    half, single = torch.float16, torch.float32
    if dry:
        return [_case((1, 2, 6, 6), single)]
    return [
        _case((8, 512, 64, 64), single),
        _case((8, 512, 64, 64), half),
        _case((8, 512, 64, 64), half, channels_last=True),
        _case((8, 64, 512, 512), half),
    ]


#: of make bench: relu4_1 of a picture of 512 x 512, with half of its channels
FEATURES = (4, 256, 64, 64)
FORMS: dict[str, Form] = {"eager": eager, "eager instance_norm": eager_instance_norm}


def compare(
    op: str, forms: dict[str, Form], layout: str, kwargs: Kwargs, names: tuple[str, ...], goals: tuple = (None, None)
) -> list[Comparison]:
    """The rows of a normalisation in one layout; instance_norm's variance is biased, 1.2e-4 apart at 4096 pixels."""
    name = f"4x256x64x64 {layout}"
    return [
        Comparison(op, f"{name} forward", forward(forms, kwargs), *goals, tolerance=2e-4),
        Comparison(op, f"{name} forward+backward", both(forms, kwargs, names), tolerance=2e-4),
    ]


def _comparisons() -> list[Comparison]:
    rows: list[Comparison] = []
    for layout, goals in (("nchw", (6.0, 12.0)), ("nhwc", (None, None))):
        kwargs = {name: image(FEATURES, torch.float32, "cpu", layout == "nhwc") for name in ("content", "style")}
        rows += compare("adain", {"imgops": imgops.adain, **FORMS}, layout, kwargs, ("content", "style"), goals)
    return rows


def _pictures() -> dict[str, nn.Module]:
    return {"adain": Called(lambda x: imgops.adain(x, 2 * x[:, :, 1:].contiguous()))}


def _run(impl: str, content: Tensor, style: Tensor) -> Tensor:
    return imgops.adain(content, style, impl=impl)


SHEET = Sheet(
    calls={
        "adain": Call(
            _run,
            {"content": "NCHW", "style": "1CWH"},
            {"N": 2, "C": 2, "H": 3, "W": 2},
            frozenset({"content", "style"}),
        )
    },
    sized={"adain": Call(_run, {"content": "NCHW", "style": "NCOO"}, {})},
    random=_random,
    forms=FORMS,
    pictures=_pictures,
    problems=_problems,
    cases=_cases,
    comparisons=_comparisons,
    schemas={"mean_std": lambda: (values(2, 2, 3, 2), 1e-5, True)},
    tolerance=SEVERAL_ROUNDINGS,
)
