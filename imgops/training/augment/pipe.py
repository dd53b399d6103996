"""Augmentation of what a discriminator sees, so that few pictures train it: the pipe of StyleGAN2-ADA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ...ops._common import accumulation_dtype, check_number, check_operand, without_autocast
from ._checks import check_images
from .color import ColorMap
from .corruption import add_noise, cut_out
from .draws import GATES, SIZES, STEP, Drawer, Draws, uniform_draws
from .filtering import BANDS, BandFilter
from .geometry import MIN_SIDE, Resampler, inverse_maps

_OWNER = "training.AugmentPipe"
#: transforms by stage, in the order in which the stages are applied
STAGES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "blit": ("xflip", "rotate90", "xint"),
    "geom": ("scale", "rotate", "aniso", "xfrac"),
    "color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
})  # fmt: skip
#: transforms by the name of a pipe: a stage, or the first letters of several
PIPES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    **STAGES,
    **{
        letters: tuple(transform for stage in list(STAGES)[: len(letters)] for transform in STAGES[stage])
        for letters in ("bg", "bgc", "bgcf", "bgcfn", "bgcfnc")
    },
})  # fmt: skip


class AugmentPipe(nn.Module):
    """The 18 transforms of adaptive discriminator augmentation, each applied to an image with the probability p.

    Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B. Real and generated
    images alike go through the pipe on their way to the discriminator; below p of about 0.8 what it does does not leak
    into what is generated. :class:`AdaptiveStrength` drives p.

    Pixel blitting and geometric transforms (7; a rotation counts once) are one affine map per image; color transforms
    (5) are another; four frequency bands are amplified, each for itself; noise and a cutout (2) end the pipe. Shapes
    are fixed and nothing waits for the device, so that it runs in ``torch.compile(fullgraph=True)`` and CUDA graphs.
    Differentiable to any order with respect to the images. Draws are from torch's generator on their device.

    Args:
        xflip, rotate90, xint: strengths of pixel blitting: a flip of x, quarter turns, shifts by whole pixels.
        scale, rotate, aniso, xfrac: of geometric transforms: isotropic scale, rotation, stretch, fractional shifts.
        brightness, contrast, lumaflip, hue, saturation: of color transforms.
        imgfilter, noise, cutout: of corruptions. A strength is a factor on p, >= 0; at 0, the default, a transform is
            never applied.
        xint_max: largest shift, as a share of width and height. Default 0.125.
        scale_std: standard deviation of the scale's base-2 logarithm. Default 0.2.
        rotate_max: largest rotation, in half turns. Default 1.
        aniso_std: standard deviation of the base-2 logarithm of the stretch. Default 0.2.
        xfrac_std: standard deviation of shifts, as a share of width and height. Default 0.125.
        brightness_std: standard deviation of what is added. Default 0.2.
        contrast_std: standard deviation of the contrast's base-2 logarithm. Default 0.5.
        hue_max: largest turn of the hue, in half turns. Default 1.
        saturation_std: standard deviation of the saturation's base-2 logarithm. Default 1.
        imgfilter_bands: strengths of the bands up to pi/8, pi/4, pi/2 and pi. Default [1, 1, 1, 1].
        imgfilter_std: standard deviation of the base-2 logarithm of a band's amplification. Default 1.
        noise_std: standard deviation of the noise's own (half-normal) standard deviation. Default 0.1.
        cutout_size: sides of what is cut out, as a share of width and height. Default 0.5.

    ``forward(images, debug_percentile=None, uniforms=None, noise=None)``: images [N, C, H, W] about in [-1, 1] in any
    floating dtype, C of 1, 3 or 4, H and W >= 6 and not necessarily the same -> the same shape and dtype, computed in
    float32 at least. Of RGBA colors leave alpha as it is; all other transforms treat it like the colors. A gray image
    has no hue and saturation. ``uniforms`` [N, ``draws``] in [0, 1) are what is drawn, and ``noise`` [N, C, H, W],
    standard normal, are the pixels of the noise, so that an image can have its own numbers whatever its batch; what is
    not given is from the generator. With ``debug_percentile`` in [0, 1] nothing is random, as recorded cases have it:
    all uniforms are that number, but normal numbers have 1 / sqrt(2) of their deviation, and the second rotation is 0.

    Where the original crops what is beyond one reflection of the image on each side, with a margin that it computes
    from each batch, the reflections here go on without end: results differ only where it finds nothing, and has 0.

    The buffer ``p``, a scalar, is the probability; it starts at 1 and is all of the state.

    Raises:
        TypeError: a strength or factor that is no number; images, uniforms or noise that are no tensor of floating
            dtype.
        ValueError: a strength or factor that is negative or not finite, images, uniforms or noise of other shapes or on
            another device, a percentile beyond [0, 1], a percentile and uniforms or noise, an unknown name of a preset.

    >>> import torch
    >>> pipe = AugmentPipe.preset("bgc")
    >>> pipe.p.fill_(0.2)
    tensor(0.2000)
    >>> pipe(torch.zeros(4, 3, 64, 64)).shape
    torch.Size([4, 3, 64, 64])
    """

    p: Tensor

    def __init__(
        self,
        *,
        xflip: float = 0.0,
        rotate90: float = 0.0,
        xint: float = 0.0,
        scale: float = 0.0,
        rotate: float = 0.0,
        aniso: float = 0.0,
        xfrac: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        lumaflip: float = 0.0,
        hue: float = 0.0,
        saturation: float = 0.0,
        imgfilter: float = 0.0,
        noise: float = 0.0,
        cutout: float = 0.0,
        xint_max: float = 0.125,
        scale_std: float = 0.2,
        rotate_max: float = 1.0,
        aniso_std: float = 0.2,
        xfrac_std: float = 0.125,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1.0,
        saturation_std: float = 1.0,
        imgfilter_bands: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        imgfilter_std: float = 1.0,
        noise_std: float = 0.1,
        cutout_size: float = 0.5,
    ) -> None:
        super().__init__()
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__", "imgfilter_bands")}
        numbers = {name: _finite(name, value) for name, value in given.items()}
        bands = _bands(imgfilter_bands)
        self.strengths = {name: numbers[name] for names in STAGES.values() for name in names}
        strengths = {gate: numbers[gate.split()[0]] for gate in GATES}
        for i, band in enumerate(bands):
            strengths[f"imgfilter {i}"] *= band
        turn = math.pi * numbers["rotate_max"]
        spreads = {
            "xint": numbers["xint_max"],
            "rotate before": turn,
            "rotate after": turn,
            "hue": math.pi * numbers["hue_max"],
            "cutout": numbers["cutout_size"],
            **{f"imgfilter {i}": numbers["imgfilter_std"] for i in range(BANDS)},
        }
        for name in ("scale", "aniso", "xfrac", "brightness", "contrast", "saturation", "noise"):
            spreads[name] = numbers[f"{name}_std"]
        self.register_buffer("p", torch.ones([]))
        self.drawer = Drawer(strengths, spreads)
        self.resampler, self.colors, self.bands = Resampler(), ColorMap(), BandFilter()

    @classmethod
    def preset(cls, name: str, **changes: Any) -> AugmentPipe:
        """The pipe of a name in :data:`PIPES`, all strengths 1; ``changes`` are further arguments.

        Names are "blit", "geom", "color", "filter", "noise", "cutout", and the first letters of several of these from
        "bg" to "bgcfnc". "bgc" is the usual one.
        """
        if name not in PIPES:
            raise ValueError(f"imgops.{_OWNER}: a preset is one of {', '.join(PIPES)}; got {name!r}")
        return cls(**{**dict.fromkeys(PIPES[name], 1.0), **changes})

    @property
    def draws(self) -> int:
        """Uniform numbers that are drawn per image, whatever the transforms."""
        return sum(SIZES)

    @property
    def noisy(self) -> bool:
        """Whether the noise transform is among those of the pipe."""
        return self._has("noise")

    def forward(
        self,
        images: Tensor,
        debug_percentile: float | None = None,
        uniforms: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        check_images(_OWNER, images, self.p.device, MIN_SIDE)
        if noise is not None:
            if debug_percentile is not None:
                raise ValueError(f"imgops.{_OWNER}: takes debug_percentile or noise, not both")
            check_operand(_OWNER, "noise", noise, images, tuple(images.shape))
        # in half precision places would be whole pixels off
        with without_autocast(images):
            x = images.to(accumulation_dtype(images.dtype))
            drawn = uniform_draws(_OWNER, x, self.draws, debug_percentile, uniforms)
            return self._augmented(x, drawn, debug_percentile, noise).to(images.dtype)

    def _augmented(self, x: Tensor, drawn: Tensor, percentile: float | None, noise: Tensor | None) -> Tensor:
        if percentile is None:
            draws = self.drawer(drawn, self.p)
        else:
            # as recorded cases have it
            draws = self.drawer(drawn, self.p, 0.5**0.5)
            draws = draws._replace(rotate=torch.cat([draws.rotate[:, :1], torch.zeros_like(draws.scale)], 1))
        if self._has("blit", "geom"):
            x = self.resampler(x, inverse_maps(draws, *x.shape[2:]))
        if self._has("color"):
            x = self._colored(x, draws)
        if self._has("filter"):
            x = self.bands(x, draws.imgfilter)
        if self.noisy:
            x = add_noise(x, _noise(x, percentile) if noise is None else noise.to(x.dtype), draws.noise)
        if self._has("cutout"):
            x = cut_out(x, draws.center + 0.5, draws.cutout)
        return x

    def _has(self, *stages: str) -> bool:
        """Whether the pipe has a transform of one of the stages."""
        return any(self.strengths[transform] > 0 for stage in stages for transform in STAGES[stage])

    def _colored(self, x: Tensor, draws: Draws) -> Tensor:
        contrast = torch.exp2(draws.contrast)
        luma = contrast * (1 - 2 * draws.lumaflip)
        return self.colors(x, luma, contrast * torch.exp2(draws.saturation), draws.hue, luma * draws.brightness)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={strength:g}" for name, strength in self.strengths.items() if strength > 0)


def _noise(x: Tensor, percentile: float | None) -> Tensor:
    """White noise of the shape of x, or with a percentile what recorded cases would have in its place."""
    if percentile is None:
        return torch.randn_like(x)
    return torch.special.erfinv(torch.full_like(x, 2 * percentile - 1).clamp(STEP - 1, 1 - STEP))


def _finite(name: str, value: Any) -> float:
    """The number; raise unless it is finite and not negative."""
    number = check_number(_OWNER, name, value, 0)
    if math.isinf(number):
        raise ValueError(f"imgops.{_OWNER}: {name} must be finite; got {number}")
    return number


def _bands(value: Any) -> list[float]:
    """The strength of each frequency band."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"imgops.{_OWNER}: imgfilter_bands must be a sequence of numbers; got {value!r}")
    if len(value) != BANDS:
        raise ValueError(f"imgops.{_OWNER}: imgfilter_bands takes {BANDS} numbers; got {value!r}")
    return [_finite("imgfilter_bands", strength) for strength in value]
