"""What recipes have in common that train two networks against one another: the step, its penalties, the average."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..._optimizer_state import load_optimizer_tensors, optimizer_tensors
from ...ops.upfirdn2d import upfirdn2d
from .._draws import Draws
from ..config import RunConfig
from ..ema import PowerAverages, update_average
from ..grid import seeded_classes, seeded_samples
from ..losses import LOSSES, ema_decay, gradient_penalty, lazy_adam, r1_penalty
from ..processes import Processes
from ._adversarial_config import AdversarialConfig
from ._augmentation import Augmentation, Drawn
from ._base import Moment
from ._generator import GeneratorRecipe
from ._parts import Part, one_hot, parts_of
from ._phases import Phases, phase

#: samples of a sheet that are made at once
SAMPLED = 8


class Latents(NamedTuple):
    """What the images of most families are made of: z [n, z_dim], labels [n, c_dim] or None."""

    z: Tensor
    c: Tensor | None


class Made(NamedTuple):
    """What a generator made of latents.

    Attributes:
        images: [n, C, H, W].
        w: [n, num_ws, w_dim], what the images were made of; None where there is no such thing.
        watched: tensors that :meth:`AdversarialRecipe.follow` gets, averaged over the batch.
    """

    images: Tensor
    w: Tensor | None = None
    watched: tuple[Tensor, ...] = ()


class View(NamedTuple):
    """How the discriminator sees images of a step.

    Attributes:
        drawn: the random numbers of their augmentation; None: there is none.
        blur: taps [n] of a filter along both axes, by which images are blurred first; None: they are not.
    """

    drawn: Drawn | None
    blur: Tensor | None = None


class Shown(NamedTuple):
    """What the discriminator sees: images [n, C, H, W], labels, and how it sees them."""

    images: Tensor
    c: Tensor | None
    view: View


class AdversarialRecipe(GeneratorRecipe):
    """Generator, discriminator and the generator's running average.

    A family says what its networks are, what it draws for an image, and how it makes one of that; the phases of a step
    are here.

    Attributes:
        G, D, G_ema: the networks; G_ema is in eval mode.
        optimizers: of G and D, by name.
        phases: what runs the parts of a step that are functions of tensors alone.
    """

    config: AdversarialConfig
    result, trained = "G_ema", "G"

    def __init__(
        self, config: RunConfig, labels: Tensor | None, class_names: Sequence[str], processes: Processes
    ) -> None:
        assert isinstance(config, AdversarialConfig)
        self.config, self.processes = config, processes
        self.device = torch.device(config.device)
        self.labels = None if labels is None else labels.to(self.device)
        self.c_dim = 0 if labels is None else int(labels.max()) + 1
        self.G: Any = self.finished(config, self.c_dim).to(self.device)
        self.D: Any = self.discriminator(config, self.c_dim).to(self.device)
        self.begin()
        self.half_precision = config.half_precision
        self.G_ema: Any = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.networks = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        self.averages_kimg = config.ema_snapshot_kimg
        self.averages = PowerAverages(self.G) if config.ema_snapshot_kimg else None
        self.phases, self.slow_start = Phases(config.compile), config.compile
        self.loss = LOSSES[config.loss]
        self.penalty = gradient_penalty if config.loss == "wgan-gp" else r1_penalty
        self.augmentation = Augmentation(config.augmentation(), self.device)
        self.frozen = self._frozen()
        self.penalty_weight = config.gp_weight if config.loss == "wgan-gp" else config.gamma / 2
        lazy = self.penalty_weight and config.r1_interval > 1
        self.optimizers = {
            "G": self._adam(self.G, config.g_lr, self.generator_interval),
            "D": self._adam(self.D, config.d_lr, config.r1_interval if lazy else None),
        }

    @classmethod
    @abstractmethod
    def discriminator(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The discriminator, as it is built."""

    def begin(self) -> None:
        """Called when G and D are built, for how they begin."""

    def latents(self, draws: Draws) -> Any:
        """What images are made of, at random: a tuple of tensors, or of sequences of them, with the labels as ``c``."""
        return Latents(draws.normal(self.config.z_dim), self._class_of(draws.uniform(1)[:, 0]))

    def prepare(self, part: Part) -> Part:
        """A part of the batch, with its real pictures as the networks take them."""
        return part

    def make(self, latents: Any, watching: bool = False) -> Made:
        """The images of latents; ``watching`` asks for what is watched."""
        return Made(self.G(latents.z, latents.c))

    def follow(self, *averages: Tensor) -> None:
        """Called after each step of G, with what was watched, averaged over the batch."""

    @property
    def generator_interval(self) -> int | None:
        """The generator's own penalties take a step every so many steps; None: there are none."""
        return None

    def _regularize(self, parts: Sequence[Part], moment: Moment, note: Callable[[str, Tensor], None]) -> None:
        """Take the steps of the generator's own penalties; ``note`` records what was measured."""

    def _rate_factors(self, network: nn.Module) -> Mapping[str, float]:
        """Factors on the learning rate of a network, by the names of its parts."""
        return {}

    def _frozen(self) -> list[nn.Parameter]:
        """The parameters that the settings keep as they are."""
        return []

    def _adam(self, network: nn.Module, lr: float, interval: int | None) -> torch.optim.Adam:
        lr, betas = lazy_adam(lr, self.config.beta1, self.config.beta2, interval)
        factors = self._rate_factors(network)
        groups: dict[float, list[nn.Parameter]] = {1.0: []}
        for name, parameter in network.named_parameters():
            groups.setdefault(factors.get(name.partition(".")[0], 1.0), []).append(parameter)
        return torch.optim.Adam(
            [{"params": parameters, "lr": lr * factor} for factor, parameters in groups.items() if parameters],
            lr=lr,
            betas=betas,
            eps=1e-8,
            fused=True,
        )

    def state(self) -> dict[str, Tensor]:
        """Adam's moments, what drives the augmentation, and the averages that are kept for later."""
        state = self.augmentation.state()
        for name, optimizer in self.optimizers.items():
            state |= optimizer_tensors(optimizer, name)
        return {**state, **self.averages_state()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        for name, optimizer in self.optimizers.items():
            load_optimizer_tensors(optimizer, name, tensors)
        self.augmentation.load_state(tensors)
        self.load_averages(tensors)

    def state_bytes(self) -> int:
        """The size of Adam's two moments, and of the averages that are kept for later."""
        moments = 2 * sum(p.nbytes for network in (self.G, self.D) for p in network.parameters())
        return moments + sum(t.nbytes for t in self.averages_state().values())

    @property
    def intervals(self) -> dict[str, int]:
        """Of the penalty on the discriminator's gradients."""
        return {"penalty": self.config.r1_interval} if self.penalty_weight else {}

    def advice(self) -> dict[str, str]:
        """On what is compiled, on the weight of R1, and on what changes where the batch is computed in parts."""
        at_once = self.config.chunk_of(self.processes.count)
        told = self._told_of_parts(at_once)
        parts = {"parts": f"of {at_once} images: {'; '.join(told)}"} if told else {}
        return {**self.phases.advice(), **self._advice_on_gamma(), **parts}

    def _told_of_parts(self, at_once: int) -> list[str]:
        """What parts of so many images change, which hold no whole group."""
        group = self.config.group
        return [f"the minibatch standard deviation is over {at_once}, not {group}"] if at_once < group else []

    def _advice_on_gamma(self) -> dict[str, str]:
        """The weight of R1 depends on the data as no other setting does."""
        config = self.config
        if config.loss == "wgan-gp" or not config.gamma:
            return {}
        usual = config.from_preset(self.processes.count)["r1_gamma"]
        origin = f"of the preset {config.preset}" if config.gamma == usual else "as given"
        if config.gamma == config.automatic_gamma(config.batch):
            origin = "by resolution and batch"
            if config.loss == "relativistic":
                origin = "by resolution (Huang et al. 2024)"
        more = f"worth trying: {config.gamma / 5:.3g} and {config.gamma * 5:.3g}, the larger where training is unstable"
        return {"gamma": f"{config.gamma:.3g}, {origin}; {more}"}

    def samples(self, seeds: Sequence[int], label: int | None = None) -> Tensor:
        """Samples of the averaged generator, latents and noise by their seeds."""
        return seeded_samples(self.G_ema, seeds, label, batch=SAMPLED)

    def drawn(self, seeds: Sequence[int]) -> Tensor:
        """Samples of classes that are as frequent as in the data."""
        classes = None if self.labels is None else seeded_classes(seeds, self.c_dim, self.labels.cpu())
        return seeded_samples(self.G_ema, seeds, classes, batch=len(seeds))

    def step(self, real: Tensor, labels: Tensor, moment: Moment) -> dict[str, Tensor]:
        """A step of G, a step of D, their regularizers where it is their turn, and the average.

        Returns:
            loss_g, loss_d, logit_real, logit_fake, bad_gradients (the share of the gradients' tensors that were not
            finite), and where they ran r1 (or penalty, before its weight), augment_p and pseudo_p, and what the
            generator's own penalties are.
        """
        config = self.config
        parts = [self.prepare(part) for part in parts_of(self, real, labels, moment)]
        measured: dict[str, list[Tensor]] = {}

        def note(name: str, value: Tensor) -> None:
            measured.setdefault(name, []).append(value.detach())

        self._train_only(self.G)
        means = []
        for part in parts:
            latents = self.latents(part.draws("generator"))
            compared = self._shown(part, "generator, real", part.real, part.c) if self.loss.paired else None
            loss, *watched = self._generator_phase(latents, self.view(part, "generator, fake"), compared)
            (loss / len(parts)).backward()
            means.append(watched)
            note("loss_g", loss)
        note("bad_gradients", self._update("G", self.G))
        averages = [torch.stack(values).mean(0) for values in zip(*means, strict=True)]
        self.processes.average_(averages)
        self.follow(*averages)
        self._regularize(parts, moment, note)

        self._train_only(self.D)
        for part in parts:
            fake, fake_c = self._fakes(part, "discriminator")
            mixed = self.augmentation.mixed(part.real, part.c, fake, fake_c, partial(part.draws, "pseudo"))
            loss, real_logits, fake_logits = self._discriminator_phase(
                self._shown(part, "discriminator, real", *mixed),
                self._shown(part, "discriminator, fake", fake, fake_c),
            )
            (loss / len(parts)).backward()
            self.augmentation.observe(real_logits - self.loss.middle, fake_logits - self.loss.middle)
            note("loss_d", loss)
            note("logit_real", real_logits.mean())
            note("logit_fake", fake_logits.mean())
        lazy = config.r1_interval > 1
        if lazy:
            note("bad_gradients", self._update("D", self.D))
        if self.penalty_weight and moment.step % config.r1_interval == 0:
            for part in parts:
                penalty = self._penalty(part)
                (penalty * (self.penalty_weight * config.r1_interval / len(parts))).backward()
                note("penalty" if config.loss == "wgan-gp" else "r1", penalty)
        if not lazy or (self.penalty_weight and moment.step % config.r1_interval == 0):
            # a penalty of every step is a part of the loss
            note("bad_gradients", self._update("D", self.D))

        self._average(moment.seen)
        found = {name: torch.stack(values).mean() for name, values in measured.items()}
        return {**found, **self.augmentation.step()}

    def _class_of(self, uniform: Tensor) -> Tensor | None:
        """A label for each number [n] in [0, 1), of classes that are as frequent as in the data; None without."""
        return None if self.labels is None else one_hot(self.labels[(uniform * len(self.labels)).long()], self.c_dim)

    def view(self, part: Part, phase: str) -> View:
        """How the discriminator sees a part's images in a phase."""
        return View(self.augmentation.drawn(partial(part.draws, phase), part.real.shape[1:]))

    def _shown(self, part: Part, phase: str, images: Tensor, c: Tensor | None) -> Shown:
        """Images of a part, as the discriminator sees them in a phase."""
        return Shown(images, c, self.view(part, phase))

    def _fakes(self, part: Part, phase: str) -> tuple[Tensor, Tensor | None]:
        """Generated images, and their labels, for the discriminator."""
        latents = self.latents(part.draws(phase))
        return self._images_phase(latents), latents.c

    def _score(self, shown: Shown) -> Tensor:
        """The discriminator's logits."""
        images, view = shown.images, shown.view
        if view.blur is not None:
            images = upfirdn2d(images, view.blur, padding=len(view.blur) // 2)
        return self.D(self.augmentation(images, view.drawn), shown.c)  # type: ignore[no-any-return]

    @phase()
    def _generator_phase(self, latents: Any, view: View, real: Shown | None) -> tuple[Tensor, ...]:
        """The generator's loss, and what is watched; ``real`` is what a paired loss compares with."""
        made = self.make(latents, watching=True)
        real_logits = None if real is None else self._score(real)
        loss = self.loss.generator(self._score(Shown(made.images, latents.c, view)), real_logits)
        return loss, *made.watched

    @phase()
    def _images_phase(self, latents: Any) -> Tensor:
        with torch.no_grad():
            return self.make(latents).images

    @phase()
    def _discriminator_phase(self, real: Shown, fake: Shown) -> tuple[Tensor, Tensor, Tensor]:
        """The discriminator's loss, and the logits of both."""
        real_logits, fake_logits = self._score(real), self._score(fake)
        return self.discriminator_loss(real_logits, fake_logits), real_logits.detach(), fake_logits.detach()

    @phase(differentiates=True)
    def _penalty_phase(self, shown: Shown) -> Tensor:
        """The penalty on the discriminator's gradients at images that require grad."""
        return self.penalty(shown.images, self._score(shown))

    def _penalty(self, part: Part) -> Tensor:
        """The penalty on the discriminator's gradients that goes with the loss."""
        places = [("penalty, real", part.real, part.c)]
        if self.config.loss in ("wgan-gp", "relativistic"):
            fake, fake_c = self._fakes(part, "penalty")
            if self.config.loss == "wgan-gp":
                share = part.draws("mixture").uniform(1)[:, :, None, None]
                places = [("penalty, real", part.real.lerp(fake, share), part.c)]
            else:
                # R1 and R2 (Huang et al. 2024)
                places.append(("penalty, fake", fake, fake_c))
        penalties = [
            self._penalty_phase(self._shown(part, phase, images.detach().requires_grad_(True), c))
            for phase, images, c in places
        ]
        return torch.stack(penalties).sum()

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss by its logits, apart from the penalty."""
        return self.loss.discriminator(real_logits, fake_logits)

    def _train_only(self, network: nn.Module) -> None:
        for other in self.G, self.D:
            other.requires_grad_(other is network)
        for parameter in self.frozen:
            parameter.requires_grad_(False)

    def _update(self, name: str, network: nn.Module) -> Tensor:
        """A step of an optimizer; returns the share of the gradient tensors that had elements that are not finite."""
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        self.processes.average_(gradients)
        # Adam squares the gradients too; a CPU takes 4 times as long for sums of magnitudes, 20 times for the largest
        sums = torch.stack(torch._foreach_norm(gradients, 2))
        if self.half_precision:
            # half precision overflows now and then: gradient elements that are not finite are set to zero for the step
            for gradient in gradients:
                torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0, out=gradient)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)
        return 1 - sums.isfinite().float().mean()

    def _average(self, seen: int) -> None:
        decay = ema_decay(self.config.batch, seen, self.config.ema_kimg, self.config.ema_rampup or None)
        update_average(self.G_ema, self.G, decay)
        if self.averages is not None:
            self.averages.update(self.G, seen + self.config.batch)
