"""The recipe of StyleGAN2 (Karras et al. 2020): two networks against one another, with lazy regularization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...models.stylegan2 import Generator
from .._draws import Draws
from ..config import RunConfig
from ..losses import path_lengths
from ._adversarial import Made
from ._base import Moment
from ._parts import Part
from ._phases import phase
from ._style_based import StyleBased
from ._styles import MixedLatents
from .stylegan2_config import TrainingConfig


class StyleGAN2(StyleBased):
    """Noise in every layer, mixed styles, and a penalty on path lengths.

    Attributes:
        pl_mean: the running mean of the path lengths.
    """

    config: TrainingConfig

    def begin(self) -> None:
        """As of all, with the strength of noise that the settings say."""
        super().begin()
        self.pl_mean = torch.zeros([], device=self.device)
        with torch.no_grad():
            for name, p in self.G.named_parameters():
                if name.endswith("noise_strength"):
                    p.fill_(self.config.noise_strength)

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged generator, as it is built."""
        assert isinstance(config, TrainingConfig)
        return Generator(**config.generator_arguments(c_dim))

    def state(self) -> dict[str, Tensor]:
        """As of all, and the mean of the path lengths."""
        return {"pl_mean": self.pl_mean, **super().state()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        super().load_state(tensors)
        self.pl_mean = tensors["pl_mean"].to(self.device)

    @property
    def generator_interval(self) -> int | None:
        """Of the path length."""
        return self.config.pl_interval if self.config.pl_weight else None

    @property
    def intervals(self) -> dict[str, int]:
        """Of the penalty on the discriminator's gradients, and the path length."""
        return super().intervals | ({"path_length": self.config.pl_interval} if self.config.pl_weight else {})

    def _told_of_parts(self, at_once: int) -> list[str]:
        """What parts of so many images change: also those that hold no whole fraction for the path length."""
        config, told = self.config, super()._told_of_parts(at_once)
        measured = config.batch // at_once * max(1, at_once // config.pl_batch_shrink)
        wanted = max(1, config.batch // config.pl_batch_shrink)
        if config.pl_weight and measured != wanted:
            told.append(f"the path length is measured on {measured} of {config.batch}, not {wanted}")
        return told

    def latents(self, draws: Draws) -> MixedLatents:
        """Random latents, some of two whose styles are mixed, noise and labels."""
        return self.mixed_latents(draws, self.config.style_mixing, self.G.num_ws, self.G.synthesis.noise_shapes)

    def make(self, latents: MixedLatents, watching: bool = False) -> Made:
        """The images of latents, with their w; the mean of w is watched."""
        w = self.mixed_w(latents, self.config.style_mixing)
        return Made(self.G.synthesis(w, noise=latents.noise), w, (w[:, 0].detach().mean(0),))

    def _regularize(self, parts: Sequence[Part], moment: Moment, note: Callable[[str, Tensor], None]) -> None:
        """The step of the penalty on path lengths, where it is its turn."""
        config = self.config
        if not config.pl_weight or moment.step % config.pl_interval:
            return
        lengths = torch.stack([self._path_step(part, len(parts)) for part in parts]).mean()
        self.processes.average_([lengths])
        # a length that overflows in half precision must not stay in the mean
        self.pl_mean = torch.where(lengths.isfinite(), self.pl_mean.lerp(lengths, config.pl_decay), self.pl_mean)
        note("path_length", lengths)
        note("bad_gradients", self._update("G", self.G))

    @phase(differentiates=True)
    def _path_phase(self, latents: MixedLatents, noise: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The penalty on path lengths, by how far they are from their mean, and the mean of these."""
        made = self.make(latents)
        assert made.w is not None
        lengths = path_lengths(made.images, made.w, noise)
        return (lengths - mean).square().mean(), lengths.detach().mean()

    def _path_step(self, part: Part, parts: int) -> Tensor:
        """Gradients of the path-length penalty on a fraction of a part, and the mean of the lengths.

        The lengths are compared with their running mean before the step, which does not depend on how the batch is
        divided.
        """
        draws = part.draws("path length", self.config.pl_batch_shrink)
        latents = self.latents(draws)
        # w needs a gradient where the mapping network is frozen, too
        latents.z.requires_grad_(self.config.freeze_m)
        noise = draws.normal(part.real[0].numel()).unflatten(1, part.real.shape[1:])
        penalty, length = self._path_phase(latents, noise, self.pl_mean)
        (penalty * (self.config.pl_weight * self.config.pl_interval / parts)).backward()
        return length
