"""The fact sheet of gram_matrix, with the shapes of all that is computed from features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import imgops
from imgops.reference import gram_matrix as reference

from . import _sheet as s
from ._random import Pick, RandomCall, sides, strided

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


def _problem(shape: s.Shape, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> s.Made:
    return [s.image(shape, dtype, device)], lambda backend, x: imgops.gram_matrix(x, normalization="hw", impl=backend)


def feature_cases(
    op: str, make: Callable[[s.Shape, torch.device], s.Kwargs] | None = None
) -> Callable[[bool], list[s.Case]]:
    """Second-order statistics of VGG's features at 512 px and the losses on them; ``make`` adds arguments beside x.

    Half of a symmetric product is counted. Backward: x and dx, and the whole product of the difference and x.
    """

    def case(shape: s.Shape, dtype: torch.dtype, channels_last: bool = False) -> s.Case:
        n, c, h, w = shape

        def arguments(device: torch.device) -> s.Kwargs:
            x = s.image(shape, dtype, device, channels_last)
            return {"x": x} if make is None else {"x": x, **make(shape, device)}

        x, product = math.prod(shape) * dtype.itemsize, n * c * c
        costs = (x + 4 * product, 3 * x + 8 * product), (product * h * w, 3 * product * h * w)
        # PyTorch's products of float32 are not in TF32
        rate = "float32" if dtype == torch.float32 else s.product_rate(dtype)
        return s.Case(op, s.label(shape, dtype, channels_last), arguments, ("x",), *costs, dtype, rate)

    return s.cases_of(
        case((1, 4, 6, 6), torch.float32),
        case((1, 64, 512, 512), torch.float32),
        # sums of the squares of so many pixels are beyond float16
        case((1, 64, 512, 512), torch.bfloat16),
        case((1, 256, 128, 128), torch.bfloat16),
        case((1, 512, 64, 64), torch.float32),
        case((1, 512, 64, 64), torch.bfloat16, channels_last=True),
    )


FORMS: dict[str, s.Form] = {"eager": eager, "eager blocks": eager_blocks}


def _comparisons() -> list[s.Comparison]:
    rows, forms = [], {"imgops": imgops.gram_matrix, **FORMS}
    for channels, side in VGG:
        calls = s.forward(forms, {"x": torch.randn(1, channels, side, side)})
        rows.append(s.Comparison("gram_matrix", f"1x{channels}x{side}x{side}", calls, memory="reused"))
    return rows


def _pictures() -> dict[str, nn.Module]:
    return {
        f"gram_matrix {name}": s.Called(lambda x, name=name: imgops.gram_matrix(x, normalization=name))
        for name in ("chw", "hw", "nchw", "none")
    }


def _run(impl: str, x: Tensor) -> Tensor:
    return imgops.gram_matrix(x, impl=impl)


def launch_features(dtype: torch.dtype, channels_last: bool) -> Tensor:
    """VGG's relu4 of one picture, for launches."""
    return s.unread((1, 512, 32, 32), dtype, channels_last)


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    x, products, mean = launch_features(dtype, channels_last), torch.empty(1, 512, 512), torch.empty(1, 512)
    few = s.unread((1, 64, 256, 256), dtype, channels_last)
    yield s.Launch("gram_matrix", "gram_matrix.gram_matrix", (x, "none"))
    yield s.Launch("gram_matrix of 64 channels", "gram_matrix.gram_matrix", (few, "none"), tested=False)
    yield s.Launch("mix_channels", "gram_matrix.mix_channels", (x, products, mean, mean))


SHEET = s.Sheet(
    calls={"gram_matrix": s.Call(_run, {"x": "NCHW"}, {"N": 2, "C": 3, "H": 2, "W": 2})},
    sized={"gram_matrix": s.Call(_run, {"x": "NCHW"}, {})},
    random=_random, forms=FORMS, pictures=_pictures, launches=_launches, comparisons=_comparisons,
    problems=s.of_shapes(FEATURES, _problem),
    cases=feature_cases("gram_matrix"),
    schemas={
        "gram_matrix": lambda: (s.values(2, 3, 3, 2), "chw"),
        "mix_channels": lambda: (s.values(2, 3, 3, 2), s.values(2, 3, 3), s.values(2, 3), s.values(2, 3)),
        "mix_channels: channels-last": lambda: (
            s.values(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), s.values(2, 3, 3), None, None,
        ),
    },
    products={
        "gram_matrix": lambda x, _: reference.gram_matrix(x, 1),
        "mix_channels": lambda x, weight, *_: weight @ x.flatten(2),
    },
    tolerance=s.SEVERAL_ROUNDINGS,
)  # fmt: skip
