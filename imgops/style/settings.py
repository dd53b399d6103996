"""What style transfer by optimisation, and the trainings of feed-forward networks, can be told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from .._settings import SEED, SIDE
from ..models.vgg import DEPTHS, VGG
from ..nn import Features
from ..nn._checks import check_choice, check_size
from .statistics import NORMALIZATIONS, STYLE_LOSSES

OPTIMIZERS = ("adam", "lbfgs")
INITS = ("content", "noise", "style")
#: the fewest pixels of the shorter side that the deepest layers of an encoder make something of
SHORTEST = 32
#: settings that a resumed run may change
_FREE = {"steps", "minutes", "save_every", "workers"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What both trainings have.

    Attributes:
        size: side of the crops in pixels, >= 16. Default 256.
        zoom: crops have sides from 1 / zoom of a picture's shorter side to all of it. Default 2.
        batch: crops a step.
        steps: in all, of a resumed run too.
        minutes: stop by then, saved; None: no limit.
        lr: Adam's rate.
        lr_decay: the rate of step i is divided by 1 + lr_decay * i.
        lr_end: the share of the rate that is left at the last step, reached along half a cosine. Default 1, all of it.
        relative: whether losses are divided by the mean square of what they compare with, so that weights mean the
            same with every encoder.
        content_weight, style_weight, tv_weight: of the losses; the last, of the total variation, is 0 by default.
        seed: of the weights at first and of the crops. Default 0.
        save_every: steps between two saves. Default 500.
        workers: threads that read pictures. Default 2.

    Raises:
        TypeError, ValueError: one that is out of range.
    """

    size: int = 256
    zoom: float = 2.0
    batch: int
    steps: int
    minutes: float | None = None
    lr: float
    lr_decay: float = 0.0
    lr_end: float = 1.0
    relative: bool | None
    content_weight: float | None
    style_weight: float | None
    tv_weight: float = 0.0
    seed: int = 0
    save_every: int = 500
    workers: int = 2

    def __post_init__(self) -> None:
        name = type(self).__name__
        for key, least in (("size", 16), ("batch", 1), ("steps", 1), ("save_every", 1), ("workers", 1)):
            check_size(name, key, getattr(self, key), least)
        SEED.check(f"{name}: seed", check_size(name, "seed", self.seed, 0, None))
        for key, low, high in (
            ("zoom", 1.0, math.inf),
            ("minutes", 0.0, math.inf),
            ("lr", 0.0, math.inf),
            ("lr_decay", 0.0, math.inf),
            ("lr_end", 0.0, 1.0),
            ("content_weight", 0.0, math.inf),
            ("style_weight", 0.0, math.inf),
            ("tv_weight", 0.0, math.inf),
        ):
            value = getattr(self, key)
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                raise ValueError(f"{name}: {key} must be {low:g} to {high:g}; got {value}")
        if self.content_weight == self.style_weight == 0:
            raise ValueError(f"{name}: content_weight and style_weight cannot both be 0")

    def rate(self, step: int) -> float:
        """Adam's rate at a step, from 0."""
        cosine = (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
        return self.lr * (self.lr_end + (1 - self.lr_end) * cosine) / (1 + self.lr_decay * step)

    def fixed(self) -> dict[str, Any]:
        """Those that a resumed run must not change."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in _FREE}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastTraining(Training):
    """Settings of :func:`~imgops.style.training.train_fast`; the defaults are those of Johnson et al. 2016.

    Attributes, besides those of :class:`Training`:
        widths, blocks: of the network, see :class:`~imgops.models.transform_net.TransformNet`.
        style_size: the style picture's longer side in pixels; None leaves it as it is.
        content_layer, style_layers: of the encoder; None takes the last ReLU of each of the first four blocks, and that
            of the second for the content: of VGG-16 relu1_2, relu2_2, relu3_3, relu4_3 and relu2_2.
        relative: None: unless the encoder is VGG-16.
        content_weight, style_weight: None takes 1e5 and 1e10, Johnson's; where losses are relative, 1 and 1.
    """

    widths: tuple[int, int, int] = (32, 64, 128)
    blocks: int = 5
    batch: int = 4
    steps: int = 40000
    lr: float = 1e-3
    style_size: int | None = None
    content_layer: str | None = None
    style_layers: tuple[str, ...] | None = None
    relative: bool | None = None
    content_weight: float | None = None
    style_weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.style_size is not None:
            check_size(type(self).__name__, "style_size", self.style_size, 16)

    def of_encoder(self, encoder: VGG) -> FastTraining:
        """What None stands for with an encoder.

        Raises:
            ValueError: a layer that it lacks.
        """
        last = [f"relu{block}_{count}" for block, count in enumerate(encoder.blocks[:4], 1)]
        layers = tuple(last) if self.style_layers is None else self.style_layers
        content = last[min(1, len(last) - 1)] if self.content_layer is None else self.content_layer
        Features(encoder, [*layers, content])
        vgg16 = encoder.blocks == DEPTHS[16] and encoder.widths == (64, 128, 256, 512, 512)
        relative = not vgg16 if self.relative is None else self.relative
        weights = (1.0, 1.0) if relative else (1e5, 1e10)
        return dataclasses.replace(
            self,
            style_layers=layers,
            content_layer=content,
            relative=relative,
            content_weight=weights[0] if self.content_weight is None else self.content_weight,
            style_weight=weights[1] if self.style_weight is None else self.style_weight,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaINTraining(Training):
    """Settings of :func:`~imgops.style.training.train_adain`; the defaults are those of Huang and Belongie 2017, crops
    of 256 pixels from pictures of 512, but for the losses, which are relative.

    Attributes, besides those of :class:`Training`:
        identity_weight: above 0, a quarter of each batch, one crop at least, is its own style, and this is the weight
            of the mean squared difference of its pixels, from which a short training learns colours soonest.
            Default 0.
        block: of the encoder, 2 to 5, at whose first ReLU the features are normalised. Default 4, for relu4_1. 3 is
            quicker to train and keeps more of the content.
    """

    batch: int = 8
    steps: int = 160000
    lr: float = 1e-4
    lr_decay: float = 5e-5
    relative: bool = True
    content_weight: float = 1.0
    style_weight: float = 10.0
    identity_weight: float = 0.0
    block: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_size("AdaINTraining", "block", self.block, 2) > 5:
            raise ValueError(f"AdaINTraining: block must be 2 to 5; got {self.block}")
        if not 0 <= self.identity_weight < math.inf:
            raise ValueError(f"AdaINTraining: identity_weight must be 0 to inf; got {self.identity_weight}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizeSettings:
    """How a picture is optimised.

    Args:
        size: longer side of the result in pixels. Default 512.
        first_size: longer side that it begins at, growing by sqrt(2). Default 128.
        steps: at the first size. Default 150.
        later_steps: at each larger one. Default 75.
        frame_steps: from a given picture, at the full size alone: of the frames of a video after the first. Default 40.
        optimizer: "adam" or "lbfgs". Default "adam".
        lr: learning rate. Default 0.02 for Adam, 1 for L-BFGS.
        content_weight: of the content loss, the style's being 1. Default 1.
        content_layers, style_layers: {layer: weight}; None takes relu4_2 (relu2_2 where the init is not "content", for
            a deep layer does not lead back to the content), and relu1_1 to relu5_1 with weights 256, 64, 16, 4, 1, of a
            VGG.
        style_loss: "gram", or "wasserstein" for the Wasserstein-2 distance of means and covariances. Default "gram".
        normalization: of the losses. "relative" divides by the target's own size, so that weights mean the same with
            every encoder; "chw", "hw", "none" and "gatys" are those of :class:`~imgops.style.statistics.GramStyle`,
            with the content's mean squared difference as it is. Default "relative".
        tv_weight: of the total variation. Default 5.
        style_scale: size of the styles in sizes of the result. Default 1.
        init: "content", "noise" or "style". Default "content".
        average: decay of the average of iterates that is the result, 0 for the last one. Default 0.98.
        tile: side of the tiles that the gradient is computed in, in pixels; None takes the picture as one. Default
            None.
        seed: of the noise. Default 0.

    Raises:
        TypeError, ValueError: a value out of range, named.
    """

    size: int = 512
    first_size: int = 128
    steps: int = 150
    later_steps: int = 75
    frame_steps: int = 40
    optimizer: str = "adam"
    lr: float | None = None
    content_weight: float = 1.0
    content_layers: Mapping[str, float] | None = None
    style_layers: Mapping[str, float] | None = None
    style_loss: str = "gram"
    normalization: str = "relative"
    tv_weight: float = 5.0
    style_scale: float = 1.0
    init: str = "content"
    average: float = 0.98
    tile: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {
            "size": 16,
            "first_size": 16,
            "steps": 1,
            "later_steps": 0,
            "frame_steps": 1,
        }.items():
            check_size("style", name, getattr(self, name), least)
        SEED.check("style: seed", check_size("style", "seed", self.seed, 0, None))
        for name in ("size", "first_size"):
            SIDE.check(f"style: {name}", getattr(self, name))
        if self.tile is not None:
            check_size("style", "tile", self.tile)
        check_choice("style", "optimizer", self.optimizer, OPTIMIZERS)
        check_choice("style", "style_loss", self.style_loss, STYLE_LOSSES)
        check_choice("style", "normalization", self.normalization, NORMALIZATIONS)
        check_choice("style", "init", self.init, INITS)
        for name in ("content_weight", "tv_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"style: {name} must be >= 0; got {getattr(self, name)}")
        for name in ("lr", "style_scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"style: {name} must be > 0; got {value}")
        if self.size * self.style_scale > SIDE.most:
            most = SIDE.most / self.size
            raise ValueError(
                f"style: style_scale must be at most {most:g} for a size of {self.size}; got {self.style_scale}"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"style: average must be at least 0 and below 1; got {self.average}")

    def scales(self, ratio: float = 1.0) -> list[tuple[int, int]]:
        """(longer side, steps) of each round, from small to large, of a picture whose longer side is ``ratio`` times
        its shorter one: that of a narrow picture begins larger, for it must not be a line."""
        first = max(self.first_size, math.ceil(SHORTEST * ratio))
        if self.size <= first:
            return [(self.size, self.steps)]
        sizes = [first]
        while sizes[-1] * math.sqrt(2) < self.size * 0.99:
            sizes.append(round(first * math.sqrt(2) ** len(sizes)))
        return [(size, self.later_steps if i else self.steps) for i, size in enumerate([*sizes, self.size])]
