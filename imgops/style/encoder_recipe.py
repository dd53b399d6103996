"""The recipe of the encoder that ships with the package, which is distilled (Hinton et al. 2015).

A small VGG learns to predict, by a linear map from the last ReLU of each of its blocks, the features of
EfficientNet-Lite2 at five depths, and from the mean of its last the classes that it sees. Both see the same strongly
changed crops, and blends of two (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and
consistent"). The convolutions are trained with batch normalization, which is then folded into them, and each channel is
scaled to a mean activation of 1 (Gatys et al. 2015).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..models.encoders.classes import class_names
from ..models.encoders.vgg import VGG
from ..models.encoders.weights import load_encoder
from ..nn import Features
from ..training._data import RunData
from ..training.config import RunConfig
from ..training.recipes._base import Moment
from ._network_recipe import NetworkRecipe
from .encoder_config import EncoderConfig
from .encoder_data import Views

#: the network: convolutions and channels of each block
BLOCKS, WIDTHS = (2, 2, 2, 2, 2), (24, 48, 96, 192, 256)
#: whose features it learns to predict, and each predicted layer with the layer that it is predicted from
TEACHER = "efficientnet-lite2"
LAYERS = {"conv_stem": "relu2_2", "blocks_2": "relu3_2", "blocks_5": "relu4_2", "blocks_8": "relu5_2"} | {
    "blocks_12": "relu5_2"
}
#: the kinds of views (:meth:`Views.view`) that the teacher's statistics and the scales of channels are measured on, how
#: many, of the latter four times as many, and how many at once
_STATISTICS, _SCALES, _MEASURED, AT_ONCE = 1, 2, 128, 8


class DistilledEncoder(NetworkRecipe):
    """The encoder: a student, which has maps to what it learns to predict, and the network that becomes of it.

    Batches are normalized in each process by its own share, and the first one's running statistics count.

    Attributes:
        student: that is trained.
        teacher: whose features it learns to predict.
    """

    config: EncoderConfig
    student: Student

    @classmethod
    def open_data(cls, config: RunConfig) -> Views:
        """Read the pictures."""
        assert isinstance(config, EncoderConfig)
        return Views(config)

    def prepare(self) -> None:
        """The teacher."""
        self.teacher = Teacher(self.device)

    def build(self) -> nn.Module:
        """The student."""
        self.student = Student(trainable(new_network()), self.teacher.channels, len(class_names()))
        return self.student

    def networks_of(self, trained: nn.Module) -> dict[str, nn.Module]:
        """The student, and the network in half precision, which :meth:`before_saving` makes of it."""
        return {"student": trained, self.result: new_network().half().to(self.device).requires_grad_(False)}

    def take(self, data: RunData) -> None:
        """Measure the teacher's features."""
        assert isinstance(data, Views)
        self.views = data
        self.teacher.measure(self.laid_out(x) for x in self._batches(_STATISTICS, _MEASURED))

    def _batches(self, kind: int, count: int) -> Iterator[Tensor]:
        """So many views of a kind that is not trained on, some at a time."""
        for first in range(0, count, AT_ONCE):
            yield torch.stack([self.views.view(first + i, kind) for i in range(AT_ONCE)])

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.network.parameters(), lr=self.config.lr, weight_decay=0.02)

    def set_rate(self, step: int) -> None:
        """One cycle (Smith and Topin 2017)."""
        lr, beta1 = one_cycle(step, self.config.total // self.config.batch, self.config.lr)
        for group in self.optimizer.param_groups:
            group["lr"], group["betas"] = lr, (beta1, group["betas"][1])

    def losses(self, crops: Sequence[Tensor], moment: Moment) -> dict[str, Tensor]:
        """Of each layer, and of the classes."""
        (x,) = crops
        with torch.autocast(self.device.type, enabled=False):
            wanted = self.teacher(x)
        return differences(self.student(x), wanted)

    def sheet(self, data: RunData) -> Image.Image | None:
        """None, as it makes no pictures."""
        return None

    def before_saving(self) -> None:
        """Fold the normalization of a copy of the student into its convolutions."""
        body = trainable(new_network())
        body.load_state_dict(self.student.features.network.state_dict())
        network = folded(body, self._batches(_SCALES, 4 * _MEASURED))
        self.networks[self.result].load_state_dict(network.state_dict())


def one_cycle(step: int, steps: int, lr: float) -> tuple[float, float]:
    """Learning rate and beta1 of a step, from 0, as :class:`torch.optim.lr_scheduler.OneCycleLR` has them by default,
    but with a tenth of the way up. They follow from the step alone, so that a run can be continued anywhere."""
    up = max(0.1 * steps - 1, 1e-9)
    if step <= up:
        low, high, share = (lr / 25, 0.95), (lr, 0.85), step / up
    else:
        low, high, share = (lr, 0.85), (lr / 25e4, 0.95), (step - up) / max(steps - 1 - up, 1e-9)
    place = (1 - math.cos(math.pi * min(share, 1.0))) / 2
    return low[0] + (high[0] - low[0]) * place, low[1] + (high[1] - low[1]) * place


def trainable(network: VGG) -> nn.Sequential:
    """The network with batch normalization after every convolution."""
    layers: list[tuple[str, nn.Module]] = []
    for name, layer in network.named_children():
        layers.append((name, layer))
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            layers.append((name.replace("conv", "norm"), nn.BatchNorm2d(layer.out_channels)))
    result = nn.Sequential()
    for name, layer in layers:
        result.add_module(name, layer)
    return result


class Teacher:
    """The features of :data:`LAYERS`, each channel with mean 0 and variance 1 over the pictures given, and the
    logarithms of the probabilities of ImageNet's classes."""

    def __init__(self, device: torch.device | None = None) -> None:
        network = load_encoder(TEACHER, classifier=True).to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features = Features(network, [*LAYERS, "classifier"])
        #: mean and standard deviation of each channel, by layer
        self.statistics: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def channels(self) -> dict[str, int]:
        """How many channels each layer has."""
        found = self.features(next(self.features.parameters()).new_zeros(1, 3, 64, 64))
        return {name: found[name].shape[1] for name in LAYERS}

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Take the statistics of the pictures of some batches, all of one size."""
        sums: dict[str, list[Tensor]] = {}
        for x in batches:
            for name, y in self.features(x).items():
                if name in LAYERS:
                    values = y.double()
                    sums.setdefault(name, []).append(
                        torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])
                    )
        for name, moments in sums.items():
            mean, square = torch.stack(moments).mean(0).unbind()
            deviation = (square - mean.square()).clamp(min=0).sqrt()
            self.statistics[name] = mean.float()[:, None, None], deviation.float().clamp(min=1e-3)[:, None, None]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        found = self.features(x)
        logits = found.pop("classifier")
        scaled = {name: (y - self.statistics[name][0]) / self.statistics[name][1] for name, y in found.items()}
        return scaled, logits.log_softmax(1)


class Student(nn.Module):
    """The network that is trained, and the linear maps to what it learns to predict, which are then left out."""

    def __init__(self, body: nn.Sequential, channels: Mapping[str, int], classes: int) -> None:
        super().__init__()
        self.features = Features(body, list(dict.fromkeys(LAYERS.values())))
        inputs = {f"relu{block}_{BLOCKS[block - 1]}": width for block, width in enumerate(WIDTHS, 1)}
        self.maps = nn.ModuleDict({name: nn.Conv2d(inputs[LAYERS[name]], n, 1) for name, n in channels.items()})
        self.classify = nn.Linear(WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        found = self.features(x)
        logits = self.classify(found[LAYERS["blocks_12"]].float().mean((2, 3)))
        return {name: layer(found[LAYERS[name]]).float() for name, layer in self.maps.items()}, logits.log_softmax(1)


def differences(ours: tuple[dict[str, Tensor], Tensor], theirs: tuple[dict[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """For each layer the share of the teacher's variance that is not predicted, and the divergence of the classes."""
    found = {name: F.mse_loss(ours[0][name], y) for name, y in theirs[0].items()}
    return found | {"classes": F.kl_div(ours[1], theirs[1], log_target=True, reduction="batchmean")}


def folded(body: nn.Sequential, batches: Iterator[Tensor]) -> VGG:
    """The trained convolutions with their normalization folded in, scaled to a mean activation of 1 per channel."""
    network = new_network()
    body = body.eval()
    layers = dict(body.named_children())
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d):
            conv, norm = layers[name], layers[name.replace("conv", "norm")]
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            layer.load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())
    network.eval().requires_grad_(False)
    names = [name for name, _ in network.named_children() if name.startswith("relu")]
    features = Features(network, names)
    found = [[y.mean((0, 2, 3)) for y in features(x).values()] for x in batches]
    means = [torch.stack(of_layer).mean(0).clamp(min=1e-3) for of_layer in zip(*found, strict=True)]
    before = torch.ones(3)
    for name, mean in zip(names, means, strict=True):
        conv = network.get_submodule(name.replace("relu", "conv"))
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        conv.weight.mul_(before[:, None, None] / mean[:, None, None, None])
        conv.bias.div_(mean)
        before = mean
    return network


def new_network() -> VGG:
    """The network that ships with the package, untrained."""
    return VGG(BLOCKS, widths=WIDTHS, preprocessing="imagenet")
