"""The recipes of the networks for style transfer: one for a style, and a decoder for any style."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from ..data.datasets.crops import RandomCrops
from ..data.pictures import resize_picture
from ..data.pictures.samples import SAMPLES
from ..models.encoders.probing import layers_by_stride
from ..models.encoders.vgg import VGG
from ..models.encoders.weights import load_encoder
from ..models.style.adain_decoder import AdaINDecoder
from ..models.style.transform_net import TransformNet
from ..nn import Features, TotalVariation
from ..nn.convolving import picture_format
from ..ops.adain import adain
from ..training._data import DataRecord, RunData, check_apart
from ..training.config import RunConfig
from ..training.grid import COLUMNS, ROWS, image_grid
from ..training.processes import Processes
from ..training.recipes._base import Moment
from ._losses import AdaINLosses, FastLosses, PaperLosses, PerceptualLosses, floats, weighted
from ._network_recipe import NetworkRecipe, image_bytes
from .pictures import read_style
from .training_config import AdaINStyleConfig, FastStyleConfig, StyleConfig

Network = TypeVar("Network", bound=nn.Module)
#: channels at the full size of a decoder for another encoder than a VGG; half the size has twice as many
NARROWEST = 32
#: of the samples, the share of crops of textures among contents and among styles of a decoder
OF_TEXTURES = 0.2, 0.7


class Crops(RunData):
    """Random crops of one or several sources, each float32 [n, 3, size, size] of a batch.

    Args:
        config: of the run.
        sources: which crops are taken, by what they are for.
    """

    def __init__(self, config: StyleConfig, sources: Mapping[str, RandomCrops]) -> None:
        self.config, self.sources = config, sources

    def describe(self) -> str:
        """Each source's description, with what it is for where there are several."""
        several = len(self.sources) > 1
        return "; ".join(f"{use} " * several + source.describe() for use, source in self.sources.items())

    def record(self) -> DataRecord:
        """The names of the files."""
        names = []
        for source in self.sources.values():
            # of a folder relative to it, so that it may be moved
            paths = source.paths
            names += sorted(SAMPLES) if paths is None else [str(path.relative_to(source.name)) for path in paths]
        return DataRecord(len(names), names, None, [])

    def batches(self, start: int, processes: Processes) -> Iterator[tuple[Tensor, ...]]:
        """Threads prepare the next ones."""
        config = self.config
        first = start // config.batch
        return zip(
            *(
                source.batches(config.batch, first, config.workers, processes.rank, processes.count)
                for source in self.sources.values()
            ),
            strict=True,
        )

    def imagined(self, count: int) -> tuple[Tensor, ...]:
        """Random pixels."""
        side = self.config.resolution
        return tuple(torch.rand(count, 3, side, side) for _ in self.sources)

    def shown(self) -> tuple[Tensor, ...]:
        """The first crops of each source, as many as a sheet has columns."""
        return tuple(torch.stack([source[i] for i in range(COLUMNS)]) for source in self.sources.values())

    def sheet(self) -> Image.Image:
        """The first crops, of several sources a row of each in turn."""
        sources = list(self.sources.values())
        rows = [sources[row % len(sources)] for row in range(ROWS)]
        crops = [source[i + COLUMNS * (row // len(sources))] for row, source in enumerate(rows) for i in range(COLUMNS)]
        labels = [list(self.sources)[row % len(sources)] for row in range(ROWS)] if len(sources) > 1 else []
        return image_grid(image_bytes(torch.stack(crops)), COLUMNS, labels)


@dataclasses.dataclass(frozen=True)
class Given:
    """What a call in Python gives in place of files.

    Attributes:
        encoder: whose features the losses are on.
        style, style_mask: of a network of one style.
        loss_encoder: of a decoder, another one for the losses.
        on_skip: called with each picture that cannot be read.
    """

    #: what stands in the place of a file's name where something is given
    NAME: ClassVar[str] = ""

    encoder: nn.Module
    style: Tensor | None = None
    style_mask: Tensor | None = None
    loss_encoder: nn.Module | None = None
    on_skip: Callable[[str], None] | None = None


class StyleRecipe(NetworkRecipe):
    """A network whose losses are in the features of an encoder that stays as it is.

    Attributes:
        given: what stands in the place of files; None: nothing does.
        compared: the digest of the tensors that say what it is trained for; a run is continued with the same alone.
        picture: a crop and what became of it in the last step, side by side, [3, H, 2 W] or more.
    """

    given: ClassVar[Given | None] = None
    config: StyleConfig
    compared: Tensor
    picture: Tensor

    @classmethod
    def of(cls: type[Style], given: Given) -> type[Style]:
        """The recipe with what is given in Python."""
        return type(cls.__name__, (cls,), {"given": given})

    @abstractmethod
    def paint(self, *crops: Tensor) -> Tensor:
        """What the network makes of crops."""

    @abstractmethod
    def losses_and_result(self, crops: Sequence[Tensor], moment: Moment) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted losses of a batch, by name, and the pictures that the network made of it."""

    def losses(self, crops: Sequence[Tensor], moment: Moment) -> dict[str, Tensor]:
        """The weighted losses of a batch, by name."""
        parts, made = self.losses_and_result(crops, moment)
        self.picture = torch.cat([*(x[-1] for x in crops), made[-1].detach().clamp(0, 1)], 2)
        return parts

    def encoder(self, name: str, given: nn.Module | None, preprocessing: str | None = None) -> nn.Module:
        """An encoder as it is used here: a copy of the one that was given, or the one that a setting names."""
        if given is None:
            weights = getattr(self.config, name)
            if weights == Given.NAME:
                raise _given_before(name)
            given = load_encoder(weights, preprocessing=preprocessing, frame=False)
        encoder = copy.deepcopy(given).eval().requires_grad_(False).to(self.device)
        return encoder.to(memory_format=picture_format(encoder, self.device))  # type: ignore[call-overload, no-any-return]

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.network.parameters(), lr=self.config.rate(0))

    def set_rate(self, step: int) -> None:
        """Adam's rate at a step, from 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(step)

    def state(self) -> dict[str, Tensor]:
        """The optimizer's, and a digest of what the network is trained for."""
        return {"compared": self.compared, **super().state()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave.

        Raises:
            ValueError: the run has another encoder or style.
        """
        if not torch.equal(tensors["compared"], self.compared):
            raise ValueError("the encoder or the style is another one")
        super().load_state(tensors)

    @torch.no_grad()
    def sheet(self, data: RunData) -> Image.Image:
        """Crops that are always the same, and below them what becomes of them."""
        assert isinstance(data, Crops)
        shown = data.shown()
        # one after another, as a sheet must not need more memory than a step
        made = torch.cat([self.paint(*(self.laid_out(x[i : i + 1]) for x in shown)) for i in range(COLUMNS)])
        rows = torch.cat([*shown, made.float().cpu()])
        return image_grid(image_bytes(rows), COLUMNS, [*data.sources, "result"])


Style = TypeVar("Style", bound=StyleRecipe)


class FastStyle(StyleRecipe):
    """A network that paints any picture in one style (Johnson et al. 2016)."""

    config: FastStyleConfig
    network: TransformNet

    @classmethod
    def open_data(cls, config: RunConfig) -> Crops:
        """Open the pictures to paint."""
        assert isinstance(config, FastStyleConfig)
        return Crops(config, {"content": _crops(config, config.data, config.seed, cls.given)})

    def prepare(self) -> None:
        """The encoder, and the style as it sees it."""
        given, config = self.given, self.config
        if given is not None and given.style is not None:
            style, mask = given.style, given.style_mask
        elif config.style == Given.NAME:
            raise _given_before("style")
        else:
            picture = read_style(config.style)
            style, mask = picture.pixels, picture.alpha
        encoder = self.encoder("weights", given.encoder if given else None, config.preprocessing)
        config = config.of_encoder(encoder)
        self.compared = _digest([style, *([] if mask is None else [mask]), *encoder.state_dict().values()])
        shown = style if config.style_size is None else resize_picture(style, config.style_size)
        self.compare = FastLosses(encoder, config, shown.to(self.device), mask, self.processes.average_)

    def build(self) -> TransformNet:
        """The network, with a first output around mid-gray."""
        return _gray(TransformNet(self.config.widths, self.config.blocks))

    def paint(self, *crops: Tensor) -> Tensor:
        """The crops in the style."""
        return self.network(*crops)  # type: ignore[no-any-return]

    def losses_and_result(self, crops: Sequence[Tensor], moment: Moment) -> tuple[dict[str, Tensor], Tensor]:
        """Johnson's losses."""
        (x,) = crops
        y = self.paint(x).float()
        return self.compare(x, y), y


class AdaINStyle(StyleRecipe):
    """A decoder that gives any picture the style of any other (Huang and Belongie 2017)."""

    config: AdaINStyleConfig
    network: AdaINDecoder

    @classmethod
    def open_data(cls, config: RunConfig) -> Crops:
        """Open the contents and the styles."""
        assert isinstance(config, AdaINStyleConfig)
        # another seed, as contents and styles would otherwise be the same crops
        sources = {
            "content": _crops(config, config.data, 2 * config.seed, cls.given, OF_TEXTURES[0]),
            "style": _crops(config, config.styles, 2 * config.seed + 1, cls.given, OF_TEXTURES[1]),
        }
        return Crops(config, sources)

    def prepare(self) -> None:
        """The encoder that is decoded, and what the losses are on."""
        given, config = self.given, self.config
        encoder = self.encoder("weights", given.encoder if given else None, config.preprocessing)
        layers = _decoded_layers(encoder, config.block)
        self.decoded, self.deepest, self.only = layers, layers[-1], Features(encoder, [layers[-1]])
        self.smoothness = TotalVariation()
        compared = list(encoder.state_dict().values())
        self.compare: AdaINLosses
        if config.loss_weights is None:
            self.compare = PaperLosses(encoder, layers, config.relative, self.processes.average_)
        else:
            other = self.encoder("loss_weights", given.loss_encoder if given else None)
            compared += other.state_dict().values()
            self.compare = PerceptualLosses(other, self.processes.average_)
        self.compared = _digest(compared)

    def build(self) -> AdaINDecoder:
        """The decoder, of weights that keep the size of what passes."""
        return _awake(_decoder(self.only.network, self.decoded, self.config.block))

    def paint(self, *crops: Tensor) -> Tensor:
        """The contents in the styles."""
        x, s = crops
        return self._decoded(x, self.only(s)[self.deepest])[0]

    def _decoded(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Contents in the styles whose features are given, and the features that they were decoded from."""
        with torch.no_grad():
            target = adain(self.only(x)[self.deepest].float(), seen.float())
        return self.network(target, x.shape[2:]).float(), target

    def losses_and_result(self, crops: Sequence[Tensor], moment: Moment) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of content and style, and of those crops that are their own style."""
        config, (x, s) = self.config, crops
        # the first ones of the batch, whichever process has them
        most = max(1, config.batch // 4)
        own = [i for i, image in enumerate(moment.images) if image < most] if config.identity_weight else []
        s[own] = x[own]
        with torch.no_grad():
            wanted = self.compare.of_style(s)
            seen = wanted[self.deepest] if self.deepest in wanted else self.only(s)[self.deepest]
        y, target = self._decoded(x, seen)
        content, style = self.compare(y, x, target, floats(wanted))
        parts = weighted(config, content, style, self.smoothness(y))
        if config.identity_weight:
            parts["identity"] = config.identity_weight * self._difference(x, y, own, most)
        return parts, y

    def _difference(self, x: Tensor, y: Tensor, own: Sequence[int], most: int) -> Tensor:
        """The mean squared difference of the crops ``own``, of which all processes have ``most``."""
        share = self.processes.count / most
        size = x[own].square().mean((1, 2, 3)).sum() * share
        self.processes.average_([size])
        difference = (y[own] - x[own]).square().mean((1, 2, 3)).sum() * share
        return difference / (size.clamp(min=1e-12) if self.config.relative else 1)


def _digest(tensors: Sequence[Tensor]) -> Tensor:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _given_before(name: str) -> ValueError:
    return ValueError(
        f"{name} must be given: this run began in Python, by train_fast or train_adain, with one that has no file; "
        "they continue it"
    )


def _crops(config: StyleConfig, source: str, seed: int, given: Given | None, textures: float = 0.5) -> RandomCrops:
    if Path(source).is_dir():
        check_apart(config.out, source)
    on_skip = None if given is None else given.on_skip
    return RandomCrops(source, config.resolution, zoom=config.zoom, textures=textures, seed=seed, on_skip=on_skip)


def _decoded_layers(encoder: nn.Module, block: int) -> list[str]:
    """The layers that the paper's losses compare, the last of which is decoded: of a VGG the first ReLU of each block,
    of another encoder the last layer of each stride up to that block's.

    Raises:
        ValueError: it has no layer of that stride.
    """
    if isinstance(encoder, VGG):
        return [f"relu{i}_1" for i in range(1, block + 1)]
    found, stride = layers_by_stride(encoder), 2 ** (block - 1)
    if stride not in found:
        raise ValueError(
            f"train_adain: block {block} needs a layer of stride {stride}; {type(encoder).__name__} has "
            f"{', '.join(f'{name} of {key}' for key, name in found.items()) or 'none'}"
        )
    return [name for key, name in found.items() if key <= stride]


def _decoder(encoder: nn.Module, layers: Sequence[str], block: int) -> AdaINDecoder:
    """The decoder of the last of these layers."""
    if isinstance(encoder, VGG):
        return AdaINDecoder(encoder.blocks, widths=encoder.widths[:block])
    like = next(encoder.parameters())
    channels = Features(encoder, layers[-1:])(like.new_zeros(1, 3, 64, 64))[layers[-1]].shape[1]
    # the channels within other encoders are too few to paint with
    widths = [NARROWEST * 2**i for i in range(block - 1)]
    return AdaINDecoder([2] * (block - 1), widths=[*widths, channels], layer=layers[-1])


def _gray(network: TransformNet) -> TransformNet:
    """The network with a first output around mid-gray, in units of 0 to 255, that Adam would take long to reach."""
    last = network.deconv3.conv2d
    assert last.bias is not None
    with torch.no_grad():
        last.weight.mul_(30)
        last.bias.fill_(127.5)
    return network


def _awake(decoder: AdaINDecoder) -> AdaINDecoder:
    """The decoder with weights that keep the size of what passes, and a first output around mid-gray."""
    convolutions = [layer for layer in decoder if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for conv in convolutions:
            nn.init.kaiming_normal_(conv.weight)
            assert conv.bias is not None
            conv.bias.fill_(0.5 if conv is convolutions[-1] else 0)
        convolutions[-1].weight.mul_(0.1)
    return decoder
