"""Color transforms, which all compose to one affine map of the channels per image, applied in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ColorMap(nn.Module):
    """``y = M x + t`` per pixel, with M and t per image from what happens to luma and to chroma.

    Luma is the part of a color along (1, 1, 1), chroma the rest: M = luma * P + chroma * (cos(hue) * (I - P) +
    sin(hue) * K), P the projection to the axis of luma and K the quarter turn around it. Gray images have luma alone.

    ``forward(images, luma, chroma, hue, offset)``: images [N, C, H, W] with 1, 3 or 4 channels, the fourth of which is
    left alone; factors of luma and chroma, the turn of hue in radians, and what is added to every color: [N, 1] each.
    """

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        projection = torch.full((3, 3), 1 / 3)
        turn = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) * 3**-0.5
        basis = torch.zeros(4, 4, 4)
        basis[:3, :3, :3] = torch.stack([projection, torch.eye(3) - projection, turn])
        basis[3, 3, 3] = 1
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, images: Tensor, luma: Tensor, chroma: Tensor, hue: Tensor, offset: Tensor) -> Tensor:
        channels = images.shape[1]
        if channels == 1:
            return torch.addcmul(offset[:, :, None, None], images, luma[:, :, None, None])
        parts = torch.cat([luma, chroma * hue.cos(), chroma * hue.sin(), torch.ones_like(luma)], 1)
        basis = self.basis[:, :channels, :channels].to(images.dtype)
        matrices = (parts @ basis.flatten(1)).unflatten(1, (channels, channels))
        # nothing is added to alpha
        offsets = offset.expand(-1, 3) if channels == 3 else torch.cat([offset.expand(-1, 3), 0 * offset], 1)
        return torch.baddbmm(offsets[:, :, None], matrices, images.flatten(2)).view_as(images)
