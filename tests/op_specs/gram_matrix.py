"""The fact sheet of gram_matrix, with the shapes of all that is computed from features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

import imgops
from imgops.reference import gram_matrix as reference

from ._random import Pick, RandomCall, sides, strided
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
    forward,
    image,
    label,
    product_rate,
    values,
)

#: on which the backends are checked
FEATURES = [(2, 3, 5, 7), (1, 70, 9, 11), (3, 16, 33, 31)]
#: of make bench: channels and side of relu1 to relu4 for an image of 256 x 256
VGG = ((64, 256), (128, 128), (256, 64), (512, 32))


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    normalization = pick.one(["chw", "hw", "nchw", "none"])
    x = strided(pick, (pick.integer(0, 2), pick.integer(0, 70), *sides(pick)), dtype)
    return RandomCall(lambda impl, x: imgops.gram_matrix(x, normalization=normalization, impl=impl), [x])


def eager(x: Tensor) -> Tensor:
    """As one writes it first."""
    n, c, h, w = x.shape
    flat = x.reshape(n, c, h * w)
    return torch.bmm(flat, flat.transpose(1, 2)) / (c * h * w)


def eager_blocks(x: Tensor) -> Tensor:
    """Blocks of channels on and below the diagonal, the rest mirrored; for one sample, and without gradient."""
    n, c, h, w = x.shape
    flat, g, half = x.reshape(c, h * w), x.new_empty(n, c, c), c // 2
    torch.mm(flat[:half], flat[:half].t(), out=g[0, :half, :half])
    torch.mm(flat[half:], flat.t(), out=g[0, half:])
    g[0, :half, half:] = g[0, half:, :half].t()
    return g.div_(c * h * w)


def _problem(shape: Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    return [image(shape, dtype, device)], lambda backend, x: imgops.gram_matrix(x, normalization="hw", impl=backend)


def _problems(dry: bool) -> Iterator[Problem]:
    for shape in FEATURES[: 1 if dry else None]:
        yield Problem(str(shape), partial(_problem, shape))


def feature_cases(op: str, dry: bool, make: Callable[[Shape, torch.device], Kwargs] | None = None) -> list[Case]:
    """Second-order statistics of VGG's features at 512 px and the losses on them; ``make`` adds arguments beside x.

    Half of a symmetric product is counted. Backward: x and dx, and the whole product of the difference and x.
    """

    def case(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> Case:
        n, c, h, w = shape

        def arguments(device: torch.device) -> Kwargs:
            x = image(shape, dtype, device, channels_last)
            return {"x": x} if make is None else {"x": x, **make(shape, device)}

        x, product = math.prod(shape) * dtype.itemsize, n * c * c
        costs = (x + 4 * product, 3 * x + 8 * product), (product * h * w, 3 * product * h * w)
        # PyTorch's products of float32 are not in TF32
        rate = "float32" if dtype == torch.float32 else product_rate(dtype)
        return Case(op, label(shape, dtype, channels_last), arguments, ("x",), *costs, dtype, rate)

    if dry:
        return [case((1, 4, 6, 6), torch.float32)]
    return [
        case((1, 64, 512, 512), torch.float32),
        # sums of the squares of so many pixels are beyond float16
        case((1, 64, 512, 512), torch.bfloat16),
        case((1, 256, 128, 128), torch.bfloat16),
        case((1, 512, 64, 64), torch.float32),
        case((1, 512, 64, 64), torch.bfloat16, channels_last=True),
    ]


FORMS: dict[str, Form] = {"eager": eager, "eager blocks": eager_blocks}


def _comparisons() -> list[Comparison]:
    rows, forms = [], {"imgops": imgops.gram_matrix, **FORMS}
    for channels, side in VGG:
        calls = forward(forms, {"x": torch.randn(1, channels, side, side)})
        rows.append(Comparison("gram_matrix", f"1x{channels}x{side}x{side}", calls, memory="reused"))
    return rows


def _pictures() -> dict[str, nn.Module]:
    return {
        f"gram_matrix {name}": Called(lambda x, name=name: imgops.gram_matrix(x, normalization=name))
        for name in ("chw", "hw", "nchw", "none")
    }


def _run(impl: str, x: Tensor) -> Tensor:
    return imgops.gram_matrix(x, impl=impl)


SHEET = Sheet(
    calls={"gram_matrix": Call(_run, {"x": "NCHW"}, {"N": 2, "C": 3, "H": 2, "W": 2})},
    sized={"gram_matrix": Call(_run, {"x": "NCHW"}, {})},
    random=_random,
    forms=FORMS,
    pictures=_pictures,
    problems=_problems,
    cases=lambda dry: feature_cases("gram_matrix", dry),
    comparisons=_comparisons,
    schemas={
        "gram_matrix": lambda: (values(2, 3, 3, 2), "chw"),
        "mix_channels": lambda: (values(2, 3, 3, 2), values(2, 3, 3), values(2, 3), values(2, 3)),
        "mix_channels: channels-last": lambda: (
            values(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), values(2, 3, 3), None, None,
        ),
    },
    products={
        "gram_matrix": lambda x, _: reference.gram_matrix(x, 1),
        "mix_channels": lambda x, weight, *_: weight @ x.flatten(2),
    },
    tolerance=SEVERAL_ROUNDINGS,
)  # fmt: skip
