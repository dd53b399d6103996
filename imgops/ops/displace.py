"""``displace``: move the pixels of images by a field of displacements, in one pass; the op is that of grid_sample."""

from __future__ import annotations

from torch import Tensor

from .. import _backend
from ._common import STATUSES, check_operand, check_tensor
from .grid_sample import check_padding_mode, sample


def displace(x: Tensor, displacement: Tensor, *, padding_mode: str = "border", impl: str | None = None) -> Tensor:
    """``out(p) = x(p + displacement(p))``, bilinear, with the displacement in pixels.

    The same as ``torch.nn.functional.grid_sample`` at a grid of pixel centers plus the displacement, without making
    that grid. Differentiable to any order with respect to x and displacement; deterministic as :func:`grid_sample` is.

    Args:
        x: [N, C, H, W], float64/32/16 or bfloat16, any strides. Arithmetic is in float32 at least.
        displacement: [N, 2, H, W] in any of these dtypes: channel 0 along x (to the right), channel 1 along y (down);
            taken in float32 (float64 where x is).
        padding_mode: what is read beyond the image: "zeros"; "border", its nearest pixel; "reflection", the image
            reflected about its edges. Default "border". The displacement has no gradient where "border" reads
            outside or on the border's pixels, nor where "reflection" turns. A place that is NaN, or infinite with
            "reflection", is outside with "zeros" and otherwise the first pixel, and has no gradient.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        [N, C, H, W] in x's dtype, channels-last where x is.

    Raises:
        TypeError: x or displacement is no tensor of a supported dtype.
        ValueError: shapes or devices that do not fit, an unknown padding_mode.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("displace", "x", x, 4)
    check_operand("displace", "displacement", displacement, x, (x.shape[0], 2, *x.shape[2:]))
    check_padding_mode("displace", padding_mode)
    backend = _backend.choose("displace", x.device.type, impl, STATUSES)
    return sample(backend, x, displacement, True, padding_mode)
