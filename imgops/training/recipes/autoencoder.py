"""The recipe of autoencoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...models.autoencoder import Autoencoder
from ..config import RunConfig
from ..processes import Processes
from ._parts import Part
from ._reconstruction import Losses, ReconstructionRecipe
from .autoencoder_config import AutoencoderConfig


class AutoencoderRecipe(ReconstructionRecipe):
    """An autoencoder, whose codes' distribution is followed, so that samples can be drawn."""

    config: AutoencoderConfig

    def __init__(
        self, config: RunConfig, labels: Tensor | None, class_names: Sequence[str], processes: Processes
    ) -> None:
        super().__init__(config, labels, class_names, processes)
        size = self.net.z_dim + 1
        self.moments = torch.zeros(size, size, dtype=torch.float64, device=self.device)

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged network, as it is built."""
        assert isinstance(config, AutoencoderConfig)
        return Autoencoder(**config.network_arguments(c_dim))

    def losses(self, part: Part) -> Losses:
        """How far pictures are from their reproductions; the codes' moments are watched."""
        code = self.net.encode(part.real, part.c)
        raw = self.net.decode_raw(code, part.c)
        # a variance is a small difference of these, which float32 would lose
        known = torch.cat([code.detach().double(), code.new_ones(len(code), 1).double()], 1)
        # the mean of products of [code, 1] with itself holds the mean of the codes too
        moments = known.t() @ known / len(known)
        error = (self.net.shown(raw).detach() - part.real).square().mean()
        return Losses({"reconstruction": self.compare(raw, part.real)}, error, watched=moments)

    def follow(self, watched: Tensor) -> None:
        """Move the moments of the codes towards those of the batch."""
        self.moments.lerp_(watched, self.config.code_share)

    def before_saving(self) -> None:
        """Give the averaged network the distribution of the codes."""
        count = self.moments[-1, -1]
        if float(count) == 0:
            return
        # early on less than a whole share of the past is known
        moments = self.moments / count
        mean = moments[-1, :-1]
        self.net_ema.set_codes(mean, moments[:-1, :-1] - torch.outer(mean, mean))

    def state(self) -> dict[str, Tensor]:
        """As of all, and the moments of the codes."""
        return {"moments": self.moments, **super().state()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        super().load_state(tensors)
        self.moments = tensors["moments"].to(self.device)
