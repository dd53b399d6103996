"""What recipes have in common that make a code of a picture, and the picture of the code."""

from __future__ import annotations

import contextlib
import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..._optimizer_state import load_optimizer_tensors, optimizer_tensors
from ...models.encoders.weights import load_encoder
from ...nn import PerceptualLoss
from .._data import Pictures, RunData
from ..config import RunConfig
from ..ema import PowerAverages, update_average
from ..grid import COLUMNS, ROWS, image_grid, seeded_classes, seeded_samples, to_uint8
from ..losses import ema_decay
from ..processes import Processes
from ._base import Moment
from ._generator import GeneratorRecipe
from ._parts import Part, parts_of
from ._reconstruction_config import ReconstructionConfig

#: samples that are made at once
SAMPLED = 32
#: layers of which perceptual loss compares the features: of a VGG, as the one that ships, and of an EfficientNet-Lite
PERCEIVED = ("relu1_2", "relu2_2", "relu3_2"), ("conv_stem", "blocks_2", "blocks_5")


class Losses(NamedTuple):
    """What a step has computed of a part of the batch.

    Attributes:
        parts: by name, the losses whose sum is minimized.
        error: the mean squared error of reproductions, of values from -1 to 1.
        measured: what is reported beside them.
        watched: what :meth:`ReconstructionRecipe.follow` gets, averaged over the batch.
    """

    parts: dict[str, Tensor]
    error: Tensor
    measured: Mapping[str, Tensor] | None = None
    watched: Tensor | None = None


class ReconstructionRecipe(GeneratorRecipe):
    """A network, its running average, and one optimizer.

    Attributes:
        net, net_ema: the networks; net_ema is in eval mode.
        optimizers: of net, by its name.
    """

    config: ReconstructionConfig
    result, trained = "net_ema", "net"
    remedy = "begin a new run with --init and the last checkpoint, and a lower learning rate"

    def __init__(
        self, config: RunConfig, labels: Tensor | None, class_names: Sequence[str], processes: Processes
    ) -> None:
        assert isinstance(config, ReconstructionConfig)
        self.config, self.processes = config, processes
        self.device = torch.device(config.device)
        self.labels = None if labels is None else labels.to(self.device)
        self.c_dim = 0 if labels is None else int(labels.max()) + 1
        self.net: Any = self.finished(config, self.c_dim).to(self.device)
        self.net_ema: Any = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.networks = {"net": self.net, "net_ema": self.net_ema}
        self.averages_kimg = config.ema_snapshot_kimg
        self.averages = PowerAverages(self.net) if config.ema_snapshot_kimg else None
        self.perceptual = self._perceptual() if config.reconstruction == "perceptual" else None
        self.optimizers = {"net": self._optimizer()}

    def _perceptual(self) -> PerceptualLoss:
        name = self.config.perceptual_weights or "embedded"
        encoder = load_encoder(name).to(self.device).eval().requires_grad_(False)
        for layers in PERCEIVED:
            with contextlib.suppress(ValueError):
                return PerceptualLoss(encoder, layers, "l1")
        raise ValueError(f"perceptual_weights must name a VGG or an EfficientNet-Lite; got {name!r}")

    def _optimizer(self) -> torch.optim.Optimizer:
        config, parameters = self.config, list(self.net.parameters())
        if config.optimizer == "sgd":
            return torch.optim.SGD(parameters, config.lr, config.beta1)
        return torch.optim.Adam(parameters, config.lr, (config.beta1, config.beta2), fused=True)

    @abstractmethod
    def losses(self, part: Part) -> Losses:
        """The losses of a part of the batch."""

    def follow(self, watched: Tensor) -> None:
        """Called after each step, with what was watched, averaged over the batch."""

    def compare(self, raw: Tensor, x: Tensor) -> Tensor:
        """How far pictures [N, C, H, W] are from reproductions, as a mean over all values.

        Args:
            raw: what the decoder made; of cross-entropy logits.
            x: the pictures, from -1 to 1.
        """
        kind = self.config.reconstruction
        if kind == "cross-entropy":
            return F.binary_cross_entropy_with_logits(raw, (x + 1) / 2)
        if kind == "l1":
            return F.l1_loss(raw, x)
        loss = F.mse_loss(raw, x)
        if self.perceptual is None:
            return loss
        # the encoder sees RGB from 0 to 1
        made, wanted = (_as_rgb((images + 1) / 2) for images in (raw, x))
        return loss + self.config.perceptual_weight * self.perceptual(made, wanted)

    def state(self) -> dict[str, Tensor]:
        """The optimizer's, and the averages that are kept for later."""
        return {**optimizer_tensors(self.optimizers["net"], "net"), **self.averages_state()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        load_optimizer_tensors(self.optimizers["net"], "net", tensors)
        self.load_averages(tensors)

    def state_bytes(self) -> int:
        """The size of the optimizer's moments, and of the averages that are kept for later."""
        moments = (2 if self.config.optimizer == "adam" else 1) * sum(p.nbytes for p in self.net.parameters())
        return moments + sum(t.nbytes for t in self.averages_state().values())

    def step(self, real: Tensor, labels: Tensor, moment: Moment) -> dict[str, Tensor]:
        """A step of the optimizer, and of the average.

        Returns:
            loss_total, each loss, as loss_reconstruction, and psnr, of reproductions in dB.
        """
        config = self.config
        parts = parts_of(self, real, labels, moment)
        measured: dict[str, list[Tensor]] = {}
        watched = []
        for part in parts:
            losses = self.losses(part)
            total = torch.stack(list(losses.parts.values())).sum()
            (total / len(parts)).backward()
            of_loss = {f"loss_{name}": value for name, value in {"total": total, **losses.parts}.items()}
            for name, value in {**of_loss, **(losses.measured or {}), "error": losses.error}.items():
                measured.setdefault(name, []).append(value.detach())
            if losses.watched is not None:
                watched.append(losses.watched.detach())
        if watched:
            followed = [torch.stack(watched).mean(0)]
            self.processes.average_(followed)
            self.follow(*followed)
        self.processes.average_([p.grad for p in self.net.parameters() if p.grad is not None])
        self.optimizers["net"].step()
        self.optimizers["net"].zero_grad(set_to_none=True)
        update_average(
            self.net_ema, self.net, ema_decay(config.batch, moment.seen, config.ema_kimg, config.ema_rampup or None)
        )
        if self.averages is not None:
            self.averages.update(self.net, moment.seen + config.batch)
        found = {name: torch.stack(values).mean() for name, values in measured.items()}
        error = found.pop("error")
        return {**found, "psnr": psnr(error)}

    def samples(self, seeds: Sequence[int], label: int | None = None) -> Tensor:
        """Pictures of codes that are drawn by their seeds."""
        self.before_saving()
        return seeded_samples(self.net_ema, seeds, label, batch=SAMPLED)

    def drawn(self, seeds: Sequence[int]) -> Tensor:
        """Samples of classes that are as frequent as in the data."""
        self.before_saving()
        classes = None if self.labels is None else seeded_classes(seeds, self.c_dim, self.labels.cpu())
        return seeded_samples(self.net_ema, seeds, classes, batch=len(seeds))

    @torch.no_grad()
    def sheet(self, data: RunData) -> Image.Image:
        """Pictures of the data, what becomes of them, and samples."""
        assert isinstance(data, Pictures)
        self.before_saving()
        places = [round(i * (len(data.dataset) - 1) / max(1, COLUMNS - 1)) for i in range(COLUMNS)]
        found = [data.dataset[place] for place in places]
        real = torch.stack([image for image, _ in found])
        x = real.to(self.device).float() / 127.5 - 1
        c = None
        if self.c_dim:
            c = F.one_hot(torch.tensor([label for _, label in found]), self.c_dim).to(x)
        made = to_uint8(self.net_ema.reconstruct(x, c))
        classes = None if self.labels is None else seeded_classes(range(COLUMNS * ROWS), self.c_dim, self.labels.cpu())
        samples = seeded_samples(self.net_ema, range(COLUMNS * ROWS), classes, batch=SAMPLED)
        rows = ["pictures", "reproduced", *(["samples"] + [""] * (ROWS - 1))]
        return image_grid(torch.cat([real, made, samples]), COLUMNS, rows)


def psnr(error: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB of a mean squared error, of values from -1 to 1."""
    return 10 * torch.log10(4 / error.clamp(min=1e-12))


def _as_rgb(x: Tensor) -> Tensor:
    """Pictures of one, three or four channels as three; transparency is laid over white."""
    if x.shape[1] == 4:
        return x[:, :3] * x[:, 3:] + (1 - x[:, 3:])
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
