"""How well what a StyleGAN3 draws moves and turns with its surface: EQ-T and EQ-R (Karras et al. 2021, appendix E)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.stylegan3 import lowpass_filter
from ..nn._checks import check_size
from ..ops.upfirdn2d import upfirdn2d

KINDS = ("eqt_int", "eqt_frac", "eqr")
#: how far pictures move at most, by their side
FARTHEST = 0.125
#: the lobes of the Lanczos window by which pictures move a fraction of a pixel
LOBES = 3
#: a picture is turned on pixels so many times as fine; how many pixels its filters read on each side
FINER, REACH = 8, 8
#: the width of the band in which these filters fall, by the sampling rate
FALL = 0.25


class Compared(NamedTuple):
    """Two pictures [C, H, W] that should be the same, and where [H, W] both are known."""

    one: Tensor
    other: Tensor
    known: Tensor


def equivariance(
    generator: nn.Module, kind: str = "eqt_frac", *, samples: int = 1000, seed: int = 0, batch: int = 8
) -> float:
    """The peak signal-to-noise ratio, in dB, of pictures whose latent was moved or turned against moved or turned ones.

    ``10 log10(4 / mean square of the difference)``, for values in [-1, 1], over the pixels that both pictures know and
    over random moves: "eqt_int" by whole pixels, up to an eighth of the picture; "eqt_frac" by fractions of pixels,
    where the picture is moved by a Lanczos filter of three lobes; "eqr" by any angle, on eight times finer pixels,
    and for the frequencies alone that pixels show in all directions, within a disk. Published networks reach 60 dB and
    more for "eqt_int".

    Args:
        generator: with a ``mapping`` and a ``synthesis`` whose ``input`` has the buffer ``transform`` [3, 3], as
            :class:`imgops.models.stylegan3.Generator`; square. In eval mode it has the same result each time.
        kind: "eqt_int", "eqt_frac" (default) or "eqr".
        samples: latents, >= 1. Default 1000; published figures are of 50,000.
        seed: of latents, classes and moves. Default 0.
        batch: samples at once, which share a random move. Default 8.

    Raises:
        TypeError: the generator has no such transform.
        ValueError: an unknown kind, samples or batch below 1, pictures that are not square, or for "eqr" of at
            most 32 pixels, of which the filters leave nothing.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    samples, batch = check_size("equivariance", "samples", samples), check_size("equivariance", "batch", batch)
    network: Any = generator
    transform = getattr(getattr(getattr(network, "synthesis", None), "input", None), "transform", None)
    if not isinstance(transform, Tensor):
        raise TypeError(f"generator must have synthesis.input.transform, as StyleGAN3's; got {type(network).__name__}")
    if network.img_height != network.img_width:
        raise ValueError(f"generator must make square pictures; got {network.img_width} x {network.img_height}")
    random = np.random.default_rng(seed)
    squares = count = 0.0
    if kind == "eqr" and network.img_width <= 4 * REACH:
        raise ValueError(
            f"generator must make pictures of more than {4 * REACH} pixels for eqr; got {network.img_width}"
        )
    usual = transform.clone()
    # as published: what is rounded to half precision moves otherwise
    halves = {layer: layer.half_dtype for layer in network.modules() if hasattr(layer, "half_dtype")}
    try:
        for layer in halves:
            layer.half_dtype = None
        for start in range(0, samples, batch):
            for pair in _pairs(network, kind, min(batch, samples - start), random, usual):
                difference = (pair.one - pair.other).double() * pair.known
                squares += float(difference.square().sum())
                count += float(pair.known.sum()) * len(difference)
    finally:
        transform.copy_(usual)
        for layer, dtype in halves.items():
            layer.half_dtype = dtype
    return 10 * math.log10(4 * count / squares) if squares > 0 else math.inf


@torch.no_grad()
def _pairs(network: Any, kind: str, count: int, random: np.random.Generator, usual: Tensor) -> Iterator[Compared]:
    """Pictures of some latents whose transform a random move changed, and the pictures moved after."""
    like = usual
    z = torch.from_numpy(random.standard_normal((count, network.z_dim), dtype=np.float32)).to(like)
    c = torch.zeros(count, network.c_dim).to(like)
    if network.c_dim:
        c[torch.arange(count), torch.from_numpy(random.integers(network.c_dim, size=count))] = 1
    w = network.mapping(z, c)
    side = network.img_width
    transform = network.synthesis.input.transform
    transform.copy_(usual)
    still = network.synthesis(w)
    if kind == "eqr":
        angle = random.uniform(0, 2 * math.pi)
        move, known = _turning(angle, still)
        matrix = _rotation(angle)
    else:
        shift = random.uniform(-FARTHEST, FARTHEST, 2) * side
        shift = np.round(shift) if kind == "eqt_int" else shift
        move, known = _shifting(shift, still)
        matrix = np.eye(3)
        # each place is looked up where it was before
        matrix[:2, 2] = -shift / side
    transform.copy_(usual @ torch.from_numpy(matrix).to(like))
    moved = network.synthesis(w)
    if kind == "eqr":
        moved = _all_directions(moved)
    for one, other in zip(moved, move(still), strict=True):
        yield Compared(one, other, known)


def _rotation(angle: float) -> np.ndarray[Any, Any]:
    matrix = np.eye(3)
    matrix[:2, :2] = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    return matrix


def _shifting(shift: Sequence[float], like: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """What moves pictures right and down by so many pixels, and where the result is known."""
    side = like.shape[3]
    at, inside = torch.arange(side), []
    for way in shift:
        reach = 0 if way == math.floor(way) else LOBES
        inside.append((at >= way + reach) & (at < side + way - reach))

    def move(x: Tensor) -> Tensor:
        for dim, way in zip((3, 2), shift, strict=True):
            sources = torch.arange(math.floor(way) - LOBES + 1, math.floor(way) + LOBES + 1)
            places = sources.double() - way
            taps = torch.sinc(places) * torch.sinc(places / LOBES) * (places.abs() < LOBES)
            rolled = torch.stack([x.roll(int(source), dim) for source in sources])
            x = torch.tensordot((taps / taps.sum()).to(x), rolled, 1)
        return x

    return move, (inside[1][:, None] & inside[0]).to(like)


def _turning(angle: float, like: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """What turns pictures about their middle, and where the result is known."""
    side = like.shape[3]
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5
    # one filter after the other reads beyond the disk
    known = (torch.hypot(at[:, None], at) < 0.5 - 2 * REACH / side).to(like)

    def move(x: Tensor) -> Tensor:
        reach = REACH * FINER
        f = lowpass_filter(2 * reach + 1, 0.5, FALL, FINER)
        assert f is not None
        x = upfirdn2d(_all_directions(x), f.to(x), up=FINER, padding=reach, gain=float(FINER**2))
        theta = torch.from_numpy(_rotation(angle)[:2]).to(x)[None].expand(len(x), -1, -1)
        grid = F.affine_grid(theta, [len(x), 1, side, side], align_corners=False)
        # of the fine pixels of a pixel the first lies at its middle
        middle = (FINER - 1) / (FINER * side)
        return F.grid_sample(x, grid - middle, mode="bicubic", align_corners=False)

    return move, known


def _all_directions(x: Tensor) -> Tensor:
    """The frequencies of a picture that its pixels show in all directions."""
    # nothing is left of what the filter of the finer pixels would weaken
    f = lowpass_filter(2 * REACH + 1, 0.5 - FALL, FALL, 1, radial=True)
    assert f is not None
    return upfirdn2d(x, f.to(x), padding=REACH)
