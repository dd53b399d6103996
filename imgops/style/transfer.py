"""The four methods of style transfer behind one call, with their networks loaded once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from .._memory import naming_remedy
from ..data.pictures import resized_shape
from ..data.pictures.formats import picture_suffixes
from ..data.pictures.samples import PREFIX
from ..models.encoders._layers import set_pooling
from ..models.encoders.weights import default_weights, load_encoder
from ..models.style.adain_decoder import AdaINDecoder
from ..models.style.transform_net import TransformNet
from ..models.style.weights import fast_styles, load_adain_decoder, load_transform_net
from .adain import AdaINPass
from .hypercolumns import bytes_to_match
from .neighbor_objective import hypercolumn_layers
from .optimization import Progress, check_size_of, least_size
from .planning import choose_tile
from .prepared import DESCENDING, REMEDIES, PreparedTransfer
from .settings import DEFAULT_SIZE, OptimizeSettings, TransferSettings


class Transfer:
    """A method, ready: its networks are loaded, and pictures go in and out.

    Args:
        settings: which method, and with what.
        networks: of the method "fast" the networks of the styles, each a file or the name of a style whose network
            ships with the package.

    Attributes:
        settings: the same, with the name of the encoder that "default" stands for.

    Raises:
        OSError, ValueError: weights that cannot be read or do not fit.
    """

    def __init__(self, settings: TransferSettings, networks: Sequence[str] = ()) -> None:
        self.settings = settings
        self.encoder: nn.Module | None = None
        self.decoder: AdaINDecoder | None = None
        self.networks: list[TransformNet] = []
        if settings.method == "fast":
            self.networks = [load_style_network(name).to(settings.device) for name in networks]
            return
        descends = settings.method in DESCENDING
        self.settings = settings = _with_encoder(settings)
        self.encoder = load_encoder(
            settings.weights,
            pooling=settings.pooling,
            padding_mode=settings.padding_mode or ("replicate" if descends else None),
            preprocessing=settings.preprocessing,
            frame=False,
        )
        if settings.method == "optimize" and settings.pooling is None:
            # Gatys et al. 2016
            set_pooling(self.encoder, "average")
        self.encoder.to(settings.device)
        if settings.method == "adain":
            self.decoder = load_adain_decoder(settings.decoder).to(settings.device)
            try:
                AdaINPass(self.encoder, self.decoder)
            except ValueError:
                if settings.decoder != "default":
                    raise
                raise ValueError(
                    f"style: weights {settings.weights}: the decoder that ships is of the embedded encoder, and there "
                    f"is none for this one; train one (imgops style train-adain --weights {settings.weights} -o "
                    "NAME.safetensors) and give it as --decoder NAME.safetensors"
                ) from None

    @property
    def kept(self) -> float:
        """Bytes per pixel that the method "nnst" keeps beside what any optimization does; 0 of the others."""
        if self.settings.method != "nnst" or self.encoder is None:
            return 0.0
        return bytes_to_match(self.encoder, hypercolumn_layers(self.encoder, self.settings.nnst))

    def size_of(self, content: Tensor) -> int:
        """The longer side of the result for a content [3, H, W]; one that is too small is enlarged, unless a size is
        set.

        Raises:
            ValueError: the settings' size would make a line of it.
        """
        if self.settings.size is not None:
            return check_size_of(content, self.settings.size)
        return max(min(max(content.shape[1:]), DEFAULT_SIZE), least_size(content))

    def plan(self, content: Tensor, styles: Sequence[Tensor]) -> tuple[OptimizeSettings, float, float]:
        """For the methods "optimize" and "nnst": the settings of the optimization for a content, tiles chosen, and the
        bytes and seconds that it will take, estimated from two small steps.

        Raises:
            ValueError: it does not fit into the memory, that of the settings or that there is; what
                :class:`~imgops.style.objective.Objective` raises.
        """
        if self.settings.method not in DESCENDING:
            raise ValueError("style: there is a plan of the methods optimize and nnst alone")
        return self.prepare(content, styles).plan(content)

    def optimize_settings(self, content: Tensor) -> OptimizeSettings:
        """Those of the method "optimize" for a content [3, H, W]: its size, and tiles where the memory asks for them.
        With the method "nnst" its layers are those of the hypercolumns.

        Raises:
            ValueError: the result does not fit into the memory of the settings.
        """
        settings = dataclasses.replace(self.settings.optimize, size=self.size_of(content))
        if self.settings.method == "nnst" and self.encoder is not None:
            layers = hypercolumn_layers(self.encoder, self.settings.nnst)
            settings = dataclasses.replace(settings, content_layers=layers, style_layers=layers, style_loss="gram")
        if self.settings.memory is None or self.encoder is None:
            return settings
        height, width = resized_shape(content, settings.size)
        tile = choose_tile(self.encoder, settings, height, width, self.settings.memory, self.kept)
        return settings if tile is None else dataclasses.replace(settings, tile=min(tile, settings.tile or tile))

    def __call__(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        *,
        masks: Sequence[Tensor] | None = None,
        style_masks: Sequence[Tensor | None] | None = None,
        alpha: Tensor | None = None,
        init: Tensor | None = None,
        on_step: Callable[[Progress], object] | None = None,
    ) -> Tensor:
        """The content in the styles.

        Args:
            content: [3, H, W], RGB in [0, 1].
            styles: pictures like it, of any size; of the method "fast" none: its networks are the styles.
            masks: for each style where it goes, [1, H', W'] in [0, 1]; what they leave stays as it is.
            style_masks: for each style how much its pixels count, [1, H', W'] in [0, 1], or None for all; such as its
                alpha, whose hidden pixels :func:`~imgops.data.fill_hidden` has filled. Not of the method "fast".
            alpha: [1, H, W] in [0, 1], how much each pixel of the content counts for the colors that are kept; None,
                all the same.
            init, on_step: of the methods "optimize" and "nnst", see :func:`~imgops.style.optimization.optimize`.

        Returns:
            [3, H'', W''] in [0, 1] on the CPU.

        Raises:
            OutOfMemory: memory ran out; its ``picture`` is what was finished until then.
            TypeError, ValueError: pictures, masks or weights that do not fit.
        """
        return self.prepare(content, styles, masks, style_masks)(content, alpha=alpha, init=init, on_step=on_step)

    def prepare(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        masks: Sequence[Tensor] | None = None,
        style_masks: Sequence[Tensor | None] | None = None,
    ) -> PreparedTransfer:
        """The styles ready for this content and others of its shape, such as the frames of a video.

        Args:
            content, styles, masks, style_masks: as a call takes them.

        Raises:
            TypeError, ValueError: pictures, masks or weights that do not fit.
        """
        with naming_remedy(REMEDIES[self.settings.method]):
            return PreparedTransfer(self, content, styles, masks, style_masks)


def _with_encoder(settings: TransferSettings) -> TransferSettings:
    """The settings with the encoder that "default" stands for."""
    if settings.weights != "default":
        return settings
    if settings.method == "nnst":
        layers = [*(settings.nnst.hypercolumn_layers or ())]
    else:
        layers = [*(settings.optimize.content_layers or ()), *(settings.optimize.style_layers or ())]
    weights = "embedded" if settings.method == "adain" else default_weights(layers, settings.pooling)
    return dataclasses.replace(settings, weights=weights)


def load_style_network(name: str) -> TransformNet:
    """The network of a style for the method "fast": a file, or a style whose network ships with the package, with or
    without ``samples:`` before its name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such network, or a picture, whose network must be trained first.
    """
    plain = name.removeprefix(PREFIX)
    if plain in fast_styles():
        return load_transform_net(plain)
    if names_picture(name):
        raise ValueError(
            f"{name}: the method fast takes the network of a style; make it: imgops style train-fast {name} "
            f"--data FOLDER --out {Path(plain).stem}.safetensors (there are: {', '.join(fast_styles()) or 'none'})"
        )
    return load_transform_net(name)


def names_picture(name: str) -> bool:
    """Whether a style's name is a picture's, and none of a network that ships with the package."""
    if name.removeprefix(PREFIX) in fast_styles():
        return False
    return name.startswith(PREFIX) or Path(name).suffix.lower() in picture_suffixes()
