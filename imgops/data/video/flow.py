"""Optical flow between frames of a video, and pictures that are moved along it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.displace import displace
from ..pictures.colors import LUMA
from ..pictures.resizing import resize_picture

#: how strongly the flow follows the pictures rather than smoothness: twice scikit-image's default, which loses objects
#: that move fast before a still background
_ATTACHMENT = 30


def optical_flow(previous: Tensor, current: Tensor, *, size: int | None = 512) -> Tensor:
    """Where each pixel of a frame was in the frame before: TV-L1 (Zach et al. 2007, by scikit-image) on their luma.

    ``current(p) = previous(p + flow(p))``, so ``warp(previous, flow)`` is the previous frame, moved to match the
    current one. ``optical_flow(current, previous)`` is the flow in the other direction, on the pixels of ``previous``.

    Args:
        previous, current: [3, H, W], RGB in [0, 1], of one size.
        size: larger frames are reduced to a longer side of this many pixels, and the flow is enlarged; the time grows
            with the pixels, to some 3 s at 512 and 16 s at 1024. Default 512; None: frames are not reduced.

    Returns:
        float32 [2, H, W] in pixels, along x (to the right) and along y (down), on the device of ``current``.

    Raises:
        ValueError: previous or current is no picture, their sizes differ, or size is below 16.

    >>> frame = torch.rand(3, 32, 48)
    >>> optical_flow(frame, frame).abs().max().item()
    0.0
    """
    for name, picture in (("previous", previous), ("current", current)):
        if picture.ndim != 3 or picture.shape[0] != 3 or min(picture.shape) < 2:
            raise ValueError(
                f"optical_flow: {name} must be [3, H, W] of at least 2 x 2 pixels; got {tuple(picture.shape)}"
            )
    if previous.shape != current.shape:
        raise ValueError(f"optical_flow: previous is {tuple(previous.shape)}, current {tuple(current.shape)}")
    if size is not None and size < 16:
        raise ValueError(f"optical_flow: size must be >= 16; got {size}")
    # imported here because it is slow to import
    from skimage.registration import optical_flow_tvl1

    height, width = current.shape[1:]
    longer, shorter = max(height, width), min(height, width)
    # do not shrink a strip so far that it becomes a line
    if size is None or size >= longer or size * shorter < 2 * longer:
        size = longer
    old, new = (_luma(resize_picture(x, size)) for x in (previous, current))
    along_y, along_x = optical_flow_tvl1(new, old, attachment=_ATTACHMENT)
    flow = torch.from_numpy(np.stack([along_x, along_y])).float()
    if size < longer:
        ratios = torch.tensor([width / flow.shape[2], height / flow.shape[1]])
        flow = F.interpolate(flow[None], (height, width), mode="bilinear", align_corners=False)[0]
        flow = flow * ratios[:, None, None]
    return flow.to(current.device)


def _luma(picture: Tensor) -> np.ndarray:
    return torch.einsum("c,chw->hw", torch.tensor(LUMA), picture.detach().float().cpu()).numpy()


def warp(picture: Tensor, flow: Tensor, *, padding_mode: str = "reflection") -> Tensor:
    """Move a picture of the previous frame to match the current one: ``out(p) = picture(p + flow(p))``, bilinear.

    Args:
        picture: [C, H, W], floating-point: the previous frame, or a picture that was made from it.
        flow: [2, H, W] in pixels, of :func:`optical_flow`.
        padding_mode: how pixels beyond the picture are read, as in :func:`imgops.displace`: "reflection", "border" or
            "zeros". Default "reflection".

    Returns:
        [C, H, W] in the picture's dtype.

    Raises:
        TypeError, ValueError: the shape, dtype or device does not fit, or padding_mode is unknown.

    >>> flow = torch.tensor([1.0, 0.0])[:, None, None].expand(2, 1, 4)
    >>> warp(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), flow, padding_mode="zeros")
    tensor([[[2., 3., 4., 0.]]])
    """
    if picture.ndim != 3 or flow.shape != (2, *picture.shape[1:]):
        raise ValueError(
            f"warp: picture must be [C, H, W] and flow [2, H, W]; got {tuple(picture.shape)} and {tuple(flow.shape)}"
        )
    return displace(picture[None], flow[None], padding_mode=padding_mode)[0]


def occlusion(forward: Tensor, backward: Tensor) -> Tensor:
    """Which pixels of the current frame were hidden in the previous one: those where the two flows disagree.

    A pixel that is moved back and forth again should return to its place. With w the forward flow at the place to which
    the backward flow b leads, a pixel is occluded where ``|w + b|^2 > 0.01 (|w|^2 + |b|^2) + 0.5``, and where that
    place is outside the frame. Ruder et al. 2016, equation 4, after Sundaram et al. 2010.

    Args:
        forward: [2, H, W] in pixels on the previous frame, ``optical_flow(current, previous)``.
        backward: [2, H, W] in pixels on the current frame, ``optical_flow(previous, current)``.

    Returns:
        bool [1, H, W]: True where a picture that is warped by ``backward`` is wrong.

    Raises:
        ValueError: forward and backward are no flows of one size.

    >>> still = torch.zeros(2, 2, 3)
    >>> occlusion(still, still)
    tensor([[[False, False, False],
             [False, False, False]]])
    """
    if backward.ndim != 3 or backward.shape[0] != 2 or forward.shape != backward.shape:
        raise ValueError(
            f"occlusion: forward and backward must be [2, H, W]; got {tuple(forward.shape)}, {tuple(backward.shape)}"
        )
    forth = warp(forward, backward, padding_mode="border")
    amount = (forth**2).sum(0) + (backward**2).sum(0)
    outside = warp(torch.ones_like(backward[:1]), backward, padding_mode="zeros")[0] < 0.5
    return (((forth + backward) ** 2).sum(0) > 0.01 * amount + 0.5)[None] | outside[None]
