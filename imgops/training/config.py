"""Every setting of a training run, with its default and its help, checked, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._device import choose_device
from .._settings import SEED, Bounds, Choice, check_types, checked, powers_of_two, present_names, setting

#: resolution from which on the path length is regularized unless the configuration says otherwise
PATH_LENGTH_FROM = 256
#: resolution from which on the networks have twice the channels
WIDE_FROM = 512
#: options for networks that a CPU trains within hours
CPU_OPTIONS = (
    "--resolution 32 --batch 16 --channel-base 1024 --channel-max 64 "
    "--z-dim 64 --w-dim 64 --mapping-layers 2 --kimg 200"
)
#: the key of config.json under which versions and the backend are recorded, which are no settings
MADE_BY = "made_by"
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


#: bounds of sizes that determine memory, and of intervals in steps
SIZE, INTERVAL = Bounds(1, most=65536), Bounds(1, most=1_000_000_000)
#: thousands of images; the upper bound is what fits into the names of checkpoints
KIMG = Bounds(0, above=True, most=9_000_000)
#: the upper bound is what float32 can hold
POSITIVE, WEIGHT = Bounds(0, above=True, most=1e38), Bounds(0, most=1e38)
SHARE, DECAY = Bounds(0, 1), Bounds(0, 1, below=True)
ARCHITECTURE = Choice(("skip", "resnet", "orig"))


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a run; the defaults are StyleGAN2's (Karras et al. 2020), where None is resolved by :meth:`resolve`.

    The help of each field says what it is; ``imgops train --help`` prints them all.
    """

    data: str = setting(
        dataclasses.MISSING,
        "Data",
        "Folder or zip of pictures, or a free set: samples:textures, samples:pictures.",
        "unless --resume",
    )
    out: str = setting(dataclasses.MISSING, "Run", "Folder for checkpoints, samples and statistics.")
    resolution: int = setting(
        64,
        "Data",
        "Side of the pictures in pixels; they are center-cropped and resized to it.",
        allowed=powers_of_two(8, 4096),
    )
    channels: int = setting(3, "Data", "1 for gray, 3 for RGB, 4 for RGBA.", allowed=Choice((1, 3, 4)))
    mirror: bool = setting(False, "Data", "Show each picture flipped left to right as well.")
    labels: str = setting(
        "file",
        "Data",
        "Classes: file takes those of dataset.json, or of a free set; folders makes one of each subfolder; or none.",
        allowed=Choice(("file", "folders", "none")),
    )
    workers: int = setting(
        0,
        "Data",
        "Processes that read pictures beside the one that trains; try 2 to 4 with a GPU.",
        allowed=Bounds(0, most=1024),
    )
    kimg: float = setting(1000.0, "Run", "Length: thousands of real images shown.", allowed=KIMG)
    batch: int = setting(32, "Run", "Images per step.", allowed=SIZE)
    micro_batch: int | None = setting(
        None,
        "Run",
        "Images that go through the networks at once, to save memory; divides --batch.",
        "the batch",
        allowed=SIZE,
    )
    seed: int = setting(0, "Run", "Seed of everything random.", allowed=SEED)
    device: str = setting("auto", "Run", "cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")
    log_kimg: float = setting(1.0, "Reports", "Losses are recorded every so many thousand images.", allowed=KIMG)
    grid_kimg: float = setting(
        20.0, "Reports", "A sheet of samples is written every so many thousand images.", allowed=KIMG
    )
    checkpoint_kimg: float = setting(
        50.0, "Reports", "A checkpoint is written every so many thousand images.", allowed=KIMG
    )
    keep: int = setting(3, "Reports", "How many of the newest checkpoints are kept.", allowed=INTERVAL)
    z_dim: int = setting(512, "Networks", "Size of the latent z.", allowed=SIZE)
    w_dim: int = setting(512, "Networks", "Size of the intermediate latent w.", allowed=SIZE)
    mapping_layers: int = setting(8, "Networks", "Layers of the mapping networks.", allowed=Bounds(1, most=100))
    channel_base: int | None = setting(
        None,
        "Networks",
        "Layers of resolution R have channel_base / R channels (a CPU wants fewer: try 1024, and --channel-max 64) ...",
        f"32768 from {WIDE_FROM} px on, else 16384",
        allowed=Bounds(1, most=2**24),
    )
    channel_max: int = setting(512, "Networks", "... but no more than this.", allowed=SIZE)
    g_architecture: str = setting(
        "skip", "Networks", "How the generator's resolutions are connected.", allowed=ARCHITECTURE
    )
    d_architecture: str = setting(
        "resnet", "Networks", "How the discriminator's resolutions are connected.", allowed=ARCHITECTURE
    )
    mbstd_group: int = setting(
        4, "Networks", "Images over which the discriminator measures variety; divides the batch.", allowed=SIZE
    )
    noise_strength: float = setting(
        0.0,
        "Networks",
        "How strong the generator's noise is at first; it is learned. Above 0 suits textures.",
        allowed=Bounds(0, most=1000.0),
    )
    num_fp16_res: int = setting(
        0,
        "Networks",
        "How many of the highest resolutions run in half precision; 4 suits a GPU.",
        allowed=Bounds(0, most=16),
    )
    half_dtype: str = setting(
        "float16", "Networks", "Dtype of the layers in half precision.", allowed=Choice(("float16", "bfloat16"))
    )
    half_channels_last: bool = setting(
        False, "Networks", "Lay images in half precision out channels-last, the layout of tensor cores."
    )
    g_lr: float = setting(0.002, "Optimization", "Adam's learning rate for the generator.", allowed=POSITIVE)
    d_lr: float = setting(0.002, "Optimization", "Adam's learning rate for the discriminator.", allowed=POSITIVE)
    beta1: float = setting(0.0, "Optimization", "Adam's beta1.", allowed=DECAY)
    beta2: float = setting(0.99, "Optimization", "Adam's beta2.", allowed=DECAY)
    r1_gamma: float | None = setting(
        None,
        "Optimization",
        "Weight of the R1 penalty; raise it where training is unstable.",
        "0.0002 resolution^2 / batch",
        allowed=WEIGHT,
    )
    r1_interval: int = setting(16, "Optimization", "R1 runs every so many steps.", allowed=INTERVAL)
    pl_weight: float | None = setting(
        None,
        "Optimization",
        "Weight of the path-length penalty.",
        f"2 from {PATH_LENGTH_FROM} px on, else 0",
        allowed=WEIGHT,
    )
    pl_interval: int = setting(4, "Optimization", "The path-length penalty runs every so many steps.", allowed=INTERVAL)
    pl_decay: float = setting(
        0.01, "Optimization", "Share of the new lengths in their running mean, per step.", allowed=SHARE
    )
    pl_batch_shrink: int = setting(
        2, "Optimization", "The path length is measured on this fraction of the batch.", allowed=INTERVAL
    )
    style_mixing: float = setting(
        0.9, "Optimization", "Share of the generated images that mix the styles of two latents.", allowed=SHARE
    )
    ema_kimg: float = setting(
        10.0, "Optimization", "Half-life of the averaged generator, in thousands of images ...", allowed=WEIGHT
    )
    ema_rampup: float | None = setting(
        0.05, "Optimization", "... but at most this share of the images shown so far.", allowed=WEIGHT
    )

    def __post_init__(self) -> None:
        if isinstance(self.labels, bool):
            # labels used to be true or false, and older checkpoints still have that
            object.__setattr__(self, "labels", "file" if self.labels else "none")

    @classmethod
    def read(cls, path: str | os.PathLike[str], given: Mapping[str, Any]) -> TrainingConfig:
        """Settings for a new run: those of the ``config.json`` of a run or a checkpoint, replaced by the ones given.

        Args:
            path: the file, or the folder that holds it. What it says about versions is ignored.
            given: settings by their names. A micro-batch in the file that is the whole batch follows it.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no JSON object of settings, or has an unknown one, or one of another type or out of range;
                names the file.
        """
        path = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
        try:
            table = json.loads(path.read_text(), object_hook=present_names)
            values = dict(table.get("config", table))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: must be the config.json of a run ({error})") from None
        values.pop(MADE_BY, None)
        if "micro_batch" not in given and values.get("micro_batch") == values.get("batch"):
            values["micro_batch"] = None
        try:
            # older files have true or false for labels, which the constructor accepts
            check_types(cls, {key: value for key, value in values.items() if (key, type(value)) != ("labels", bool)})
            checked(cls(**{"data": "", "out": "", **{k: v for k, v in values.items() if k not in given}}))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None
        missing = {"data", "out"} - {*values, *given}
        if missing:
            raise ValueError(f"{path}: says nothing of {min(missing)}, and neither does --{min(missing)}")
        return cls(**{**values, **given})

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
        """The configuration with no setting left open, checked.

        The R1 weight becomes ``0.0002 * resolution^2 / batch`` and channel_base 32768 from 512 px on and 16384 below
        (Karras et al. 2020, "ADA"), the path-length weight 2 from 256 px on and 0 below, the device a GPU where one is.

        Raises:
            TypeError: a setting of another type.
            ValueError: a setting out of range; names it, what was given and what is allowed.
        """
        given = checked(self)
        wide, long = given.resolution >= WIDE_FROM, given.resolution >= PATH_LENGTH_FROM
        automatic: dict[str, Any] = {
            "channel_base": 32768 if wide else 16384,
            "micro_batch": given.batch,
            "r1_gamma": 0.0002 * given.resolution**2 / given.batch,
            "pl_weight": 2.0 if long else 0.0,
        }
        resolved = dataclasses.replace(
            given,
            device=choose_device(given.device),
            **{name: value for name, value in automatic.items() if getattr(given, name) is None},
        )
        resolved._check_together()
        return resolved

    def _check_together(self) -> None:
        chunk = self.chunk
        if self.batch % chunk:
            raise ValueError(f"micro_batch must divide the batch of {self.batch}; got {chunk}")
        if chunk % min(self.mbstd_group, chunk):
            raise ValueError(f"mbstd_group must divide the (micro-)batch of {chunk}; got {self.mbstd_group}")

    @property
    def chunk(self) -> int:
        """How many samples run at once: the micro-batch if it is set, else the batch."""
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
