"""Up- and down-sampling of images by a low-pass filter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..ops._common import check_int, check_tensor
from ..ops.upfirdn2d import check_filter, filter_size, setup_filter, upfirdn2d
from ..reference.modulated_conv2d import resample_padding
from ._checks import check_size
from ._init import set_filter

#: the low-pass filter of StyleGAN2's re-sampling, a binomial; made 2-D and normalized by setup_filter
RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)


def upsample2d(x: Tensor, f: Tensor | None, up: int = 2) -> Tensor:
    """[N, C, H, W] -> [N, C, H * up, W * up], filtered by f (see :func:`imgops.upfirdn2d`) and centered on it.

    Keeps the mean where f sums to 1. Raises what upfirdn2d raises.
    """
    f, up = _checked("upsample2d", x, f, "up", up)
    padding = resample_padding((0, 0, 0, 0), filter_size(f), up, 1)
    return upfirdn2d(x, f, up=up, padding=padding, gain=float(up**2))


def downsample2d(x: Tensor, f: Tensor | None, down: int = 2) -> Tensor:
    """[N, C, H, W] -> [N, C, H // down, W // down], filtered by f (see :func:`imgops.upfirdn2d`) and centered on it.

    Keeps the mean where f sums to 1. Raises what upfirdn2d raises.
    """
    f, down = _checked("downsample2d", x, f, "down", down)
    padding = resample_padding((0, 0, 0, 0), filter_size(f), 1, down)
    return upfirdn2d(x, f, down=down, padding=padding)


def _checked(op: str, x: Tensor, f: Tensor | None, name: str, factor: int) -> tuple[Tensor | None, int]:
    """The filter and the factor, checked before the padding is computed from them."""
    check_tensor(f"nn.{op}", "x", x, 4)
    return check_filter(f"nn.{op}", "f", f, x), check_int(f"nn.{op}", name, factor, 1)


class _Resample2d(nn.Module):
    f: Tensor

    def __init__(self, factor: int = 2, taps: Sequence[float] = RESAMPLE_TAPS) -> None:
        super().__init__()
        self.factor = check_size(type(self).__name__, "factor", factor)
        self.taps = taps
        self.register_buffer("f", setup_filter(taps))

    def reset_parameters(self) -> None:
        """Initialize the filter, for a layer that was made on the meta device."""
        set_filter(self.f, self.taps)

    def extra_repr(self) -> str:
        return f"factor={self.factor}, taps={list(self.f.shape)}"


class FIRUpsample2d(_Resample2d):
    """Up-sampling with a low-pass filter after it, which leaves no aliases (Zhang 2019; Karras et al. 2020).

    Args:
        factor: of height and width, >= 1. Default 2.
        taps: of the filter, for :func:`imgops.setup_filter`, which normalizes them. Default [1, 3, 3, 1].

    Shapes: x [N, C, H, W] -> [N, C, H * factor, W * factor] in x's dtype, channels-last where x is; f, a buffer.

    Raises:
        TypeError, ValueError: a factor that is no int >= 1, what setup_filter raises; in the forward, what upfirdn2d
            raises.

    >>> FIRUpsample2d()(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 32, 32])
    """

    def forward(self, x: Tensor) -> Tensor:
        return upsample2d(x, self.f, self.factor)


class FIRDownsample2d(_Resample2d):
    """Down-sampling with a low-pass filter before it, which keeps out aliases (Zhang 2019; Karras et al. 2020).

    Args:
        factor: of height and width, >= 1. Default 2.
        taps: of the filter, for :func:`imgops.setup_filter`, which normalizes them. Default [1, 3, 3, 1].

    Shapes: x [N, C, H, W] -> [N, C, H // factor, W // factor] in x's dtype, channels-last where x is; f, a buffer.

    Raises:
        TypeError, ValueError: a factor that is no int >= 1, what setup_filter raises; in the forward, what upfirdn2d
            raises.

    >>> FIRDownsample2d()(torch.randn(2, 8, 16, 16)).shape
    torch.Size([2, 8, 8, 8])
    """

    def forward(self, x: Tensor) -> Tensor:
        return downsample2d(x, self.f, self.factor)
