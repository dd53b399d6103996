"""What the trainings of feed-forward networks can be told. Loads no torch, as settings.py."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from .._settings import COUNT, SEED, Bounds, Choice, check, setting

if TYPE_CHECKING:
    from torch import nn

Fast = TypeVar("Fast", bound="FastLearning")
#: the group of its options on the help page
TRAINING = "Training"
#: what convolutions are computed in
PRECISIONS = ("float32", "bfloat16")
#: sides of crops in pixels
CROP = COUNT._replace(low=16)
#: channels of the network's three sizes and residual blocks of Johnson et al. 2016
WIDTHS, BLOCKS = (32, 64, 128), 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning:
    """What both networks learn by, however long.

    Attributes:
        zoom: crops have sides from 1 / zoom of a picture's shorter side to all of it. Default 2.
        lr: Adam's rate.
        lr_decay: the rate of step i is divided by 1 + lr_decay * i.
        lr_end: the share of the rate that is left at the last step, reached along half a cosine. Default 1, all of it.
        relative: whether losses are divided by the mean square of what they compare with, so that weights mean the
            same with every encoder.
        content_weight, style_weight, tv_weight: of the losses; the last, of the total variation, is 0 by default.
        precision: "bfloat16" computes convolutions in it, weights, statistics and losses staying in float32, which is
            quicker where the processor or GPU multiplies in it. Default "float32".
    """

    zoom: float = setting(2.0, allowed=Bounds(1))
    lr: float = setting(dataclasses.MISSING, TRAINING, "Learning rate.", allowed=Bounds(0))
    lr_decay: float = setting(0.0, allowed=Bounds(0))
    lr_end: float = setting(1.0, TRAINING, "Share of the learning rate that is left at the end.", allowed=Bounds(0, 1))
    relative: bool | None
    content_weight: float | None = setting(dataclasses.MISSING, allowed=Bounds(0))
    style_weight: float | None = setting(dataclasses.MISSING, allowed=Bounds(0))
    tv_weight: float = setting(0.0, TRAINING, "Weight of smoothness (total variation).", allowed=Bounds(0))
    precision: str = setting(
        "float32",
        TRAINING,
        "What convolutions compute in: float32 or bfloat16, quicker on most new processors.",
        allowed=Choice(PRECISIONS),
    )

    def rate_of(self, step: int, steps: int) -> float:
        """Adam's rate at a step, from 0, of so many."""
        cosine = (1 + math.cos(math.pi * min(step / steps, 1))) / 2
        return self.lr * (self.lr_end + (1 - self.lr_end) * cosine) / (1 + self.lr_decay * step)

    def check_weights(self, owner: str = "") -> None:
        """Raise ValueError where nothing is left to learn from; ``owner`` begins the message."""
        if self.content_weight == self.style_weight == 0:
            raise ValueError(f"{owner}content_weight and style_weight cannot both be 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Learning):
    """What both trainings have besides: how long, how often, on what.

    Attributes:
        size: side of the crops in pixels, >= 16. Default 256.
        batch: crops per step.
        steps: in all, of a resumed run too.
        minutes: stop by then, saved; None: no limit.
        seed: of the weights at first and of the crops. Default 0.
        save_every: steps between two saves. Default 500.
        workers: threads that read pictures. Default 2.

    Raises:
        TypeError, ValueError: one that is out of range.
    """

    size: int = setting(256, TRAINING, "Side of the crops in pixels.", allowed=CROP)
    batch: int = setting(dataclasses.MISSING, TRAINING, "Crops per step.", allowed=COUNT)
    steps: int = setting(
        dataclasses.MISSING, TRAINING, "Steps in all, those before a --resume among them.", allowed=COUNT
    )
    minutes: float | None = setting(
        None, TRAINING, "Minutes after which it stops and saves.", allowed=Bounds(0, above=True)
    )
    seed: int = setting(0, TRAINING, "Seed of weights and crops.", allowed=SEED)
    save_every: int = setting(500, TRAINING, "Steps between two saves.", allowed=COUNT)
    workers: int = setting(2, allowed=COUNT)

    def __post_init__(self) -> None:
        name = type(self).__name__
        check(self, f"{name}: ")
        self.check_weights(f"{name}: ")

    def rate(self, step: int) -> float:
        """Adam's rate at a step, from 0."""
        return self.rate_of(step, self.steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastLearning(Learning):
    """What a network of one style learns by; the defaults are those of Johnson et al. 2016.

    Attributes, besides those of :class:`Learning`:
        style_size: the style picture's longer side in pixels; None leaves it as it is.
        content_layer, style_layers: of the encoder, the latter names or {name: weight}; None takes, of a VGG, the last
            ReLU of each of the first four blocks, and that of the second for the content: of VGG-16 relu1_2, relu2_2,
            relu3_3, relu4_3 and relu2_2; of others those that :func:`~imgops.style.optimize` takes where it begins with
            noise.
        relative: None: unless the encoder is VGG-16.
        content_weight, style_weight: None takes 1e5 and 1e10, Johnson's; where losses are relative, 1 and 1.
    """

    lr: float = 1e-3
    style_size: int | None = setting(None, TRAINING, "Longer side that the style is seen at.", allowed=CROP)
    content_layer: str | None = None
    style_layers: tuple[str, ...] | Mapping[str, float] | None = None
    relative: bool | None = None
    content_weight: float | None = setting(
        None, TRAINING, "Weight of the content loss.", "1; 1e5 with VGG-16", allowed=Bounds(0)
    )
    style_weight: float | None = setting(
        None, TRAINING, "Weight of the style loss.", "1; 1e10 with VGG-16", allowed=Bounds(0)
    )

    def of_encoder(self: Fast, encoder: nn.Module) -> Fast:
        """What None stands for with an encoder.

        Raises:
            ValueError: a layer that it lacks, or none given for a network that has no default ones.
        """
        # here, so that the command line can list its options without loading torch
        from ..models.encoders.vgg import DEPTHS, VGG
        from ..nn import Features
        from .objective import default_layers

        vgg16 = False
        layers, content = self.style_layers, self.content_layer
        if isinstance(encoder, VGG):
            last = [f"relu{block}_{count}" for block, count in enumerate(encoder.blocks[:4], 1)]
            layers, content = layers or tuple(last), content or last[min(1, len(last) - 1)]
            vgg16 = encoder.blocks == DEPTHS[16] and encoder.widths == (64, 128, 256, 512, 512)
        elif (usual := default_layers(encoder)) is not None:
            layers, content = layers or usual.style, content or next(iter(usual.content_to_find))
        if layers is None or content is None:
            raise ValueError(
                f"{type(self).__name__}: content_layer and style_layers must be given with this encoder, whose layers "
                f"cannot be told; got {type(encoder).__name__}"
            )
        Features(encoder, [*layers, content])
        relative = not vgg16 if self.relative is None else self.relative
        usual_weights = (1.0, 1.0) if relative else (1e5, 1e10)
        return dataclasses.replace(
            self,
            style_layers=layers,
            content_layer=content,
            relative=relative,
            content_weight=usual_weights[0] if self.content_weight is None else self.content_weight,
            style_weight=usual_weights[1] if self.style_weight is None else self.style_weight,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastTraining(FastLearning, Training):
    """Settings of :func:`~imgops.style.training.train_fast`; the defaults are those of Johnson et al. 2016.

    Attributes, besides those of :class:`Training` and :class:`FastLearning`:
        widths, blocks: of the network, see :class:`~imgops.models.style.TransformNet`.
    """

    batch: int = 4
    steps: int = 40000
    widths: tuple[int, int, int] = setting(WIDTHS, TRAINING, "Channels of the network's three sizes.")
    blocks: int = setting(BLOCKS, TRAINING, "Residual blocks of the network.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaINLearning(Learning):
    """What a decoder for any style learns by; the defaults are those of Huang and Belongie 2017, but for the losses,
    which are relative.

    Attributes, besides those of :class:`Learning`:
        identity_weight: above 0, a quarter of each batch, one crop at least, is its own style, and this is the weight
            of the mean squared difference of its pixels, from which a short training learns colors soonest.
            Default 0.
        block: of a VGG, 2 to 5, at whose first ReLU the features are normalized. Default 4, for relu4_1. 3 is quicker
            to train and keeps more of the content. Of another encoder the last layer of the same stride, 8 for 4.
    """

    lr: float = 1e-4
    lr_decay: float = setting(5e-5, TRAINING, "The rate of step i is divided by 1 + this * i.", allowed=Bounds(0))
    relative: bool = True
    content_weight: float = setting(1.0, TRAINING, "Weight of the content loss.", allowed=Bounds(0))
    style_weight: float = setting(10.0, TRAINING, "Weight of the style loss.", allowed=Bounds(0))
    identity_weight: float = setting(
        0.0, TRAINING, "Weight of the difference of pixels where a crop is its own style.", allowed=Bounds(0)
    )
    block: int = setting(
        4,
        TRAINING,
        "Block of the encoder whose features are normalized: 4 for relu4_1; 3 keeps more of the content.",
        allowed=Bounds(2, 5),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaINTraining(AdaINLearning, Training):
    """Settings of :func:`~imgops.style.training.train_adain`; the defaults are those of Huang and Belongie 2017, crops
    of 256 pixels from pictures of 512, but for the losses, which are relative.

    Attributes: those of :class:`Training` and :class:`AdaINLearning`.
    """

    batch: int = 8
    steps: int = 160000
