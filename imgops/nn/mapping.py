"""The mapping network: latents and labels to the intermediate latent w."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._checks import check_batch, check_labels, check_size
from .linear import EqualizedLinear
from .norm import pixel_norm

#: latents over which a mean of w is taken, and how many of them at once
MEAN_LATENTS, MAPPED = 10_000, 1000


class MappingNetwork(nn.Module):
    """Concatenates normalized z and normalized, embedded labels, and maps them by ``num_layers`` layers of leaky ReLU.

    Karras et al. 2019, section 2; labels as in Karras et al. 2020 ("ADA"), where the discriminator has one too.

    Args:
        z_dim: size of z; 0 maps labels alone, for a discriminator.
        c_dim: size of a label; 0 takes none. One of z_dim and c_dim is above 0.
        w_dim: size of w, of each layer and of the embedded label.
        num_ws: how often w is repeated, once for each layer that takes it; None: w is not repeated, and has no average.
        num_layers: default 8.
        lr_multiplier: of the layers, not of the embedding. Default 0.01.
        w_avg_beta: decay of the running average of w, per update. Default 0.998.

    ``forward(z, c=None, truncation_psi=1, truncation_cutoff=None, update_w_avg=False)``: ``w_avg + psi * (w - w_avg)``
    for the first truncation_cutoff of the num_ws (None: for all). In training mode, ``update_w_avg`` first moves w_avg
    towards the batch's mean w.

    Shapes: z [N, z_dim], c [N, c_dim], of any number type -> [N, num_ws, w_dim], or [N, w_dim] for num_ws None, in the
    parameters' dtype; buffer w_avg [w_dim].

    Raises:
        TypeError, ValueError: sizes that are no ints in range; in the forward, z or c of the wrong shape, truncation
            without an average, a truncation_cutoff outside 0 .. num_ws.

    >>> MappingNetwork(8, 3, w_dim=16, num_ws=5, num_layers=2)(torch.randn(4, 8), torch.eye(4, 3)).shape
    torch.Size([4, 5, 16])
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None = None,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.998,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.z_dim, self.c_dim = check_size(owner, "z_dim", z_dim, 0), check_size(owner, "c_dim", c_dim, 0)
        self.w_dim = check_size(owner, "w_dim", w_dim)
        self.num_ws = None if num_ws is None else check_size(owner, "num_ws", num_ws)
        self.num_layers = check_size(owner, "num_layers", num_layers)
        z_dim, c_dim, w_dim = self.z_dim, self.c_dim, self.w_dim
        self.w_avg_beta = float(w_avg_beta)
        if z_dim == c_dim == 0:
            raise ValueError(f"{owner}: one of z_dim and c_dim must be above 0; got 0 and 0")
        embedded = w_dim if c_dim > 0 else 0
        if c_dim > 0:
            self.embed = EqualizedLinear(c_dim, embedded)
        for i in range(self.num_layers):
            features = z_dim + embedded if i == 0 else w_dim
            self.add_module(self._name(i), self._layer(features, lr_multiplier))
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    @torch.no_grad()
    def settle(self, z: Tensor, c: Tensor | None = None) -> None:
        """Make the average the mean of w of latents z [N, z_dim] and labels c [N, c_dim]."""
        labels = [None] * len(z.split(MAPPED)) if c is None else c.split(MAPPED)
        sums = [self(*part)[:, 0].double().sum(0) for part in zip(z.split(MAPPED), labels, strict=True)]
        self.w_avg.copy_(torch.stack(sums).sum(0) / len(z))

    def _name(self, layer: int) -> str:
        """What a layer is called."""
        return f"fc{layer}"

    def _layer(self, features: int, lr_multiplier: float) -> nn.Module:
        """A layer that maps so many features to w_dim."""
        return EqualizedLinear(features, self.w_dim, act="lrelu", lr_multiplier=lr_multiplier)

    def reset_parameters(self) -> None:
        """Initialize the average, for a network that was made on the meta device."""
        if self.num_ws is not None:
            nn.init.zeros_(self.w_avg)

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_avg: bool = False,
    ) -> Tensor:
        x = self._normalized_input(z, c)
        for i in range(self.num_layers):
            x = self.get_submodule(self._name(i))(x)
        if self.num_ws is None:
            if truncation_psi != 1 or update_w_avg:
                raise ValueError(
                    "MappingNetwork: truncation_psi and update_w_avg need an average; with num_ws=None there is none"
                )
            return x
        if update_w_avg and self.training:
            # under autocast x has another dtype than the average
            self.w_avg.copy_(x.detach().to(self.w_avg.dtype).mean(0).lerp(self.w_avg, self.w_avg_beta))
        w = x[:, None].expand(-1, self.num_ws, -1)
        if truncation_psi == 1:
            return w
        cutoff = self.num_ws
        if truncation_cutoff is not None:
            cutoff = check_size(type(self).__name__, "truncation_cutoff", truncation_cutoff, -(2**31))
        if not 0 <= cutoff <= self.num_ws:
            raise ValueError(f"MappingNetwork: truncation_cutoff must be in [0, {self.num_ws}]; got {cutoff}")
        truncated = self.w_avg.lerp(w[:, :cutoff].to(self.w_avg.dtype), truncation_psi).to(w.dtype)
        return torch.cat([truncated, w[:, cutoff:]], dim=1)

    def _normalized_input(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        owner, dtype = type(self).__name__, next(self.parameters()).dtype
        if self.z_dim > 0:
            check_batch(owner, "z", z, (self.z_dim,))
        check_labels(owner, c, self.c_dim, z.shape[0] if z is not None and self.z_dim > 0 else None)
        parts = [pixel_norm(z.to(dtype))] if z is not None and self.z_dim > 0 else []
        if c is not None and self.c_dim > 0:
            parts.append(pixel_norm(self.embed(c.to(dtype))))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, c_dim={self.c_dim}, w_dim={self.w_dim}, num_ws={self.num_ws}"
