"""Leaky ReLU between an up-sampling and a down-sampling filter: D(clamp(gain * lrelu(U(x + b))))."""

from __future__ import annotations

from torch import Tensor

from .._epilogue import Epilogue
from .bias_act import bias_act
from .upfirdn2d import upfirdn2d


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    *,
    gain: float,
    slope: float,
    clamp: float,
    flip_filter: bool,
) -> Tensor:
    """x [N, C, H, W], b [C], filters as :func:`upfirdn2d` takes them -> [N, C, H', W']; ``clamp`` < 0 means none.

    ``padding`` is (x0, x1, y0, y1) on the up-sampled image.
    """
    z = bias_act(x, Epilogue(b))
    # one pixel becomes up * up, of which all but one are zeros; the gain keeps the mean
    z = upfirdn2d(z, fu, (up, up), (1, 1), padding, flip_filter, float(up**2))
    a = bias_act(z, Epilogue(act="lrelu", alpha=slope, gain=gain, clamp=clamp))
    return upfirdn2d(a, fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, 1.0)
