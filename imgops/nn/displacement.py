"""Displacement of a generator's features by fields that build up from level to level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops._common import accumulation_dtype, check_tensor, known, untraced
from ..ops.displace import displace
from ..ops.modulated_conv2d import modulated_conv2d
from ..reference.grid_sample import PADDING_MODES
from ._checks import check_choice, check_size
from .linear import EqualizedLinear


class DisplacementState(NamedTuple):
    """What one level of :class:`ModulatedDisplacement` passes to the next: two fields [N, 2, H, W], in its pixels."""

    displacement: Tensor
    momentum: Tensor


class ModulatedDisplacement(nn.Module):
    """Modulated spatial displacement: one level of a field that moves the features of a generator.

    Level j moves its features by the previous level's displacement plus that level's momentum. It then adds to the
    momentum what a modulated convolution predicts from the moved features and the style vector::

        d_j = d_{j-1} + M_{j-1},   M_j = M_{j-1} + dM_j

    What a level predicts therefore takes effect from the next level on. Fields are resized bilinearly to a level's
    resolution and multiplied by the ratio of the resolutions, as they are in pixels. The convolution starts at zero, so
    that untrained layers leave the features as they are. Its weight is scaled at run time (equalized learning rate,
    Karras et al. 2018, section 4.1). It is not demodulated, as its magnitude is that of the displacement.

    Args:
        in_channels, w_dim: sizes, >= 1.
        kernel_size: odd. Default 3.
        padding_mode: what features are read beyond the image, as in :func:`imgops.displace`. Default "border".

    ``forward(x, w, state=None)`` -> (moved x, state for the next level); None is the first level, at rest.

    Shapes: x [N, in_channels, H, W], w [N, w_dim] -> [N, in_channels, H, W] in x's dtype, channels-last where x is; the
    fields of the state [N, 2, H, W] in float32 (float64 where x is), those of the state given of any size;
    weight [2, in_channels, kernel_size, kernel_size], bias [2], float32 when built.

    Raises:
        TypeError, ValueError: a size that is no int >= 1, an even kernel size; in the forward, a state whose fields
            are not [N, 2, ...], and what displace and modulated_conv2d raise.

    Example, two levels of a generator:

        >>> import torch
        >>> from imgops.nn import ModulatedDisplacement
        >>> coarse, fine = ModulatedDisplacement(64, 16), ModulatedDisplacement(32, 16)
        >>> w = torch.randn(4, 16)
        >>> x, state = coarse(torch.randn(4, 64, 8, 8), w)
        >>> y, state = fine(torch.randn(4, 32, 16, 16), w, state)
        >>> y.shape, state.displacement.shape
        (torch.Size([4, 32, 16, 16]), torch.Size([4, 2, 16, 16]))
    """

    def __init__(self, in_channels: int, w_dim: int, *, kernel_size: int = 3, padding_mode: str = "border") -> None:
        super().__init__()
        owner = type(self).__name__
        self.in_channels = check_size(owner, "in_channels", in_channels)
        self.kernel_size = check_size(owner, "kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"{owner}: kernel_size must be odd; got {kernel_size}")
        self.padding_mode = check_choice(owner, "padding_mode", padding_mode, PADDING_MODES)
        self.weight_gain = (self.in_channels * self.kernel_size**2) ** -0.5
        # a bias of 1: styles start around the identity
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.empty(2, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weight and bias, which are 0 at first, for a layer that was made on the meta device."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, w: Tensor, state: DisplacementState | None = None) -> tuple[Tensor, DisplacementState]:
        acc_dtype = accumulation_dtype(x.dtype)
        if state is None:
            displacement = momentum = x.new_zeros([x.shape[0], 2, *x.shape[2:]], dtype=acc_dtype)
        else:
            if not isinstance(state, DisplacementState):
                raise TypeError(
                    f"{type(self).__name__}: state must be a DisplacementState or None; got {type(state).__name__}"
                )
            displacement, momentum = (self._carried(field, name, x) for name, field in state._asdict().items())
            displacement = displacement + momentum
            x = displace(x, displacement, padding_mode=self.padding_mode)
        # nothing normalizes the convolution, so the gain of the equalized learning rate is applied to the styles
        styles = self.affine(w) * self.weight_gain
        change = modulated_conv2d(
            x, self.weight, styles, bias=self.bias, padding=self.kernel_size // 2, demodulate=False
        )
        return x, DisplacementState(displacement, momentum + change.to(acc_dtype))

    def _carried(self, field: Tensor, name: str, x: Tensor) -> Tensor:
        """A field of the previous level, resized to the resolution of x and in its pixels."""
        check_tensor(type(self).__name__, name, field, 4)
        if field.shape[:2] != (x.shape[0], 2):
            raise ValueError(
                f"{type(self).__name__}: {name} must have shape [{x.shape[0]}, 2, H, W]; got {list(field.shape)}"
            )
        field = field.to(accumulation_dtype(x.dtype))
        size = tuple(x.shape[2:])
        if _same(field.shape[2:], size):
            return field
        along_x, along_y = F.interpolate(field, size=size, mode="bilinear", align_corners=False).unbind(1)
        return torch.stack([along_x * size[1] / field.shape[3], along_y * size[0] / field.shape[2]], 1)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, kernel_size={self.kernel_size}, padding_mode={self.padding_mode!r}"


@untraced
def _same(size: Sequence[int], other: Sequence[int]) -> bool:
    return all(known(a == b) for a, b in zip(size, other, strict=True))
