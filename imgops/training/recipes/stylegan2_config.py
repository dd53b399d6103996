"""The settings of the recipe of StyleGAN2, and its presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..._settings import Bounds, Choice, OrWord, setting, shape_of, start_shape
from ..config import AUTO, DECAY, INTERVAL, KIMG, POSITIVE, SHARE, SIZE, TRANSFER, WEIGHT, GeneratorConfig

if TYPE_CHECKING:
    from ._augmentation import Choices

#: resolution from which on the networks of the preset auto have twice the channels, and that of a lower learning rate
WIDE_FROM, SLOW_FROM = 512, 1024
#: what the options of the presets have in common; their table is in docs/training.md
_BY_PRESET = "by the preset"
ARCHITECTURE = Choice(("skip", "resnet", "orig"))

#: what the presets say where they do not differ: of Karras et al. 2020, "Training Generative Adversarial Networks with
#: Limited Data", as published with it
_COMMON: dict[str, Any] = {
    "kimg": 25_000.0,
    "z_dim": 512,
    "w_dim": 512,
    "channel_max": 512,
    "channel_base": 32768,
    "d_architecture": "resnet",
    "pl_weight": 2.0,
    "style_mixing": 0.9,
    "ema_rampup": 0.0,
    "mapping_layers": 8,
    "d_mapping_layers": 8,
}
#: presets that do not depend on the resolution and the number of processes
_FIXED: dict[str, dict[str, Any]] = {
    "stylegan2": {"batch": 32, "mbstd_group": 4, "lr": 0.002, "r1_gamma": 10.0, "ema_kimg": 10.0},
    "paper256": {
        "batch": 64,
        "mbstd_group": 8,
        "lr": 0.0025,
        "r1_gamma": 1.0,
        "ema_kimg": 20.0,
        "channel_base": 16384,
    },
    "paper512": {"batch": 64, "mbstd_group": 8, "lr": 0.0025, "r1_gamma": 0.5, "ema_kimg": 20.0},
    "paper1024": {"batch": 32, "mbstd_group": 4, "lr": 0.002, "r1_gamma": 2.0, "ema_kimg": 10.0},
    "cifar": {
        "kimg": 100_000.0,
        "batch": 64,
        "mbstd_group": 32,
        "lr": 0.0025,
        "r1_gamma": 0.01,
        "ema_kimg": 500.0,
        "ema_rampup": 0.05,
        "mapping_layers": 2,
        "d_architecture": "orig",
        "pl_weight": 0.0,
        "style_mixing": 0.0,
    },
}
#: what makes a step of 32 px well under a second on a CPU; the rest is as of auto
_TINY: dict[str, Any] = {
    "kimg": 200.0,
    "batch": 16,
    "z_dim": 64,
    "w_dim": 64,
    "channel_base": 1024,
    "channel_max": 64,
    "d_mapping_layers": 2,
    "num_fp16_res": 0,
}
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
PRESETS = Choice(("auto", *_FIXED, "tiny"))


@dataclass(frozen=True)
class TrainingConfig(GeneratorConfig):
    """Settings of a run of StyleGAN2; those left open are the preset's (:meth:`resolve`).

    The help of each field says what it is; ``imgops train --help`` prints them all.

    Attributes:
        preset: "auto" (default) chooses by the resolution and the number of processes, as Karras et al. 2020 ("ADA") do
            for new data; "stylegan2", "paper256", "paper512", "paper1024" and "cifar" are those of published results;
            "tiny" makes small networks for trying things out on a CPU.
    """

    recipe = "stylegan2"
    for_cpu = "--preset tiny --resolution 32"
    changeable = (*GeneratorConfig.changeable, "compile")
    about = """Train a StyleGAN2 on your pictures.

    Example: imgops train --data samples:textures --resolution 32 --out runs/textures

    Settings that are not given are those of --preset; tiny suits a CPU. A folder or zip of pictures works as --data,
    and so do WebDataset shards; imgops data makes one that is read quickly. Classes come from its dataset.json, if any:
    {"labels": [["name.png", 0], ...], "names": ["cats", ...]}, or with --labels folders from its subfolders.
    """

    loss: str = setting(
        "nonsaturating", "Optimization", "What the networks play for.", allowed=Choice(LOSSES), kw_only=True
    )
    gp_weight: float = setting(
        10.0, "Optimization", "Weight of the gradient penalty of wgan-gp.", allowed=WEIGHT, kw_only=True
    )
    augment: str = setting(
        None,
        AUGMENTATION,
        "none; ada, as strong as the data needs; fixed, by --augment-p; or diffaug, by --diffaug.",
        "ada; none of the preset stylegan2, and of the losses wgan-gp and relativistic",
        allowed=Choice(("none", "ada", "fixed", "diffaug")),
        kw_only=True,
    )
    augment_pipe: str = setting(
        "bgc",
        AUGMENTATION,
        "What ada and fixed apply: the first letters of blit, geom, color, filter, noise, cutout, or one of these.",
        allowed=Choice(PIPES),
        kw_only=True,
    )
    augment_p: float = setting(
        None, AUGMENTATION, "Probability of each transform, at first.", "0; of fixed 0.2", allowed=SHARE, kw_only=True
    )
    ada_target: float = setting(
        0.6, AUGMENTATION, "How often D may be right about real pictures.", allowed=Bounds(-1, 1), kw_only=True
    )
    ada_interval: int = setting(
        4, AUGMENTATION, "The probability is adjusted every so many steps.", allowed=INTERVAL, kw_only=True
    )
    ada_kimg: float = setting(
        None,
        AUGMENTATION,
        "Thousands of images in which the probability can go from 0 to 1.",
        "500; with --init 100",
        allowed=KIMG,
        kw_only=True,
    )
    apa: bool = setting(
        False,
        AUGMENTATION,
        "Show the discriminator generated pictures as real ones, as often as it overfits (APA).",
        kw_only=True,
    )
    diffaug: str = setting(
        "color,translation,cutout", AUGMENTATION, "What diffaug does, several by commas.", kw_only=True
    )
    d_lr_layers: str | None = setting(
        None,
        "Optimization",
        "Factors on --d-lr for parts of the discriminator, as b64=0.1,b32=0.5; the number is that of the resolution.",
        "1",
        kw_only=True,
    )
    freeze_d: int = setting(
        0,
        TRANSFER,
        "Keep the discriminator's so many highest resolutions (Freeze-D).",
        allowed=Bounds(0, most=16),
        kw_only=True,
    )
    freeze_m: bool = setting(False, TRANSFER, "Keep the generator's mapping network.", kw_only=True)
    freeze_e: bool = setting(False, TRANSFER, "Keep the generator's affine layers, which make styles.", kw_only=True)
    compile: bool = setting(
        False,
        "Run",
        "Compile each phase of a step as a whole, by torch.compile: minutes at the start, meant for GPUs.",
        kw_only=True,
    )
    preset: str = setting("auto", "Run", "What the settings are that no option gives.", allowed=PRESETS, kw_only=True)
    z_dim: int = setting(None, "Networks", "Size of the latent z.", _BY_PRESET, allowed=SIZE)
    w_dim: int = setting(None, "Networks", "Size of the intermediate latent w.", _BY_PRESET, allowed=SIZE)
    mapping_layers: int = setting(
        None, "Networks", "Layers of the generator's mapping network.", _BY_PRESET, allowed=Bounds(1, most=100)
    )
    d_mapping_layers: int = setting(
        None,
        "Networks",
        "Layers of the discriminator's mapping network, which it has where there are classes.",
        "8; of the preset tiny 2",
        allowed=Bounds(1, most=100),
        kw_only=True,
    )
    channel_base: int = setting(
        None,
        "Networks",
        "Layers of resolution R have channel_base / R channels ...",
        _BY_PRESET,
        allowed=Bounds(1, most=2**24),
    )
    channel_max: int = setting(None, "Networks", "... but no more than this.", _BY_PRESET, allowed=SIZE)
    g_architecture: str = setting(
        "skip", "Networks", "How the generator's resolutions are connected.", allowed=ARCHITECTURE
    )
    d_architecture: str = setting(
        None, "Networks", "How the discriminator's resolutions are connected.", _BY_PRESET, allowed=ARCHITECTURE
    )
    mbstd_group: int = setting(
        None,
        "Networks",
        "Images over which the discriminator measures variety; divides what a process computes at once.",
        _BY_PRESET,
        allowed=SIZE,
    )
    noise_strength: float = setting(
        0.0,
        "Networks",
        "How strong the generator's noise is at first; it is learned. Above 0 suits textures.",
        allowed=Bounds(0, most=1000.0),
    )
    num_fp16_res: int = setting(
        None,
        "Networks",
        "How many of the highest resolutions run in half precision.",
        "4 on a GPU, else 0",
        allowed=Bounds(0, most=16),
    )
    half_dtype: str = setting(
        None,
        "Networks",
        "Dtype of the layers in half precision.",
        "float16; on a CPU bfloat16",
        allowed=Choice(("float16", "bfloat16")),
    )
    half_channels_last: bool = setting(
        False, "Networks", "Lay images in half precision out channels-last, the layout of tensor cores."
    )
    g_lr: float = setting(None, "Optimization", "Adam's learning rate for the generator.", _BY_PRESET, allowed=POSITIVE)
    d_lr: float = setting(
        None, "Optimization", "Adam's learning rate for the discriminator.", _BY_PRESET, allowed=POSITIVE
    )
    beta1: float = setting(0.0, "Optimization", "Adam's beta1.", allowed=DECAY)
    beta2: float = setting(0.99, "Optimization", "Adam's beta2.", allowed=DECAY)
    r1_gamma: float | str = setting(
        None,
        "Optimization",
        "Weight of the R1 penalty (also --gamma); raise it where training is unstable. auto: 0.0002 pixels / batch; of "
        "relativistic what is published for the resolution.",
        _BY_PRESET,
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
    pl_weight: float = setting(None, "Optimization", "Weight of the path-length penalty.", _BY_PRESET, allowed=WEIGHT)
    pl_interval: int = setting(4, "Optimization", "The path-length penalty runs every so many steps.", allowed=INTERVAL)
    pl_decay: float = setting(
        0.01, "Optimization", "Share of the new lengths in their running mean, per step.", allowed=SHARE
    )
    pl_batch_shrink: int = setting(
        2, "Optimization", "The path length is measured on this fraction of the batch.", allowed=INTERVAL
    )
    style_mixing: float = setting(
        None,
        "Optimization",
        "Share of the generated images that mix the styles of two latents.",
        _BY_PRESET,
        allowed=SHARE,
    )
    ema_kimg: float = setting(
        None,
        "Optimization",
        "Half-life of the averaged generator, in thousands of images ...",
        _BY_PRESET,
        allowed=WEIGHT,
    )
    ema_rampup: float = setting(
        None,
        "Optimization",
        "... but at most this share of the images shown so far; 0: no such limit.",
        _BY_PRESET,
        allowed=WEIGHT,
    )

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """The settings that a file of a run holds; null used to stand for no ramp-up, and mapping_layers was of both
        networks."""
        none = {"ema_rampup": 0.0} if values.get("ema_rampup", 0) is None else {}
        both = {"d_mapping_layers": values["mapping_layers"]} if "mapping_layers" in values else {}
        return super().recorded({**both, **values, **none})

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open."""
        cuda = self.device.startswith("cuda")
        # CPUs multiply bfloat16, and emulate float16
        values = {**_COMMON, "num_fp16_res": 4 if cuda else 0, "half_dtype": "float16" if cuda else "bfloat16"}
        if self.preset in _FIXED:
            values |= _FIXED[self.preset]
        else:
            own = _TINY if self.preset == "tiny" else {}
            values |= self._of_new_data(self.batch or own.get("batch"), processes) | own
        if self.init is not None:
            # an average that begins with a trained network need not forget it
            values["ema_rampup"] = 0.0
        if self.r1_gamma == AUTO or self.loss == "relativistic":
            # the presets' is for lazy R1 alone
            values["r1_gamma"] = self.automatic_gamma(self.batch or values["batch"])
        if self.loss == "wgan-gp":
            # it has a penalty of its own
            values["r1_gamma"] = 0.0
        lr = values.pop("lr")
        return {
            **values,
            "g_lr": lr,
            "d_lr": lr,
            "r1_interval": 16 if self.loss in LAZY else 1,
            "augment": "none" if self.preset == "stylegan2" or self.loss in OFFSET else "ada",
            "augment_p": 0.2 if self.augment == "fixed" else 0.0,
            "ada_kimg": 500.0 if self.init is None else 100.0,
        }

    def _of_new_data(self, batch: int | None, processes: int) -> dict[str, Any]:
        """What is chosen for data that no published result is of (Karras et al. 2020, "ADA", appendix C).

        Each setting follows from the resolution and the batch; the batch, where it is None, from the resolution and the
        number of processes.
        """
        height, width = shape_of(self.resolution)
        side = max(height, width)
        if batch is None:
            batch = max(min(processes * min(4096 // side, 32), 64), processes)
            # that each process has as many
            batch -= batch % processes
        sized = replace(self, batch=batch)
        share, chunk = max(1, sized.share(processes)), max(1, sized.chunk_of(processes))
        # of the whole share even where smaller parts, as a run then says, cut the groups up
        groups = (group for group in (4, 3, 2, 1) if share % group == 0 and chunk % min(group, chunk) == 0)
        return {
            "batch": batch,
            "mbstd_group": next(groups),
            "channel_base": 32768 if side >= WIDE_FROM else 16384,
            "lr": 0.002 if side >= SLOW_FROM else 0.0025,
            "r1_gamma": self.automatic_gamma(batch),
            "ema_kimg": batch * 10 / 32,
            "ema_rampup": 0.05,
            "mapping_layers": 2,
        }

    @property
    def gamma(self) -> float:
        """``r1_gamma`` of resolved settings."""
        return float(self.r1_gamma)

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

    def rate_factors(self) -> dict[str, float]:
        """The factor on the discriminator's learning rate of each of its parts that has one.

        Raises:
            ValueError: a part that the discriminator lacks, or a factor that is no number of 0 or more.
        """
        *_, doublings = start_shape(*shape_of(self.resolution))
        parts = [f"b{4 * 2**k}" for k in range(doublings + 1)] + ["mapping"]
        factors = {}
        for text in (self.d_lr_layers or "").split(",") if self.d_lr_layers else ():
            name, _, factor = text.strip().partition("=")
            try:
                factors[name] = float(factor)
            except ValueError:
                factors[name] = -1.0
            if name not in parts or not 0 <= factors[name] < float("inf"):
                raise ValueError(
                    f"d_lr_layers must be factors for {', '.join(parts)}, as {parts[-2]}=0.1; got {text.strip()!r}"
                )
        return factors

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
        self.rate_factors()
        *_, doublings = start_shape(*shape_of(self.resolution))
        if self.freeze_d > doublings:
            raise ValueError(
                f"freeze_d must be at most {doublings}, the resolutions above the lowest; got {self.freeze_d}"
            )
        if self.loss in OFFSET and (self.augment == "ada" or self.apa):
            raise ValueError(
                f"augment must be none, fixed or diffaug with the loss {self.loss}, and apa not be set, as they are "
                f"driven by the signs of logits; got augment {self.augment}, apa {self.apa}"
            )
        if self.augment == "diffaug":
            words = [word.strip() for word in self.diffaug.split(",")]
            if not set(words) <= set(POLICIES) or len(set(words)) < len(words):
                raise ValueError(f"diffaug must be some of {', '.join(POLICIES)}, each once; got {self.diffaug!r}")
        chunk = self.chunk_of(processes)
        if chunk % min(self.mbstd_group, chunk):
            raise ValueError(f"mbstd_group must divide the (micro-)batch of {chunk}; got {self.mbstd_group}")

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
            "with --pl-weight 0": () if self.pl_weight else ("pl_interval", "pl_decay", "pl_batch_shrink"),
            "with --ema-kimg 0": () if self.ema_kimg else ("ema_rampup",),
            "with --num-fp16-res 0": () if self.num_fp16_res else ("half_dtype", "half_channels_last"),
        }

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan2.Generator`."""
        return {
            "z_dim": self.z_dim,
            "w_dim": self.w_dim,
            "architecture": self.g_architecture,
            "mapping_layers": self.mapping_layers,
            **self._shared_arguments(c_dim),
        }

    def discriminator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan2.Discriminator`."""
        return {
            "architecture": self.d_architecture,
            "mapping_layers": self.d_mapping_layers,
            "mbstd_group_size": self.mbstd_group,
            **self._shared_arguments(c_dim),
        }

    def _shared_arguments(self, c_dim: int) -> dict[str, Any]:
        # settings are read without torch
        import torch

        return {
            "c_dim": c_dim,
            "img_resolution": self.resolution,
            "img_channels": self.channels,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "num_fp16_res": self.num_fp16_res,
            "half_dtype": getattr(torch, self.half_dtype),
            "half_channels_last": self.half_channels_last,
        }
