"""Random calls of the ops, from choices that a :class:`Pick` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from imgops.reference.bias_act import ACTIVATIONS

#: activations whose slope jumps where the output is 0
KINKED = ("relu", "lrelu", "selu", "hardswish")


class Pick(Protocol):
    """Random choices; tests/ops/test_fuzz.py has hypothesis make them, which benchmarks do without."""

    def one(self, options: Sequence[Any]) -> Any: ...

    def integer(self, least: int, most: int) -> int: ...

    def order(self, n: int) -> list[int]: ...

    def assume(self, condition: bool) -> None:
        """Give the call up unless this holds."""


class RandomCall(NamedTuple):
    """``run(impl, *tensors)``, the tensors that it is differentiable by, and the |outputs| where its slope jumps."""

    run: Callable[..., Tensor]
    tensors: list[Tensor]
    kinks: tuple[float, ...] = ()
    #: the error that a half-precision result may have, in roundings: above 1 if results between passes are rounded too
    roundings: float = 1
    #: whether what is rounded may be larger than what an activation or a clamp leaves of it
    squashed: bool = False
    #: whether no intermediate value is so close to a kink that rounding decides on its slope
    smooth: bool = True


def strided(pick: Pick, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Random values, times ``scale``, in memory laid out in one of the ways that users' tensors are."""
    if not shape:
        return torch.randn(shape).to(dtype)
    layouts = ["contiguous", "permuted", "offset", "expanded"] + ["channels_last"] * 2 * (len(shape) == 4)
    layout = pick.one(layouts)
    if layout == "permuted":
        order = pick.order(len(shape))
        back = [order.index(i) for i in range(len(shape))]
        return (torch.randn([shape[i] for i in order]) * scale).to(dtype).permute(back)
    if layout == "offset":
        return (torch.randn([n + 3 for n in shape]) * scale).to(dtype)[tuple(slice(2, n + 2) for n in shape)]
    if layout == "expanded":
        where = pick.integer(0, len(shape) - 1)
        return (torch.randn([1 if i == where else n for i, n in enumerate(shape)]) * scale).to(dtype).expand(shape)
    x = (torch.randn(shape) * scale).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def random_image(pick: Pick, dtype: torch.dtype, largest: int = 18, most_channels: int = 5) -> Tensor:
    n, c = pick.one([0, 1, 1, 2, 2, 3]), pick.integer(1, most_channels)
    return strided(pick, (n, c, pick.integer(1, largest), pick.integer(1, largest)), dtype)


def random_filter(pick: Pick) -> Tensor | None:
    kind = pick.one(["none", "separable", "matrix", "rank one"])
    a, b = torch.randn(pick.integer(1, 13)), torch.randn(pick.integer(1, 6))
    return {"none": None, "separable": a, "matrix": torch.randn(len(b), len(a)), "rank one": torch.outer(b, a)}[kind]


def filter_size(f: Tensor | None) -> tuple[int, int]:
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def random_epilogue(pick: Pick) -> dict[str, Any]:
    act = pick.one(list(ACTIVATIONS))
    return {"act": act, "gain": pick.one([None, 0.7]), "clamp": pick.one([None, None, 2.0])}


def kinks_of(epilogue: Mapping[str, Any]) -> tuple[float, ...]:
    """The |outputs| where the slope jumps, of an epilogue's arguments by name."""
    act, gain, clamp = (epilogue[name] for name in ("act", "gain", "clamp"))
    kinks = [0.0] if act in KINKED else []
    if act == "hardswish":
        # from here on it is the identity, times the gain
        kinks.append(3 * (ACTIVATIONS[act].default_gain if gain is None else gain))
    return (*kinks, *([] if clamp is None else [clamp]))


def sides(pick: Pick) -> tuple[int, int]:
    """The height and width of a picture."""
    return pick.integer(1, 20), pick.integer(1, 20)
