"""FLOPs of the ops for ``torch.utils.flop_counter``: two for each product that the plain formula of an op sums."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from math import prod
from types import ModuleType
from typing import Any

import torch

_COUNTER = "torch.utils.flop_counter"
#: for each op a function of its arguments, with shapes in place of tensors
_FORMULAS: dict[Any, Callable[..., int]] = {}


def register_flops(op: torch._ops.OpOverloadPacket, formula: Callable[..., int]) -> None:
    """Have PyTorch's counter count the op once a program imports the counter; importing it here would load Triton."""
    _FORMULAS[op] = formula
    if counter := sys.modules.get(_COUNTER):
        _hand_over(counter, {op: formula})


def _hand_over(counter: ModuleType, formulas: dict[Any, Callable[..., int]]) -> None:
    for op, formula in formulas.items():
        counter.register_flop_formula(op)(formula)
    # a counter that is already counting has its own copy of the formulas
    for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack():
        counting = getattr(mode, "counter", None)
        if isinstance(counting, counter.FlopCounterMode):
            counting.flop_registry.update({op: counter.flop_registry[op] for op in formulas})


class _Finder(importlib.abc.MetaPathFinder):
    """Hands the formulas over when the counter is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != _COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _hand_over(module, _FORMULAS)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if _COUNTER not in sys.modules:
    sys.meta_path.insert(0, _Finder())


def no_products(*args: Any, **kwargs: Any) -> int:
    """FLOPs of an op that sums no products: none, as the counter leaves out other arithmetic everywhere."""
    return 0


def resampling(x: Sequence[int], f: Sequence[int] | None, up: Sequence[int], padding: Sequence[int]) -> int:
    """FLOPs of a filter at every pixel of x, up-sampled and padded: those that are dropped afterwards count too."""
    n, c, *size = x
    height, width = _padded(size, up, padding)
    taps = f or (1, 1)
    (fh, fw) = (taps[0], taps[-1])
    rows, columns = height - fh + 1, width - fw + 1
    if len(taps) == 1:
        # along the rows of the whole image, then along the columns of what that leaves
        return 2 * n * c * fw * columns * (height + rows)
    return 2 * n * c * fh * fw * rows * columns


def two_resamplings(
    x: Sequence[int],
    fu: Sequence[int] | None,
    fd: Sequence[int] | None,
    up: int,
    padding_up: Sequence[int],
    padding_down: Sequence[int],
) -> int:
    """FLOPs of an up-sampling filter and a down-sampling one after it."""
    taps = fu or (1, 1)
    height, width = _padded(x[2:], (up, up), padding_up)
    high = (*x[:2], height - taps[0] + 1, width - taps[-1] + 1)
    return resampling(x, fu, (up, up), padding_up) + resampling(high, fd, (1, 1), padding_down)


def convolution(weight: Sequence[int], pixels: Sequence[int]) -> int:
    """FLOPs of a convolution; each tap is multiplied once per pixel of ``pixels`` [N, C, H, W], its output or, if it is
    transposed, its input."""
    return 2 * prod(weight) * pixels[0] * prod(pixels[2:])


def channel_products(x: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """FLOPs of the products of all channels of x [N, C, H, W] with all, at each pixel."""
    return 2 * prod(x) * x[1]


def _padded(size: Sequence[int], up: Sequence[int], padding: Sequence[int]) -> tuple[int, int]:
    return size[0] * up[1] + padding[2] + padding[3], size[1] * up[0] + padding[0] + padding[1]
