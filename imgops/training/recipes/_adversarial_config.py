"""The settings of recipes that train two networks against one another, whatever the networks are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from ..._settings import Bounds, Choice, OrWord, setting, shape_of
from ..config import AUTO, BY_PRESET, DECAY, INTERVAL, KIMG, POSITIVE, SHARE, SIZE, WEIGHT, GeneratorConfig

if TYPE_CHECKING:
    from ._augmentation import Choices

#: groups of options
AUGMENTATION = "Augmentation"
#: the names of pipes, as :data:`imgops.training.augment.PIPES` has them, known without torch
PIPES = ("blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc")
#: what DiffAugment may do, as :class:`imgops.training.DiffAugment` takes it
POLICIES = ("color", "translation", "cutout")
#: the losses whose logits have a free offset, so that their signs say nothing of how well the discriminator does
OFFSET = ("wgan-gp", "relativistic")
#: the losses, of which those in LAZY are published with a penalty that need not run in every step
LOSSES = ("nonsaturating", "minimax", "hinge", "wgan-gp", "lsgan", "relativistic")
LAZY = ("nonsaturating", "minimax", "hinge", "lsgan")
#: (pixels, weight) with which published runs of the relativistic loss begin (Huang et al. 2024, "The GAN is dead; long
#: live the GAN!"): CIFAR-10 at 32 px, FFHQ at 64 and 256 px; in the course of 20 million images it falls to a tenth
RELATIVISTIC = ((32**2, 0.05), (64**2, 2.0), (256**2, 150.0))


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(GeneratorConfig):
    """Settings of a generator and a discriminator: loss, penalties, augmentation, optimizers, average.

    The help of each field says what it is.
    """

    changeable: ClassVar[tuple[str, ...]] = (*GeneratorConfig.changeable, "compile")

    loss: str = setting("nonsaturating", "Optimization", "What the networks play for.", allowed=Choice(LOSSES))
    gp_weight: float = setting(10.0, "Optimization", "Weight of the gradient penalty of wgan-gp.", allowed=WEIGHT)
    z_dim: int = setting(None, "Networks", "Size of the latent z.", BY_PRESET, allowed=SIZE)
    augment: str = setting(
        None,
        AUGMENTATION,
        "none; ada, as strong as the data needs; fixed, by --augment-p; or diffaug, by --diffaug.",
        "ada; none of the losses wgan-gp and relativistic",
        allowed=Choice(("none", "ada", "fixed", "diffaug")),
    )
    augment_pipe: str = setting(
        "bgc",
        AUGMENTATION,
        "What ada and fixed apply: the first letters of blit, geom, color, filter, noise, cutout, or one of these.",
        allowed=Choice(PIPES),
    )
    augment_p: float = setting(
        None, AUGMENTATION, "Probability of each transform, at first.", "0; of fixed 0.2", allowed=SHARE
    )
    ada_target: float = setting(
        0.6, AUGMENTATION, "How often D may be right about real pictures.", allowed=Bounds(-1, 1)
    )
    ada_interval: int = setting(4, AUGMENTATION, "The probability is adjusted every so many steps.", allowed=INTERVAL)
    ada_kimg: float = setting(
        None,
        AUGMENTATION,
        "Thousands of images in which the probability can go from 0 to 1.",
        "500; with --init 100",
        allowed=KIMG,
    )
    apa: bool = setting(
        False,
        AUGMENTATION,
        "Show the discriminator generated pictures as real ones, as often as it overfits (APA).",
    )
    diffaug: str = setting("color,translation,cutout", AUGMENTATION, "What diffaug does, several by commas.")
    compile: bool = setting(
        False,
        "Run",
        "Compile each phase of a step as a whole, by torch.compile: minutes at the start, meant for GPUs.",
    )
    g_lr: float = setting(None, "Optimization", "Adam's learning rate for the generator.", BY_PRESET, allowed=POSITIVE)
    d_lr: float = setting(
        None, "Optimization", "Adam's learning rate for the discriminator.", BY_PRESET, allowed=POSITIVE
    )
    beta1: float = setting(0.0, "Optimization", "Adam's beta1.", allowed=DECAY)
    beta2: float = setting(0.99, "Optimization", "Adam's beta2.", allowed=DECAY)
    r1_gamma: float | str = setting(
        None,
        "Optimization",
        "Weight of the R1 penalty (also --gamma); raise it where training is unstable. auto: 0.0002 pixels / batch; of "
        "relativistic what is published for the resolution.",
        BY_PRESET,
        allowed=OrWord(WEIGHT, AUTO),
        also="--gamma",
    )
    r1_interval: int = setting(
        None,
        "Optimization",
        "R1, or the loss's own penalty, runs every so many steps.",
        "16; of wgan-gp and relativistic 1",
        allowed=INTERVAL,
    )
    ema_kimg: float = setting(
        None,
        "Optimization",
        "Half-life of the averaged generator, in thousands of images ...",
        BY_PRESET,
        allowed=WEIGHT,
    )
    ema_rampup: float = setting(
        None,
        "Optimization",
        "... but at most this share of the images shown so far; 0: no such limit.",
        BY_PRESET,
        allowed=WEIGHT,
    )

    @property
    def half_precision(self) -> bool:
        """Whether layers run in half precision, of resolved settings."""
        return False

    def of_preset(self, processes: int) -> dict[str, Any]:
        """what the preset alone says of the settings that may be left open."""
        raise NotImplementedError

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says, as the loss and what a run begins with change it."""
        values = self.of_preset(processes)
        if self.init is not None:
            # an average that begins with a trained network need not forget it
            values["ema_rampup"] = 0.0
        if self.r1_gamma == AUTO or self.loss == "relativistic":
            # the presets' is for lazy R1 alone
            values["r1_gamma"] = self.automatic_gamma(self.batch or values["batch"])
        if self.loss == "wgan-gp":
            # it has a penalty of its own
            values["r1_gamma"] = 0.0
        values["r1_interval"] = 16 if self.loss in LAZY else 1
        values.setdefault("augment", "ada")
        if self.loss in OFFSET:
            values["augment"] = "none"
        return {
            **values,
            "augment_p": 0.2 if self.augment == "fixed" else 0.0,
            "ada_kimg": 500.0 if self.init is None else 100.0,
        }

    @property
    def gamma(self) -> float:
        """``r1_gamma`` of resolved settings."""
        return float(self.r1_gamma)

    @property
    def group(self) -> int:
        """How many images the discriminator looks at together, of resolved settings."""
        return 1

    def automatic_gamma(self, batch: int) -> float:
        """The weight of R1 to begin with for new data: ``0.0002 * pixels / batch`` (Karras et al. 2020, "ADA").

        Of the relativistic loss, whose penalty is of both kinds of pictures and in every step, it is that of
        :data:`RELATIVISTIC` whatever the batch: a power of the pixels between two published sizes, and in proportion to
        the pixels beyond them.
        """
        height, width = shape_of(self.resolution)
        pixels = height * width
        if self.loss != "relativistic":
            return 0.0002 * pixels / batch
        for (size, weight), (larger, heavier) in pairwise(RELATIVISTIC):
            if size <= pixels <= larger:
                return weight * (heavier / weight) ** (math.log(pixels / size) / math.log(larger / size))
        size, weight = RELATIVISTIC[0 if pixels < RELATIVISTIC[0][0] else -1]
        return weight * pixels / size

    def augmentation(self) -> Choices:
        """What augments the discriminator's images."""
        from ._augmentation import Choices

        return Choices(
            self.augment,
            self.augment_pipe,
            self.augment_p,
            self.diffaug,
            self.apa,
            self.ada_target,
            self.ada_interval,
            self.ada_kimg,
        )

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        if self.loss in OFFSET and (self.augment == "ada" or self.apa):
            raise ValueError(
                f"augment must be none, fixed or diffaug with the loss {self.loss}, and apa not be set, as they are "
                f"driven by the signs of logits; got augment {self.augment}, apa {self.apa}"
            )
        if self.augment == "diffaug":
            words = [word.strip() for word in self.diffaug.split(",")]
            if not set(words) <= set(POLICIES) or len(set(words)) < len(words):
                raise ValueError(f"diffaug must be some of {', '.join(POLICIES)}, each once; got {self.diffaug!r}")

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: the parts of what is not chosen, or has no weight."""
        names = "r1_gamma", "gp_weight"
        weight, other = reversed(names) if self.loss == "wgan-gp" else names
        pipe = () if self.augment in ("ada", "fixed") else ("augment_pipe", "augment_p")
        driven = () if self.augment == "ada" or self.apa else ("ada_target", "ada_interval", "ada_kimg")
        policy = () if self.augment == "diffaug" else ("diffaug",)
        return {
            **super().idle(),
            f"with --loss {self.loss}": (other,),
            f"with --augment {self.augment}": (*pipe, *driven, *policy),
            f"with --{weight.replace('_', '-')} 0": () if getattr(self, weight) else ("r1_interval",),
            "with --ema-kimg 0": () if self.ema_kimg else ("ema_rampup",),
        }
