"""The recipe of VQ-VAE (van den Oord et al. 2017), with its prior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.vqvae import VQVAE
from ...nn.quantize import perplexity
from ..config import RunConfig
from ._parts import Part
from ._reconstruction import Losses, ReconstructionRecipe
from .vqvae_config import VQVAEConfig


class VQVAERecipe(ReconstructionRecipe):
    """Codes that follow their vectors, and a prior that learns beside them."""

    config: VQVAEConfig

    @classmethod
    def finished(cls, config: RunConfig, c_dim: int) -> nn.Module:
        """The averaged network, as it is built."""
        assert isinstance(config, VQVAEConfig)
        return VQVAE(**config.network_arguments(c_dim))

    def losses(self, part: Part) -> Losses:
        """How far pictures are from their reproductions and vectors from their codes, and how unlikely the codes are.

        What is watched are the shares and sums of the vectors of each code, and a vector of each image, at a random
        place, for codes that begin anew.
        """
        made, vectors, indices = self.net.quantize(part.real)
        commitment = torch.zeros([], device=self.device)
        for quantizer, x, index in zip(self.net.quantizers, vectors, indices, strict=True):
            commitment = commitment + F.mse_loss(x, quantizer.look_up(index))
        unlikely = torch.zeros([], device=self.device)
        for logits, index in zip(self.net.likelihoods(indices, part.c), indices, strict=True):
            unlikely = unlikely + F.cross_entropy(logits, index)
        parts = {
            "reconstruction": self.compare(made, part.real),
            "commitment": self.config.commitment * commitment,
            "prior": unlikely,
        }
        used = torch.stack([perplexity(index, self.net.quantizer.num_codes) for index in indices]).mean()
        error = (made.detach() - part.real).square().mean()
        return Losses(parts, error, {"perplexity": used}, self._watched(part, vectors, indices))

    def _watched(self, part: Part, vectors: list[Tensor], indices: list[Tensor]) -> Tensor:
        """[levels, num_codes + batch, 1 + code_dim]: shares and sums of vectors, and below them the vector of each
        image in its row, with a 1 before it; the rows of the images of other parts and processes are 0."""
        places, found = part.draws("restart").uniform(1)[:, 0], []
        for quantizer, x, index in zip(self.net.quantizers, vectors, indices, strict=True):
            x = x.detach()
            flat = x.flatten(2)
            chosen = flat.gather(2, (places * flat.shape[2]).long()[:, None, None].expand(-1, flat.shape[1], 1))[..., 0]
            rows = flat.new_zeros(self.config.batch, 1 + flat.shape[1])
            # images are evenly spaced; a slice, unlike their numbers, need not be copied to the device
            first, last = part.images[0], part.images[-1]
            step = max(1, (last - first) // max(1, len(part.images) - 1))
            rows[first : last + 1 : step] = torch.cat([chosen.new_ones(len(chosen), 1), chosen], 1)
            found.append(torch.cat([quantizer.statistics(x, index), rows]))
        return torch.stack(found)

    def follow(self, watched: Tensor) -> None:
        """Move the codes towards their vectors, and begin those anew that are not used."""
        for quantizer, of_level in zip(self.net.quantizers, watched, strict=True):
            statistics, rows = of_level.split([quantizer.num_codes, self.config.batch])
            quantizer.update(statistics, self.config.codebook_decay)
            # as a mean over parts and processes a row is a fraction of the vector, and so is its 1
            quantizer.restart(rows[:, 1:] / rows[:, :1], self.config.restart_share)
