"""The recipe of StyleGAN2 (Karras et al. 2020): two networks against one another, with lazy regularization."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._optimizer_state import load_optimizer_tensors, optimizer_tensors
from ...models.stylegan2 import Discriminator, Generator
from .._draws import Draws
from ..config import RunConfig
from ..ema import PowerAverages, update_average
from ..grid import seeded_classes, seeded_latents, seeded_samples
from ..losses import LOSSES, ema_decay, gradient_penalty, lazy_adam, path_lengths, r1_penalty
from ..processes import Processes
from ._augmentation import Augmentation, Drawn
from ._base import Moment
from ._generator import GeneratorRecipe
from ._phases import Phases, phase
from .stylegan2_config import TrainingConfig

#: samples of a sheet that are made at once
SAMPLED = 8
#: latents over which the mean of w of a mapping network is taken, and how many of them at once
MEAN_LATENTS, MAPPED = 10_000, 1000


class Part(NamedTuple):
    """Images that are computed at once: real ones [n, C, H, W], their labels [n, c_dim] or None, their numbers."""

    real: Tensor
    c: Tensor | None
    images: Sequence[int]
    moment: Moment

    def draws(self, phase: str, shrink: int = 1) -> Draws:
        """Random numbers for a phase, each image's own; of the first images alone, as many as 1 / ``shrink``."""
        images = self.images[: max(1, len(self.images) // shrink)]
        return self.moment.draws(phase, images, self.real.device)


class Latents(NamedTuple):
    """What generated images are made of.

    z and other [n, z_dim], of which the layers in ``mixed``, bool [n, num_ws, 1], take the other; the layers' noise
    [n, 1, height, width]; labels [n, c_dim] or None.
    """

    z: Tensor
    other: Tensor
    mixed: Tensor
    noise: Sequence[Tensor]
    c: Tensor | None


class Shown(NamedTuple):
    """What the discriminator sees: images [n, C, H, W], labels, and the random numbers of their augmentation."""

    images: Tensor
    c: Tensor | None
    drawn: Drawn | None


class StyleGAN2(GeneratorRecipe):
    """Generator, discriminator and the generator's running average.

    Attributes:
        G, D, G_ema: the networks; G_ema is in eval mode.
        optimizers: of G and D, by name.
        pl_mean: the running mean of the path lengths.
        phases: what runs the parts of a step that are functions of tensors alone.
    """

    config: TrainingConfig
    result = "G_ema"

    def __init__(
        self, config: RunConfig, labels: Tensor | None, class_names: Sequence[str], processes: Processes
    ) -> None:
        assert isinstance(config, TrainingConfig)
        self.config, self.processes = config, processes
        self.device = torch.device(config.device)
        self.labels = None if labels is None else labels.to(self.device)
        self.c_dim = 0 if labels is None else int(labels.max()) + 1
        self.G = Generator(**config.generator_arguments(self.c_dim)).to(self.device)
        self.D = Discriminator(**config.discriminator_arguments(self.c_dim)).to(self.device)
        with torch.no_grad():
            for name, p in self.G.named_parameters():
                if name.endswith("noise_strength"):
                    p.fill_(config.noise_strength)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.networks = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        self.averages_kimg = config.ema_snapshot_kimg
        self.averages = PowerAverages(self.G) if config.ema_snapshot_kimg else None
        self.half_precision = config.num_fp16_res > 0
        self.phases, self.slow_start = Phases(config.compile), config.compile
        self.loss = LOSSES[config.loss]
        self.penalty = gradient_penalty if config.loss == "wgan-gp" else r1_penalty
        self.augmentation = Augmentation(config.augmentation(), self.device)
        self.frozen = self._frozen()
        self.pl_mean = torch.zeros([], device=self.device)
        self.penalty_weight = config.gp_weight if config.loss == "wgan-gp" else config.gamma / 2
        lazy = self.penalty_weight and config.r1_interval > 1
        self.optimizers = {
            "G": self._adam(self.G, config.g_lr, config.pl_interval if config.pl_weight else None),
            "D": self._adam(self.D, config.d_lr, config.r1_interval if lazy else None),
        }

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged generator, as it is built."""
        assert isinstance(config, TrainingConfig)
        return Generator(**config.generator_arguments(c_dim))

    @classmethod
    @torch.no_grad()
    def renew(cls, network: nn.Module, class_counts: Sequence[int]) -> None:
        """The mean of w, over seeded latents and classes that are as frequent as in the data."""
        assert isinstance(network, Generator)
        mapping = network.mapping
        seeds, device = range(MEAN_LATENTS), mapping.w_avg.device
        z = seeded_latents(seeds, mapping.z_dim).to(device)
        c = torch.zeros(MEAN_LATENTS, mapping.c_dim, device=device)
        if class_counts:
            labels = torch.arange(mapping.c_dim).repeat_interleave(torch.tensor(class_counts))
            c[torch.arange(MEAN_LATENTS), seeded_classes(seeds, mapping.c_dim, labels)] = 1
        sums = [mapping(*part)[:, 0].double().sum(0) for part in zip(z.split(MAPPED), c.split(MAPPED), strict=True)]
        mapping.w_avg.copy_(torch.stack(sums).sum(0) / MEAN_LATENTS)

    def _adam(self, network: nn.Module, lr: float, interval: int | None) -> torch.optim.Adam:
        lr, betas = lazy_adam(lr, self.config.beta1, self.config.beta2, interval)
        factors = self.config.rate_factors() if network is self.D else {}
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
        """Adam's moments and the mean of the path lengths."""
        state = {"pl_mean": self.pl_mean, **self.augmentation.state()}
        for name, optimizer in self.optimizers.items():
            state |= optimizer_tensors(optimizer, name)
        if self.averages is not None:
            state |= {f"averages.{key}": value for key, value in self.averages.state_dict().items()}
        return state

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        for name, optimizer in self.optimizers.items():
            load_optimizer_tensors(optimizer, name, tensors)
        self.pl_mean = tensors["pl_mean"].to(self.device)
        self.augmentation.load_state(tensors)
        if self.averages is not None:
            prefix = "averages."
            own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
            self.averages.load_state_dict(own)

    def state_bytes(self) -> int:
        """The size of Adam's two moments, and of the averages that are kept for later."""
        moments = 2 * sum(p.nbytes for network in (self.G, self.D) for p in network.parameters())
        kept = {} if self.averages is None else self.averages.state_dict()
        return moments + sum(t.nbytes for t in kept.values())

    def start_from(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
        """As of all recipes; an average that comes alone, as imgops ema makes it, is the generator, too."""
        alone = {"G": tensors["G_ema"]} if "G_ema" in tensors and "G" not in tensors else {}
        return super().start_from({**tensors, **alone})

    @property
    def intervals(self) -> dict[str, int]:
        """Of the penalty on the discriminator's gradients, and the path length."""
        config = self.config
        penalty = {"penalty": config.r1_interval} if self.penalty_weight else {}
        return penalty | ({"path_length": config.pl_interval} if config.pl_weight else {})

    def advice(self) -> dict[str, str]:
        """On what is compiled, on the weight of R1, and on what changes where the batch is computed in parts."""
        return {**self.phases.advice(), **self._advice_on_gamma(), **self._advice_on_parts()}

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

    def _advice_on_parts(self) -> dict[str, str]:
        """Parts that hold no whole group, or no whole fraction for the path length, make another step of the batch."""
        config, at_once = self.config, self.config.chunk_of(self.processes.count)
        told = []
        if at_once < config.mbstd_group:
            told.append(f"the minibatch standard deviation is over {at_once}, not {config.mbstd_group}")
        measured = config.batch // at_once * max(1, at_once // config.pl_batch_shrink)
        wanted = max(1, config.batch // config.pl_batch_shrink)
        if config.pl_weight and measured != wanted:
            told.append(f"the path length is measured on {measured} of {config.batch}, not {wanted}")
        return {"parts": f"of {at_once} images: {'; '.join(told)}"} if told else {}

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
            finite), and where they ran r1 (or penalty, before its weight), path_length, augment_p and pseudo_p.
        """
        config = self.config
        parts = self._parts(real, labels, moment)
        measured: dict[str, list[Tensor]] = {}

        def note(name: str, value: Tensor) -> None:
            measured.setdefault(name, []).append(value.detach())

        self._train_only(self.G)
        means = []
        for part in parts:
            latents = self._latents(part.draws("generator"))
            compared = self._shown(part, "generator, real", part.real, part.c) if self.loss.paired else None
            loss, mean = self._generator_phase(latents, self._drawn(part, "generator, fake"), compared)
            (loss / len(parts)).backward()
            means.append(mean)
            note("loss_g", loss)
        note("bad_gradients", self._update("G", self.G))
        self._average_w(means)

        if config.pl_weight and moment.step % config.pl_interval == 0:
            lengths = torch.stack([self._path_step(part, len(parts)) for part in parts]).mean()
            self.processes.average_([lengths])
            # a length that overflows in half precision must not stay in the mean
            self.pl_mean = torch.where(lengths.isfinite(), self.pl_mean.lerp(lengths, config.pl_decay), self.pl_mean)
            note("path_length", lengths)
            note("bad_gradients", self._update("G", self.G))

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

    def _parts(self, real: Tensor, labels: Tensor, moment: Moment) -> list[Part]:
        """This process's share of the batch in the parts that are computed at once.

        Every k-th image is of the same part, so that the groups of the minibatch standard deviation are those that the
        whole batch would have.
        """
        x = real.to(self.device, non_blocking=True).float() / 127.5 - 1
        c = None if self.labels is None else self._one_hot(labels.to(self.device, non_blocking=True))
        count = len(x) // self.config.chunk_of(self.processes.count)
        return [
            Part(x[k::count], None if c is None else c[k::count], list(moment.images[k::count]), moment)
            for k in range(count)
        ]

    def _one_hot(self, labels: Tensor) -> Tensor:
        # torch's own waits for the device, to look at the largest label
        return (labels[:, None] == torch.arange(self.c_dim, device=self.device)).float()

    def _latents(self, draws: Draws) -> Latents:
        """Random latents, some of two whose styles are mixed (Karras et al. 2019, section 3.1), noise and labels."""
        shapes, z_dim, num_ws = self.G.synthesis.noise_shapes, self.config.z_dim, self.G.num_ws
        sizes = [z_dim, z_dim, *(math.prod(shape) for shape in shapes)]
        z, other, *flat = draws.normal(sum(sizes)).split(sizes, 1)
        noise = [values.unflatten(1, shape) for values, shape in zip(flat, shapes, strict=True)]
        which, first, mix = draws.uniform(3).split(1, 1)
        # from a random layer on, each sample that mixes uses the second latent
        layers = torch.arange(num_ws, device=self.device)
        mixed = (mix < self.config.style_mixing) & (layers >= 1 + (first * (num_ws - 1)).long())
        c = None if self.labels is None else self._one_hot(self.labels[(which[:, 0] * len(self.labels)).long()])
        return Latents(z, other, mixed[:, :, None], noise, c)

    def _drawn(self, part: Part, phase: str) -> Drawn | None:
        """The random numbers of the augmentation of a part's images."""
        return self.augmentation.drawn(partial(part.draws, phase), part.real.shape[1:])

    def _shown(self, part: Part, phase: str, images: Tensor, c: Tensor | None) -> Shown:
        """Images of a part, augmented with the random numbers of a phase."""
        return Shown(images, c, self._drawn(part, phase))

    def _fakes(self, part: Part, phase: str) -> tuple[Tensor, Tensor | None]:
        """Generated images, and their labels, for the discriminator."""
        latents = self._latents(part.draws(phase))
        return self._images_phase(latents), latents.c

    def _generate(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """(images, w) of latents."""
        w = self.G.mapping(latents.z, latents.c)
        if self.config.style_mixing > 0:
            w = torch.where(latents.mixed, self.G.mapping(latents.other, latents.c), w)
        return self.G.synthesis(w, noise=latents.noise), w

    def _score(self, shown: Shown) -> Tensor:
        """The discriminator's logits."""
        return self.D(self.augmentation(shown.images, shown.drawn), shown.c)  # type: ignore[no-any-return]

    @phase()
    def _generator_phase(self, latents: Latents, drawn: Drawn | None, real: Shown | None) -> tuple[Tensor, Tensor]:
        """The generator's loss, and the mean of w; ``real`` is what a paired loss compares with."""
        fake, w = self._generate(latents)
        real_logits = None if real is None else self._score(real)
        loss = self.loss.generator(self._score(Shown(fake, latents.c, drawn)), real_logits)
        # the first layer never takes the second latent
        return loss, w[:, 0].detach().mean(0)

    @phase(differentiates=True)
    def _path_phase(self, latents: Latents, noise: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The penalty on path lengths, by how far they are from their mean, and the mean of these."""
        lengths = path_lengths(*self._generate(latents), noise)
        return (lengths - mean).square().mean(), lengths.detach().mean()

    @phase()
    def _images_phase(self, latents: Latents) -> Tensor:
        with torch.no_grad():
            return self._generate(latents)[0]

    @phase()
    def _discriminator_phase(self, real: Shown, fake: Shown) -> tuple[Tensor, Tensor, Tensor]:
        """The discriminator's loss, and the logits of both."""
        real_logits, fake_logits = self._score(real), self._score(fake)
        return self.loss.discriminator(real_logits, fake_logits), real_logits.detach(), fake_logits.detach()

    @phase(differentiates=True)
    def _penalty_phase(self, shown: Shown) -> Tensor:
        """The penalty on the discriminator's gradients at images that require grad."""
        return self.penalty(shown.images, self._score(shown))

    def _path_step(self, part: Part, parts: int) -> Tensor:
        """Gradients of the path-length penalty on a fraction of a part, and the mean of the lengths.

        The lengths are compared with their running mean before the step, which does not depend on how the batch is
        divided.
        """
        draws = part.draws("path length", self.config.pl_batch_shrink)
        latents = self._latents(draws)
        # w needs a gradient where the mapping network is frozen, too
        latents.z.requires_grad_(self.config.freeze_m)
        noise = draws.normal(part.real[0].numel()).unflatten(1, part.real.shape[1:])
        penalty, length = self._path_phase(latents, noise, self.pl_mean)
        (penalty * (self.config.pl_weight * self.config.pl_interval / parts)).backward()
        return length

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

    def _train_only(self, network: nn.Module) -> None:
        for other in self.G, self.D:
            other.requires_grad_(other is network)
        for parameter in self.frozen:
            parameter.requires_grad_(False)

    def _frozen(self) -> list[nn.Parameter]:
        """The parameters that the settings keep as they are."""
        config, blocks = self.config, self.D.block_resolutions
        parts: list[nn.Module] = [self.D.get_submodule(f"b{res}") for res in blocks[: config.freeze_d]]
        if config.freeze_m:
            parts.append(self.G.mapping)
        if config.freeze_e:
            parts += [layer for name, layer in self.G.synthesis.named_modules() if name.endswith(".affine")]
        return [parameter for part in parts for parameter in part.parameters()]

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

    def _average_w(self, means: list[Tensor]) -> None:
        """Move the running average of w towards the means of the parts and of all processes."""
        mapping = self.G.mapping
        mean = torch.stack(means).mean(0).to(mapping.w_avg.dtype)
        self.processes.average_([mean])
        mapping.w_avg.copy_(mean.lerp(mapping.w_avg, mapping.w_avg_beta))

    def _average(self, seen: int) -> None:
        decay = ema_decay(self.config.batch, seen, self.config.ema_kimg, self.config.ema_rampup or None)
        update_average(self.G_ema, self.G, decay)
        if self.averages is not None:
            self.averages.update(self.G, seen + self.config.batch)
