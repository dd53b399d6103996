"""One training step, and the state that it updates: networks, optimizers, averages, random numbers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import __version__
from .._optimizer_state import load_optimizer_tensors, optimizer_tensors
from ..models.stylegan2 import Discriminator, Generator
from . import checkpoint as files
from .config import TrainingConfig
from .losses import discriminator_loss, ema_decay, generator_loss, lazy_adam, path_lengths, r1_penalty


class DivergenceError(RuntimeError):
    """A loss or a weight is no longer a finite number."""


class Trainer:
    """Generator, discriminator and the generator's running average, trained step by step.

    Args:
        config: resolved settings.
        labels: int64 [count], the classes of the dataset, from which those of the fakes are drawn; None trains without.
        class_names: a name for each class; empty without classes.

    Attributes:
        G, D, G_ema: the networks; G_ema is in eval mode.
        seen: real images shown so far.
        steps: steps done so far.
        seconds: how long the steps took, without interruptions; set by the caller.
        data: what checkpoints record of the data; set by the caller.
    """

    def __init__(self, config: TrainingConfig, labels: Tensor | None = None, class_names: Sequence[str] = ()) -> None:
        self.config, self.class_names = config, list(class_names)
        self.device = torch.device(config.device)
        self.labels = None if labels is None else labels.to(self.device)
        self.c_dim = 0 if labels is None else int(labels.max()) + 1
        torch.manual_seed(config.seed)
        self.G = Generator(**config.generator_arguments(self.c_dim)).to(self.device)
        self.D = Discriminator(**config.discriminator_arguments(self.c_dim)).to(self.device)
        with torch.no_grad():
            for name, p in self.G.named_parameters():
                if name.endswith("noise_strength"):
                    p.fill_(config.noise_strength)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.pl_mean = torch.zeros([], device=self.device)
        self.seen = self.steps = 0
        self.seconds = 0.0
        self.data: dict[str, Any] | None = None
        self._pl_weight, self._r1_gamma = config.pl_weight or 0.0, config.r1_gamma or 0.0
        self.optimizers = {
            "G": self._adam(self.G, config.g_lr, config.pl_interval if self._pl_weight else None),
            "D": self._adam(self.D, config.d_lr, config.r1_interval if self._r1_gamma else None),
        }

    def _adam(self, network: torch.nn.Module, lr: float, interval: int | None) -> torch.optim.Adam:
        lr, betas = lazy_adam(lr, self.config.beta1, self.config.beta2, interval)
        return torch.optim.Adam(network.parameters(), lr=lr, betas=betas, eps=1e-8, fused=True)

    def step(self, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Show a batch: a step of G, a step of D, their regularizers where it is their turn, and the average.

        Args:
            real: uint8 [batch, C, R, R].
            labels: int64 [batch]; ignored without classes.

        Returns:
            What was measured, as scalar tensors: loss_g, loss_d, logit_real, logit_fake, and where they ran r1 (the
            penalty before its weight) and path_length.
        """
        config = self.config
        real = real.to(self.device, non_blocking=True).float() / 127.5 - 1
        c = None if self.labels is None else self._one_hot(labels.to(self.device, non_blocking=True))
        chunks = len(real) // config.chunk
        reals, cs = real.chunk(chunks), [None] * chunks if c is None else c.chunk(chunks)
        measured: dict[str, list[Tensor]] = {}

        def note(name: str, value: Tensor) -> None:
            measured.setdefault(name, []).append(value.detach())

        self._train_only(self.G)
        for x in reals:
            fake, fake_c, _ = self._generate(len(x), update_w_avg=True)
            loss = generator_loss(self.D(fake, fake_c))
            (loss / chunks).backward()
            note("loss_g", loss)
        self._update("G", self.G)

        if self._pl_weight and self.steps % config.pl_interval == 0:
            for x in reals:
                fake, _, w = self._generate(max(1, len(x) // config.pl_batch_shrink))
                lengths = path_lengths(fake, w)
                self.pl_mean = self.pl_mean.lerp(lengths.detach().mean(), config.pl_decay)
                penalty = (lengths - self.pl_mean).square().mean()
                (penalty * (self._pl_weight * config.pl_interval / chunks)).backward()
                note("path_length", lengths.mean())
            self._update("G", self.G)

        self._train_only(self.D)
        for x, c in zip(reals, cs, strict=True):
            with torch.no_grad():
                fake, fake_c, _ = self._generate(len(x))
            real_logits, fake_logits = self.D(x, c), self.D(fake, fake_c)
            loss = discriminator_loss(real_logits, fake_logits)
            (loss / chunks).backward()
            note("loss_d", loss)
            note("logit_real", real_logits.mean())
            note("logit_fake", fake_logits.mean())
        self._update("D", self.D)

        if self._r1_gamma and self.steps % config.r1_interval == 0:
            for x, c in zip(reals, cs, strict=True):
                x = x.detach().requires_grad_(True)
                penalty = r1_penalty(x, self.D(x, c))
                (penalty * (self._r1_gamma / 2 * config.r1_interval / chunks)).backward()
                note("r1", penalty)
            self._update("D", self.D)

        self._average()
        self.seen += len(real)
        self.steps += 1
        return {name: torch.stack(values).mean() for name, values in measured.items()}

    def _one_hot(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, self.c_dim).float()

    def _generate(self, n: int, update_w_avg: bool = False) -> tuple[Tensor, Tensor | None, Tensor]:
        """(images, labels, w) for n random latents, mixing the styles of two (Karras et al. 2019, section 3.1)."""
        z = torch.randn(n, self.config.z_dim, device=self.device)
        c = None
        if self.labels is not None:
            c = self._one_hot(self.labels[torch.randint(len(self.labels), [n], device=self.device)])
        w = self.G.mapping(z, c, update_w_avg=update_w_avg)
        if self.config.style_mixing > 0:
            other = self.G.mapping(torch.randn_like(z), c)
            # from a random layer on, each sample uses the second latent
            layers = torch.arange(self.G.num_ws, device=self.device)
            first = torch.randint(1, self.G.num_ws, [n, 1], device=self.device)
            mixed = (torch.rand(n, 1, device=self.device) < self.config.style_mixing) & (layers >= first)
            w = torch.where(mixed[:, :, None], other, w)
        return self.G.synthesis(w, noise_mode="random"), c, w

    def _train_only(self, network: torch.nn.Module) -> None:
        for other in self.G, self.D:
            other.requires_grad_(other is network)

    def _update(self, name: str, network: torch.nn.Module) -> None:
        if self.config.num_fp16_res > 0:
            # half precision overflows now and then: gradient elements that are not finite are set to zero for the step
            for p in network.parameters():
                if p.grad is not None:
                    torch.nan_to_num(p.grad, nan=0.0, posinf=0.0, neginf=0.0, out=p.grad)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)

    @torch.no_grad()
    def _average(self) -> None:
        decay = ema_decay(self.config.batch, self.seen, self.config.ema_kimg, self.config.ema_rampup)
        torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 1 - decay)
        for average, buffer in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            average.copy_(buffer)

    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint on disk, to within a percent: networks, the average, and Adam's two moments."""
        tensors = [t for name in ("G", "D", "G_ema") for t in getattr(self, name).state_dict().values()]
        moments = [p for network in (self.G, self.D) for p in network.parameters()]
        return sum(t.nbytes for t in tensors) + 2 * sum(p.nbytes for p in moments)

    def check_finite(self, measured: dict[str, float]) -> None:
        """Raise DivergenceError where a measured value or a weight is NaN or infinite."""
        remedy = "start again from the last checkpoint with a lower learning rate or a higher --r1-gamma"
        for name, value in measured.items():
            if not -float("inf") < value < float("inf"):
                raise DivergenceError(f"{name} became {value} after {self.seen} images; {remedy}")
        for network in "G", "D", "G_ema":
            for name, p in getattr(self, network).named_parameters():
                if not bool(p.isfinite().all()):
                    raise DivergenceError(f"{network}.{name} is no longer finite after {self.seen} images; {remedy}")

    def save(self, out: Path) -> Path:
        """Write a checkpoint into the run's folder, whole or not at all, and return its place.

        Raises:
            DivergenceError: a weight is not finite; nothing is written.
        """
        self.check_finite({})
        state = {"rng": torch.get_rng_state(), "pl_mean": self.pl_mean}
        if self.device.type == "cuda":
            state["rng_cuda"] = torch.cuda.get_rng_state(self.device)
        for name, optimizer in self.optimizers.items():
            state |= optimizer_tensors(optimizer, name)
        tensors = {name: getattr(self, name).state_dict() for name in ("G", "D", "G_ema")}
        meta = {
            "imgops": __version__,
            "steps": self.steps,
            "seconds": self.seconds,
            "c_dim": self.c_dim,
            "class_names": self.class_names,
            "data": self.data,
            "config": dataclasses.asdict(self.config),
        }
        return files.save(out, self.seen, {**tensors, "state": state}, meta, self.config.keep)

    def load(self, checkpoint: Path) -> None:
        """Continue from a checkpoint as if the run had never stopped.

        Raises:
            CheckpointError: it is missing or damaged, or does not fit this run.
        """
        meta = files.read_meta(checkpoint)
        if meta["c_dim"] != self.c_dim:
            raise files.CheckpointError(
                f"{checkpoint}: was trained on {meta['c_dim']} classes; the data now has {self.c_dim}"
            )
        for name in "G", "D", "G_ema":
            files.load_into(getattr(self, name), checkpoint, name)
        state = files.read_tensors(checkpoint, "state")
        for name, optimizer in self.optimizers.items():
            load_optimizer_tensors(optimizer, name, state)
        self.pl_mean = state["pl_mean"].to(self.device)
        self.seen, self.steps = meta["seen"], meta["steps"]
        # older checkpoints lack these
        self.seconds, self.data = meta.get("seconds", 0.0), meta.get("data")
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and "rng_cuda" in state:
            torch.cuda.set_rng_state(state["rng_cuda"], self.device)
