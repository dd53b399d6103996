"""The settings that every recipe has: data, length, processes, reports; checked, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from .._device import choose_device
from .._settings import (
    SEED,
    Bounds,
    Choice,
    Shapes,
    check_grown,
    check_types,
    checked,
    present_names,
    setting,
)
from ..metrics.names import parse_metrics

Config = TypeVar("Config", bound="RunConfig")
#: the keys of config.json for the recipe, and for versions and the backend, which are no settings
RECIPE, MADE_BY = "recipe", "made_by"
#: the recipe of files that name none
FIRST = "stylegan2"

#: the value of a setting that is chosen by a rule
AUTO = "auto"
#: a function of a module or file, as an encoder may be named
_FUNCTION = re.compile(r":[A-Za-z_]\w*$")
#: a group of options
TRANSFER = "Transfer"
#: what the help says of settings that presets set in many ways; their tables are in docs/training.md
BY_PRESET = "by the preset"
#: the presets of recipes that have no published ones
AUTO_OR_TINY = Choice((AUTO, "tiny"))
#: bounds of sizes that determine memory, and of intervals in steps
SIZE, INTERVAL = Bounds(1, most=65536), Bounds(1, most=1_000_000_000)
#: of layers that a part of a network has, and of how many of its resolutions something is meant for
LAYERS, RESOLUTIONS = Bounds(1, most=100), Bounds(0, most=16)
#: thousands of images; the upper bound is what fits into the names of checkpoints
KIMG = Bounds(0, above=True, most=9_000_000)
#: the upper bound is what float32 can hold
POSITIVE, WEIGHT = Bounds(0, above=True, most=1e38), Bounds(0, most=1e38)
SHARE, DECAY = Bounds(0, 1), Bounds(0, 1, below=True)


@dataclass(frozen=True)
class _Places:
    """What every run reads and writes. A class of its own, so that a recipe's settings can stand behind these."""

    data: str = setting(
        dataclasses.MISSING,
        "Data",
        "Folder or zip of pictures, or a free set: samples:textures, samples:pictures.",
        "unless --resume",
    )
    out: str = setting(dataclasses.MISSING, "Run", "Folder for checkpoints, samples and statistics.")
    resolution: int | tuple[int, int] = setting(
        64,
        "Data",
        "Side of the pictures in pixels, or WIDTHxHEIGHT; they are center-cropped and resized to it.",
        allowed=Shapes(8),
    )


@dataclass(frozen=True)
class RunConfig(_Places):
    """Settings that the engine reads, whatever it trains; a recipe's own are those of a subclass.

    The help of each field says what it is; ``imgops train --recipe NAME --help`` prints them all. Those that are None
    are filled by :meth:`resolve`.

    Attributes:
        recipe: the name of the recipe that the settings are for.
        about: what ``imgops train --help`` says first: what is trained, an example, what goes for this recipe alone.
        changeable: settings that may change when a run is continued; the others would make it another run.
        encoders: settings that name an encoder.
        own: settings that belong to one run, so that a file of settings does not give them to another.
        for_cpu: options for networks that a CPU trains within hours; None: there are none.
        for_memory: the options that a run needs less memory with.
    """

    recipe: ClassVar[str]
    about: ClassVar[str]
    changeable: ClassVar[tuple[str, ...]] = (
        "data",
        "out",
        "workers",
        "kimg",
        "minutes",
        "log_kimg",
        "grid_kimg",
        "checkpoint_kimg",
        "keep",
        "wandb",
        "micro_batch",
        "device",
    )
    encoders: ClassVar[tuple[str, ...]] = ()
    own: ClassVar[tuple[str, ...]] = ()
    for_cpu: ClassVar[str | None] = None
    for_memory: ClassVar[str] = "--micro-batch"

    workers: int = setting(
        0,
        "Data",
        "Processes that read pictures beside the one that trains; try 2 to 4 with a GPU.",
        allowed=Bounds(0, most=1024),
    )
    kimg: float = setting(None, "Run", "Length: thousands of real images shown.", BY_PRESET, allowed=KIMG)
    batch: int = setting(None, "Run", "Images per step, of all processes together.", BY_PRESET, allowed=SIZE)
    micro_batch: int = setting(
        None,
        "Run",
        "Images that go through the networks at once, to save memory; divides the share of --batch of a process.",
        "that share",
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
    wandb: str | None = setting(
        None, "Reports", "A project of Weights & Biases that gets the records and sheets, too.", "none", kw_only=True
    )
    init: str | None = setting(
        None, TRANSFER, "A checkpoint or run to begin with: what fits of its networks.", "random weights", kw_only=True
    )
    preset: str = setting("auto", "Run", "What the settings are that no option gives.", kw_only=True)
    minutes: float | None = setting(
        None,
        "Run",
        "Stop after so many minutes, with a checkpoint.",
        "no limit",
        allowed=Bounds(0, above=True, most=10_000_000),
        kw_only=True,
    )

    @classmethod
    def read(cls: type[Config], path: str | os.PathLike[str], given: Mapping[str, Any]) -> Config:
        """Settings for a new run: those of the ``config.json`` of a run or a checkpoint, replaced by the ones given.

        Args:
            path: the file, or the folder that holds it. What it says about versions is ignored.
            given: settings by their names. A micro-batch in the file that is the whole batch follows it.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no JSON object of settings of this recipe, or has an unknown one, or one of another type
                or out of range; names the file.
        """
        path = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
        nothing = dict.fromkeys(cls.required(), "")
        try:
            table = json.loads(path.read_text(), object_hook=present_names)
            values = _plain(table.get("config", table))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: must be the config.json of a run ({error})") from None
        for name in (MADE_BY, *cls.own):
            values.pop(name, None)
        if (of := values.pop(RECIPE, FIRST)) != cls.recipe:
            raise ValueError(f"{path}: is of a run of the recipe {of}; --recipe {cls.recipe} cannot repeat it")
        if "micro_batch" not in given and values.get("micro_batch") == values.get("batch"):
            values["micro_batch"] = None
        try:
            check_types(cls, values)
            checked(cls.recorded({**nothing, **{k: v for k, v in values.items() if k not in given}}))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None
        missing = nothing.keys() - {*values, *given}
        if missing:
            raise ValueError(f"{path}: says nothing of {min(missing)}, and neither does --{min(missing)}")
        return dataclasses.replace(cls.recorded({**nothing, **values}), **given)

    @classmethod
    def required(cls) -> list[str]:
        """The settings that have no default."""
        return [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]

    @classmethod
    def recorded(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """The settings that a file of a run holds; recipes translate here what their older versions wrote.

        Warns:
            UserWarning: the file names a function as an encoder, which is not taken: loading a file must run nothing.
        """
        values = _plain(values)
        for name in cls.encoders:
            weights = values.get(name)
            if isinstance(weights, str) and _FUNCTION.search(weights):
                warnings.warn(
                    f"{name} {weights} of a run's file is a function, which only the command line may name; the "
                    "default encoder takes its place",
                    stacklevel=2,
                )
                del values[name]
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """The recipe and every setting, as files have them."""
        return {RECIPE: self.recipe, **dataclasses.asdict(self)}

    def changed(self: Config, given: Mapping[str, Any]) -> Config:
        """These settings with the ones given, to continue a run.

        Raises:
            ValueError: one of them would make it another run.
        """
        for name, value in given.items():
            if name not in self.changeable and value not in (getattr(self, name), AUTO):
                raise ValueError(
                    f"{name} cannot change when a run is continued; it is {getattr(self, name)}, got {value}"
                )
        # what is automatic was decided when the run began
        return dataclasses.replace(self, **{k: v for k, v in given.items() if k in self.changeable})

    def continued(self: Config, given: Config) -> Config:
        """These settings, of a run, with those that may change as whole settings give them: what these leave open stays
        as it was decided.

        Raises:
            ValueError: one of them is of another recipe, or would make it another run.
        """
        if type(given) is not type(self):
            raise ValueError(f"{given.out}: is a run of the recipe {self.recipe}; {given.recipe} cannot go on")
        given = checked(given)
        left_open = given.from_preset(1)
        values = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
        return self.changed({name: v for name, v in values.items() if v is not None or name not in left_open})

    def resolve(self: Config, processes: int = 1) -> Config:
        """The configuration with no setting left open, checked.

        Args:
            processes: how many the run has; they share the batch.

        Raises:
            TypeError: a setting of another type.
            ValueError: a setting out of range; names it, what was given and what is allowed.
        """
        given = checked(self)
        given = dataclasses.replace(given, device=choose_device(given.device))
        values = given.from_preset(processes)
        resolved = dataclasses.replace(given, **{k: v for k, v in values.items() if getattr(given, k) in (None, AUTO)})
        resolved.check_together(processes)
        return resolved

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open, ``batch`` and ``kimg`` among them."""
        raise NotImplementedError

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        if self.batch % processes:
            raise ValueError(f"batch must be divisible among {processes} processes; got {self.batch}")
        if self.share(processes) % self.chunk_of(processes):
            raise ValueError(
                f"micro_batch must divide the batch of {self.share(processes)}{' per process' * (processes > 1)}; "
                f"got {self.micro_batch}"
            )

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings, of resolved ones: {why: names}; why follows "does nothing"."""
        return {}

    @property
    def total(self) -> int:
        """How many real images a resolved run shows: ``kimg`` thousand, rounded up to whole batches."""
        return math.ceil(max(1, round(self.kimg * 1000)) / self.batch) * self.batch

    def share(self, processes: int) -> int:
        """How many samples of a step a process computes."""
        return self.batch // processes

    @staticmethod
    def shareable(batch: int, processes: int) -> int:
        """The most images of a batch that processes share evenly; one for each where it has fewer."""
        return max(processes, batch - batch % processes)

    def chunk_of(self, processes: int) -> int:
        """How many samples a process computes at once."""
        return min(self.chunk, self.share(processes))

    @property
    def chunk(self) -> int:
        """How many samples run at once: the micro-batch if it is set, else the batch."""
        return self.micro_batch or self.batch


@dataclass(frozen=True)
class _PictureSet(_Places):
    channels: int = setting(3, "Data", "1 for gray, 3 for RGB, 4 for RGBA.", allowed=Choice((1, 3, 4)))
    mirror: bool = setting(False, "Data", "Show each picture flipped left to right as well.")
    labels: str = setting(
        "file",
        "Data",
        "Classes: file takes those of dataset.json, or of a free set; folders makes one of each subfolder; or none.",
        allowed=Choice(("file", "folders", "none")),
    )


@dataclass(frozen=True)
class GeneratorConfig(RunConfig, _PictureSet):
    """Settings of the recipes whose networks make pictures like those of a dataset from random numbers."""

    changeable: ClassVar[tuple[str, ...]] = (
        *RunConfig.changeable,
        "metrics",
        "metrics_kimg",
        "metrics_samples",
        "metrics_weights",
    )
    encoders: ClassVar[tuple[str, ...]] = ("metrics_weights",)

    ema_snapshot_kimg: float | None = setting(
        None,
        "Reports",
        "Keep averages for imgops ema, written every so many thousand images.",
        "none are kept",
        allowed=KIMG,
        kw_only=True,
    )
    metrics: str | None = setting(
        None,
        "Metrics",
        "Distances of samples from the data, several by commas: fd (Fréchet), swd (sliced Wasserstein).",
        "none",
        kw_only=True,
    )
    metrics_kimg: float = setting(
        50.0, "Metrics", "They are measured every so many thousand images.", allowed=KIMG, kw_only=True
    )
    metrics_samples: int = setting(
        10_000, "Metrics", "How many samples are compared.", allowed=Bounds(2, most=10**7), kw_only=True
    )
    metrics_weights: str | None = setting(
        None,
        "Metrics",
        "Encoder whose features are compared: a file, or a name such as embedded or efficientnet-lite2.",
        "efficientnet-lite2 where installed, else embedded",
        kw_only=True,
    )

    def __post_init__(self) -> None:
        # labels used to be true or false
        object.__setattr__(self, "labels", _plain({"labels": self.labels})["labels"])

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        self.check_resolution()
        if self.metrics is not None:
            parse_metrics(self.metrics)
        super().check_together(processes)

    def check_resolution(self) -> None:
        """Raise ValueError unless the networks can make pictures of this shape."""
        check_grown("resolution", self.resolution)

    def idle(self) -> dict[str, tuple[str, ...]]:
        """What does nothing beside the other settings: how to measure, where nothing is measured."""
        measuring = ("metrics_kimg", "metrics_samples", "metrics_weights")
        return {**super().idle(), "without --metrics": () if self.metrics else measuring}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that were read from JSON, which has lists for tuples; older files have true or false for labels."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if isinstance(values.get("labels"), bool):
        values["labels"] = "file" if values["labels"] else "none"
    return values
