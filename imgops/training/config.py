"""Every setting of a training run, with its default and its help, checked, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: from this side on, the path length is regularised unless the configuration says otherwise
PATH_LENGTH_FROM = 256
#: from this side on, the networks are twice as wide
WIDE_FROM = 512
#: settings that may change when a run is continued; the others would make it another run
CHANGEABLE = (
    "data",
    "out",
    "workers",
    "kimg",
    "log_kimg",
    "grid_kimg",
    "checkpoint_kimg",
    "keep",
    "micro_batch",
    "device",
)


def setting(default: Any, panel: str, help: str, shown: str | None = None) -> Any:
    """A field with the group and the text of its command-line option; ``shown`` says what a default of None means."""
    return dataclasses.field(default=default, metadata={"panel": panel, "help": help, "shown": shown})


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run; the defaults are StyleGAN2's (Karras et al. 2020), where None is resolved by :meth:`resolve`.

    The help of each field says what it is; ``imgops train --help`` prints them all.
    """

    data: str = setting(
        dataclasses.MISSING, "Data", "Folder or zip of pictures, or a free set: samples:textures, samples:pictures."
    )
    out: str = setting(dataclasses.MISSING, "Run", "Folder for checkpoints, samples and statistics.")
    resolution: int = setting(
        64,
        "Data",
        "Side of the pictures in pixels, a power of two from 8 on; they are centre-cropped and resized to it.",
    )
    channels: int = setting(3, "Data", "1 grey, 3 RGB, 4 RGBA.")
    mirror: bool = setting(False, "Data", "Show each picture flipped left to right as well.")
    labels: bool = setting(True, "Data", "Train on the classes of dataset.json, or of a free set, where there are any.")
    workers: int = setting(0, "Data", "Processes that read pictures beside the one that trains; try 2 to 4 with a GPU.")
    kimg: float = setting(1000.0, "Run", "Length: thousands of real images shown.")
    batch: int = setting(32, "Run", "Images a step.")
    micro_batch: int | None = setting(None, "Run", "Images at once, to save memory; divides --batch.", "the batch")
    seed: int = setting(0, "Run", "Seed of everything random.")
    device: str = setting("auto", "Run", "cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")
    log_kimg: float = setting(1.0, "Reports", "Losses are recorded every so many thousand images.")
    grid_kimg: float = setting(20.0, "Reports", "A sheet of samples every so many thousand images.")
    checkpoint_kimg: float = setting(50.0, "Reports", "A checkpoint every so many thousand images.")
    keep: int = setting(3, "Reports", "How many of the newest checkpoints stay.")
    z_dim: int = setting(512, "Networks", "Size of the latent z.")
    w_dim: int = setting(512, "Networks", "Size of the intermediate latent w.")
    mapping_layers: int = setting(8, "Networks", "Layers of the mapping networks.")
    channel_base: int | None = setting(
        None,
        "Networks",
        "A resolution R has channel_base / R channels (a CPU wants fewer: try 1024, and --channel-max 64) ...",
        f"32768 from {WIDE_FROM} px on, else 16384",
    )
    channel_max: int = setting(512, "Networks", "... but no more than this.")
    g_architecture: str = setting("skip", "Networks", "Of the generator: skip, resnet or orig.")
    d_architecture: str = setting("resnet", "Networks", "Of the discriminator: skip, resnet or orig.")
    mbstd_group: int = setting(
        4, "Networks", "Images over which the discriminator measures variety; divides the batch."
    )
    noise_strength: float = setting(
        0.0, "Networks", "How strong the generator's noise is at first; it is learned. Above 0 suits textures."
    )
    num_fp16_res: int = setting(
        0, "Networks", "How many of the highest resolutions run in half precision; 4 suits a GPU."
    )
    half_dtype: str = setting("float16", "Networks", "Half precision: float16 or bfloat16.")
    half_channels_last: bool = setting(
        False, "Networks", "Lay images in half precision out channels-last, the layout of tensor cores."
    )
    g_lr: float = setting(0.002, "Optimisation", "Adam's learning rate for the generator.")
    d_lr: float = setting(0.002, "Optimisation", "Adam's learning rate for the discriminator.")
    beta1: float = setting(0.0, "Optimisation", "Adam's beta1.")
    beta2: float = setting(0.99, "Optimisation", "Adam's beta2.")
    r1_gamma: float | None = setting(
        None,
        "Optimisation",
        "Weight of the R1 penalty; raise it where training is unstable.",
        "0.0002 resolution^2 / batch",
    )
    r1_interval: int = setting(16, "Optimisation", "R1 runs every so many steps.")
    pl_weight: float | None = setting(
        None, "Optimisation", "Weight of the path-length penalty.", f"2 from {PATH_LENGTH_FROM} px on, else 0"
    )
    pl_interval: int = setting(4, "Optimisation", "The path-length penalty runs every so many steps.")
    pl_decay: float = setting(0.01, "Optimisation", "Part of the new lengths in their running mean, a step.")
    pl_batch_shrink: int = setting(2, "Optimisation", "The path length is measured on this fraction of the batch.")
    style_mixing: float = setting(0.9, "Optimisation", "Part of the fakes that mix the styles of two latents.")
    ema_kimg: float = setting(10.0, "Optimisation", "Half-life of the averaged generator, in thousands of images ...")
    ema_rampup: float | None = setting(0.05, "Optimisation", "... but at most this part of the images shown so far.")

    def changed(self, given: Mapping[str, Any]) -> TrainingConfig:
        """These settings with the ones given, to continue a run.

        Raises:
            ValueError: one of them would make it another run.
        """
        for name, value in given.items():
            if name not in CHANGEABLE and value != getattr(self, name):
                raise ValueError(
                    f"{name} cannot change when a run is continued; it is {getattr(self, name)}, got {value}"
                )
        return dataclasses.replace(self, **given)

    def resolve(self) -> TrainingConfig:
        """The configuration with nothing left open, checked.

        The R1 weight becomes ``0.0002 * resolution^2 / batch`` and channel_base 32768 from 512 px on and 16384 below
        (Karras et al. 2020, "ADA"), the path-length weight 2 from 256 px on and 0 below, the device a GPU where one is.

        Raises:
            ValueError: a setting out of range; names it, what was given and what is allowed.
        """
        # here and not above: `imgops train --help` reads this file and need not wait for torch
        import torch

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        resolved = dataclasses.replace(
            self,
            device=device,
            channel_base=self.channel_base or (32768 if self.resolution >= WIDE_FROM else 16384),
            micro_batch=self.batch if self.micro_batch is None else self.micro_batch,
            r1_gamma=0.0002 * self.resolution**2 / max(self.batch, 1) if self.r1_gamma is None else self.r1_gamma,
            pl_weight=(2.0 if self.resolution >= PATH_LENGTH_FROM else 0.0)
            if self.pl_weight is None
            else self.pl_weight,
        )
        resolved._check()
        return resolved

    def _check(self) -> None:
        import torch

        try:
            available = torch.device(self.device).type != "cuda" or torch.cuda.is_available()
        except RuntimeError:
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {self.device!r}") from None
        if not available:
            raise ValueError(f"device is {self.device}, but no GPU is visible to torch")
        at_least = {
            0: ("workers", "num_fp16_res", "seed", "r1_gamma", "pl_weight", "ema_kimg"),
            1: ("batch", "micro_batch", "keep", "mbstd_group", "r1_interval", "pl_interval", "pl_batch_shrink"),
        }
        for minimum, names in at_least.items():
            for name in names:
                if not minimum <= getattr(self, name) < math.inf:
                    raise ValueError(f"{name} must be {minimum} or more; got {getattr(self, name)}")
        for name in "kimg", "log_kimg", "grid_kimg", "checkpoint_kimg", "g_lr", "d_lr":
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        for name in "style_mixing", "beta1", "beta2", "pl_decay":
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1]; got {getattr(self, name)}")
        if self.half_dtype not in ("float16", "bfloat16"):
            raise ValueError(f"half_dtype must be float16 or bfloat16; got {self.half_dtype!r}")
        chunk = self.chunk
        if self.batch % chunk:
            raise ValueError(f"micro_batch must divide the batch of {self.batch}; got {chunk}")
        if chunk % min(self.mbstd_group, chunk):
            raise ValueError(f"mbstd_group must divide the (micro-)batch of {chunk}; got {self.mbstd_group}")

    @property
    def chunk(self) -> int:
        """How many samples run at once: the micro-batch, or the batch."""
        return self.micro_batch or self.batch

    def generator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan2.Generator`."""
        return {
            "z_dim": self.z_dim,
            "w_dim": self.w_dim,
            "architecture": self.g_architecture,
            **self._shared_arguments(c_dim),
        }

    def discriminator_arguments(self, c_dim: int) -> dict[str, Any]:
        """Keyword arguments of :class:`imgops.models.stylegan2.Discriminator`."""
        return {
            "architecture": self.d_architecture,
            "mbstd_group_size": self.mbstd_group,
            **self._shared_arguments(c_dim),
        }

    def _shared_arguments(self, c_dim: int) -> dict[str, Any]:
        import torch

        return {
            "c_dim": c_dim,
            "img_resolution": self.resolution,
            "img_channels": self.channels,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "mapping_layers": self.mapping_layers,
            "num_fp16_res": self.num_fp16_res,
            "half_dtype": getattr(torch, self.half_dtype),
            "half_channels_last": self.half_channels_last,
        }
