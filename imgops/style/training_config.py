"""Settings of the recipes of networks for style transfer: ``imgops train --recipe style-fast`` and ``style-adain``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from .._settings import NETWORKS, Choice, same_as, setting
from ..training.config import KIMG, RunConfig
from .settings import TransferSettings
from .training_settings import (
    BLOCKS,
    CROP,
    WIDTHS,
    AdaINLearning,
    AdaINTraining,
    FastLearning,
    FastTraining,
    Learning,
    Training,
)

Style = TypeVar("Style", bound="StyleConfig")
_BY_PRESET = "by the preset"
#: what the preset tiny says: small crops, few of them
_TINY: dict[str, Any] = {"resolution": 64, "batch": 2, "kimg": 0.4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(RunConfig):
    """Settings of the recipes that train one network on random crops, and write it to a file of its own."""

    changeable: ClassVar[tuple[str, ...]] = (*RunConfig.changeable, "network")
    own: ClassVar[tuple[str, ...]] = ("network",)
    for_memory: ClassVar[str] = "--batch or --resolution"

    resolution: int = setting(None, "Data", "Side of the crops in pixels.", _BY_PRESET, allowed=CROP)
    workers: int = same_as(Training, "workers", panel="Data", help="Threads that prepare crops.")
    # losses are relative to the mean of a batch, so that it is not divided
    micro_batch: int = setting(None)
    network: str | None = setting(
        None, "Run", "The file of the trained network, NAME.safetensors.", "network.safetensors in --out"
    )
    preset: str = setting(
        "auto", "Run", "What the settings are that no option gives: auto or tiny.", allowed=Choice(("auto", "tiny"))
    )
    precision: str = same_as(Learning, "precision")

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        if self.network is not None and not self.network.endswith(".safetensors"):
            raise ValueError(f"network must end in .safetensors; got {self.network}")
        if self.chunk_of(processes) != self.share(processes):
            raise ValueError(
                f"micro_batch must be the whole share of a process, {self.share(processes)}, as losses are relative to "
                f"the mean of a batch; got {self.micro_batch}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleConfig(NetworkConfig, Learning):
    """Settings that both recipes have.

    Attributes:
        usual: the settings of a training of its own that the preset "auto" follows.
    """

    changeable: ClassVar[tuple[str, ...]] = (*NetworkConfig.changeable, "weights", "preprocessing")
    encoders: ClassVar[tuple[str, ...]] = ("weights",)
    usual: ClassVar[Training]

    data: str = setting(
        dataclasses.MISSING,
        "Data",
        "Folder of pictures, or samples: for the free pictures and textures that come along.",
        "unless --resume",
        kw_only=False,
    )
    weights: str = same_as(TransferSettings, "weights", help="Encoder: default, a file, or vgg16.")
    preprocessing: str | None = same_as(TransferSettings, "preprocessing")

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open."""
        usual = self.usual
        published = {"resolution": usual.size, "batch": usual.batch, "kimg": usual.steps * usual.batch / 1000}
        return published | (_TINY if self.preset == "tiny" else {})

    def check_together(self, processes: int) -> None:
        """Raise ValueError where settings do not go together."""
        super().check_together(processes)
        self.check_weights()

    def changed(self: Style, given: Mapping[str, Any]) -> Style:
        """As of all recipes; the length, from which the rates follow where they fall, cannot change then."""
        kimg = given.get("kimg", self.kimg)
        if self.lr_end != 1 and kimg != self.kimg:
            raise ValueError(
                f"kimg cannot change when a run with an lr_end is continued, as its rates follow from it; it is "
                f"{self.kimg:g}, got {kimg}"
            )
        return super().changed(given)

    def rate(self, step: int) -> float:
        """Adam's rate at a step, from 0."""
        return self.rate_of(step, self.total // self.batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastStyleConfig(FastLearning, StyleConfig):
    """Settings of the recipe style-fast, a network that paints any picture in one style (Johnson et al. 2016).

    The help of each field says what it is; ``imgops train --recipe style-fast --help`` prints them all.
    """

    recipe = "style-fast"
    about = """Train a network that paints any picture in one style, in one pass.

    Example: imgops train --recipe style-fast --style samples:coffee --data FOLDER --out runs/coffee

    Then: imgops style PICTURE runs/coffee/network.safetensors --method fast. imgops style train-fast does the same for
    a network in one file.
    """
    changeable: ClassVar[tuple[str, ...]] = (*StyleConfig.changeable, "style")
    usual = FastTraining()

    style: str = setting(dataclasses.MISSING, "Data", "The picture whose style the network learns.", "unless --resume")
    widths: tuple[int, int, int] = setting(None, NETWORKS, "Channels of the network's three sizes.", _BY_PRESET)
    blocks: int = setting(None, NETWORKS, "Residual blocks of the network.", _BY_PRESET)

    def from_preset(self, processes: int) -> dict[str, Any]:
        """What the preset says of the settings that may be left open."""
        network = (
            {"widths": (8, 16, 32), "blocks": 1} if self.preset == "tiny" else {"widths": WIDTHS, "blocks": BLOCKS}
        )
        return super().from_preset(processes) | network


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaINStyleConfig(AdaINLearning, StyleConfig):
    """Settings of the recipe style-adain, a decoder that gives any picture the style of any other (Huang and Belongie
    2017).

    The help of each field says what it is; ``imgops train --recipe style-adain --help`` prints them all.
    """

    recipe = "style-adain"
    about = """Train a decoder that gives any picture the style of any other, in one pass.

    Example: imgops train --recipe style-adain --data PHOTOS --styles PAINTINGS --out runs/adain

    Then: imgops style PICTURE STYLE --method adain --decoder runs/adain/network.safetensors. imgops style train-adain
    does the same for a decoder in one file.
    """
    changeable: ClassVar[tuple[str, ...]] = (*StyleConfig.changeable, "styles", "loss_weights")
    encoders: ClassVar[tuple[str, ...]] = ("weights", "loss_weights")
    usual = AdaINTraining()

    styles: str = setting("samples:", "Data", "Folder of pictures to take styles from, or samples:.")
    weights: str = same_as(
        TransferSettings, "weights", help="Encoder: embedded, the default; efficientnet-lite2; or as of imgops style."
    )
    loss_weights: str | None = setting(
        None, NETWORKS, "Another encoder for the losses, as efficientnet-lite2.", "the one that is decoded"
    )


def of_training(settings: Training, config: type[StyleConfig], **more: Any) -> StyleConfig:
    """The settings of a recipe that say what those of a training of its own say.

    Args:
        settings: of the training.
        config: the class of the recipe's settings.
        more: what the training's have no names for, ``data`` and ``out`` among them.

    Raises:
        ValueError: more images than a run may have.
    """
    names = {field.name for field in dataclasses.fields(config)}
    same = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name in names}
    images, saved = settings.steps * settings.batch, settings.save_every * settings.batch / 1000
    if images > KIMG.most * 1000:
        raise ValueError(f"steps times batch must be at most {KIMG.most * 1000:,}; got {images:,}")
    pace = {"kimg": images / 1000, "checkpoint_kimg": min(saved, KIMG.most), "grid_kimg": min(saved, KIMG.most)}
    return config(**{**same, **pace, "resolution": settings.size, **more})
