"""The prior of a VQ-VAE's codes: a small PixelCNN, which draws them one after another."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import FusedConv2d


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees only what stands before a pixel: above it, and left of it in its row.

    Args:
        center: whether it sees the pixel itself, too.
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, center: bool) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.center = center
        self.register_buffer("mask", torch.empty(kernel_size, kernel_size), persistent=False)
        self._make_mask()

    def _make_mask(self) -> None:
        middle = self.mask.shape[0] // 2
        with torch.no_grad():
            self.mask.zero_()
            self.mask[:middle] = 1
            self.mask[middle, : middle + self.center] = 1

    def reset_parameters(self) -> None:
        """Initialize the weight, and the mask where there is one already."""
        super().reset_parameters()
        if hasattr(self, "mask"):
            self._make_mask()

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


class Block(nn.Module):
    """1 x 1, masked 3 x 3 and 1 x 1 convolution, added to the input (van den Oord et al. 2016, "Pixel recurrent neural
    networks")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(1, channels // 2)
        self.narrow = FusedConv2d(channels, inside, 1, act="swish")
        self.masked = MaskedConv2d(inside, inside, 3, center=True)
        self.wide = FusedConv2d(inside, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.wide(F.silu(self.masked(self.narrow(x))))


class CodePrior(nn.Module):
    """How likely each code is, given those before it, a label, and the codes of a coarser level.

    Args:
        num_codes: K.
        channels: of the layers.
        layers: blocks.
        c_dim: size of a label; 0 takes none.
        coarser: whether there is a coarser level, of half the sides and as many codes.

    ``forward(index, c=None, top=None)``: index [N, h, w], c [N, c_dim], top [N, h / 2, w / 2] -> logits [N, K, h, w].
    """

    def __init__(self, num_codes: int, channels: int, layers: int, c_dim: int = 0, *, coarser: bool = False) -> None:
        super().__init__()
        self.codes = nn.Embedding(num_codes, channels)
        self.first = MaskedConv2d(channels, channels, 7, center=False)
        self.label = nn.Linear(c_dim, channels, bias=False) if c_dim else None
        self.top = nn.Embedding(num_codes, channels) if coarser else None
        self.around = nn.Conv2d(channels, channels, 3, padding=1) if coarser else None
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(layers)))
        self.out = FusedConv2d(channels, num_codes, 1)

    def forward(self, index: Tensor, c: Tensor | None = None, top: Tensor | None = None) -> Tensor:
        return self._logits(index, self._beside(c, top))

    def _beside(self, c: Tensor | None, top: Tensor | None) -> Any:
        """What is known beside the codes before: a picture or vector that is added to the first layer's, or 0."""
        known: Any = 0
        if self.label is not None and c is not None:
            known = known + self.label(c.to(self.label.weight.dtype))[:, :, None, None]
        if self.top is not None and self.around is not None and top is not None:
            picture = self.around(self.top(top).movedim(-1, 1))
            known = known + picture.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return known

    def _logits(self, index: Tensor, known: Any) -> Tensor:
        x = self.first(self.codes(index).movedim(-1, 1))
        if isinstance(known, Tensor):
            # of a part of the rows what is known of these
            x = x + (known[:, :, : x.shape[2]] if known.shape[2] > 1 else known)
        return self.out(self.blocks(x))  # type: ignore[no-any-return]

    @torch.no_grad()
    def draw(self, uniform: Tensor, c: Tensor | None = None, top: Tensor | None = None) -> Tensor:
        """Codes [N, h, w] drawn one after another: each is the one at which the sum of the probabilities of all before
        passes a number of ``uniform`` [N, h, w], in [0, 1)."""
        index = torch.zeros(uniform.shape, dtype=torch.int64, device=uniform.device)
        known = self._beside(c, top)
        for row in range(uniform.shape[1]):
            for column in range(uniform.shape[2]):
                logits = self._logits(index[:, : row + 1], known)[:, :, row, column]
                passed = logits.float().softmax(1).cumsum(1) < uniform[:, row, column, None]
                index[:, row, column] = passed.sum(1).clamp(max=logits.shape[1] - 1)
        return index
