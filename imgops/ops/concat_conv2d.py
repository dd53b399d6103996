"""The convolution of the channels of several images, or of an up-sampled one, which is never made.

It is a step of inference, where the copy that ``torch.cat`` or ``F.interpolate`` makes for a convolution takes up to a
third of its time; it has no gradient. An up-sampled image also takes fewer products, as its pixels are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._epilogue import Epilogue
from ..reference import conv2d as reference
from ._algorithms import fused_conv2d_pays
from ._common import (
    accumulation_dtype,
    autocast_dtype,
    gradient_wanted,
    in_forward_mode,
    is_empty,
    is_transformed,
)
from ._flops import convolution
from ._registration import namespace, register
from .conv2d import check_tensors, padded_conv2d

_ONE = (1, 1)


def concat_conv2d(
    backend: str,
    parts: Sequence[Tensor],
    weight: Tensor,
    epilogue: Epilogue,
    nearest: int,
    padding: tuple[int, int, int, int],
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    """:func:`.conv2d.padded_conv2d` of the parts' channels as one image, up-sampled by ``nearest``, 1 or 2.

    Shapes: parts [N, C, H, W], alike but for C; weight [O, all their channels, kh, kw]. The CPU backend reads the parts
    where they lie if it has a kernel for the convolution and no gradient is wanted; all else is done on a copy.
    """
    tensors = *parts, weight, residual, *epilogue[:3]
    if backend == "cpu" and not (gradient_wanted(*tensors) or is_transformed() or in_forward_mode()):
        x = _without_memory(parts, nearest)
        if x is not None and fused_conv2d_pays(backend, x, weight, _ONE, _ONE, 1):
            check_tensors(x, weight, epilogue.b, _ONE, padding, "zeros", _ONE, 1, residual)
            weight, epilogue = weight.to(x.dtype), epilogue.to(accumulation_dtype(x.dtype))
            residual = None if residual is None else residual.to(x.dtype)
            convolve = namespace(backend).concat_conv2d
            return convolve(list(parts), weight, nearest, padding, residual, residual_scale, *epilogue)
    x = reference.concatenated(parts, nearest)
    return padded_conv2d(x, weight, epilogue, _ONE, padding, "zeros", _ONE, 1, backend, residual, residual_scale)


def _without_memory(parts: Sequence[Tensor], nearest: int) -> Tensor | None:
    """A tensor like the image that the parts would be, for checks alone; None if the op does not take it."""
    first = parts[0]
    fit = all(
        t.ndim == first.ndim == 4
        and (t.shape[0], *t.shape[2:]) == (first.shape[0], *first.shape[2:])
        and (t.dtype, t.device) == (first.dtype, first.device)
        for t in parts
    )
    # where all parts are channels-last, so is the copy
    if not fit or all(map(_is_channels_last, parts)) or autocast_dtype(first) is not None:
        return None
    n, _, h, w = first.shape
    x = first.new_empty(1).expand(n, sum(t.shape[1] for t in parts), nearest * h, nearest * w)
    return None if is_empty(x) else x


def _is_channels_last(t: Tensor) -> bool:
    """Whether t's strides are those of channels-last, with gaps or without; PyTorch tells it in this way."""
    least = 1
    for d in (1, 3, 2, 0):
        # of a single pixel they are not
        if t.stride(d) < least or (d == 0 and least == t.stride(1)):
            return False
        least = t.stride(d) * t.shape[d]
    return True


def _fake(parts: list[Tensor], weight: Tensor, nearest: int, padding: Sequence[int], *rest: Any) -> Tensor:
    n, _, h, w = parts[0].shape
    x0, x1, y0, y1 = padding
    return parts[0].new_empty([n, weight.shape[0], nearest * h + y0 + y1 - 2, nearest * w + x0 + x1 - 2])


def _flops(parts: Any, weight: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    return convolution(weight, out_shape)


register(
    "concat_conv2d(Tensor[] parts, Tensor weight, int nearest, SymInt[] padding, Tensor? residual, "
    "float residual_scale, Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, float gain, float clamp) "
    "-> Tensor",
    fake=_fake,
    triton=None,
    backward=None,
    setup_context=None,
    flops=_flops,
)
