"""Vectors to the nearest of a codebook, which follows the vectors that it stands for."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops._common import accumulation_dtype, check_tensor, untraced
from ..ops.nearest_neighbor import nearest_neighbor
from ._checks import check_size


def nearest_code(x: Tensor, codebook: Tensor, *, impl: str | None = None) -> Tensor:
    """The index of the code that is nearest to each vector, ``argmin_k |x - codebook[k]|``.

    The distances of all vectors from all codes are never stored: two more channels give all codes one length, and make
    the nearest code the one of the largest cosine, which :func:`imgops.nearest_neighbor` finds. Rounding decides
    between codes that are nearly as near. It has no gradient.

    Args:
        x: [N, D, ...], float64/32/16 or bfloat16.
        codebook: [K, D], on x's device.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        int64 [N, ...].

    Raises:
        TypeError: no tensors of a supported dtype.
        ValueError: x and the codebook do not fit each other, or an empty codebook.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    op = "nn.nearest_code"
    check_tensor(op, "x", x)
    check_tensor(op, "codebook", codebook, 2)
    _check_codes(op, x, codebook)
    with torch.no_grad():
        dtype = accumulation_dtype(x.dtype)
        codes, vectors = codebook.to(dtype), x.reshape(*x.shape[:2], math.prod(x.shape[2:])).to(dtype)
        # distances stay the same, and rounding is least, where the codes lie about 0
        center = codes.mean(0)
        codes, vectors = codes - center, vectors - center[:, None]
        squares = codes.square().sum(1)
        scale = squares.amax().sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        # |x - e|^2 = |x|^2 - 2 (x . e - |e|^2 / 2): the last term is the product of a channel each
        charge = -squares / (2 * scale)
        lengths = squares + charge.square()
        rest = (lengths.amax() - lengths).clamp(min=0).sqrt()
        keys = torch.cat([codes, charge[:, None], rest[:, None]], 1).t()[None]
        n, _, count = vectors.shape
        queries = torch.cat([vectors, scale.expand(n, 1, count), vectors.new_zeros(n, 1, count)], 1)
        index = nearest_neighbor(queries, keys, impl=impl)[1]
    return index.reshape(x.shape[0], *x.shape[2:])


@untraced
def _check_codes(op: str, x: Tensor, codebook: Tensor) -> None:
    if x.ndim < 2 or codebook.shape[1] != x.shape[1] or codebook.shape[0] == 0:
        raise ValueError(
            f"imgops.{op}: codebook must be [K, D] for x [N, D, ...], with K >= 1; got {list(codebook.shape)} for "
            f"{list(x.shape)}"
        )
    if codebook.device != x.device:
        raise ValueError(f"imgops.{op}: codebook must be on x's device {x.device}; got {codebook.device}")


class Quantized(NamedTuple):
    """What a quantizer makes of vectors.

    Attributes:
        values: the codes [N, D, ...], whose gradient goes to the vectors as if they were these.
        index: of the codes, int64 [N, ...].
    """

    values: Tensor
    index: Tensor  # type: ignore[assignment]


class VectorQuantizer(nn.Module):
    """Replaces vectors by the nearest of a codebook (van den Oord et al. 2017).

    The codebook is not learned by gradients: each code is the running mean of the vectors that were nearest to it
    (their appendix A.1). A training loop calls :meth:`update` with the :meth:`statistics` of each batch, which several
    processes can average first, and :meth:`restart` for codes that no vector is near to.

    Args:
        num_codes: K, >= 1.
        code_dim: D, >= 1.

    Shapes: x [N, code_dim, ...] -> :class:`Quantized`; buffers codebook [K, D], counts [K] and sums [K, D], the running
    share of the vectors that have each code, and the sum of these, float32.

    Raises:
        TypeError, ValueError: a size that is no int >= 1; in the forward, what nearest_code raises.

    >>> quantizer = VectorQuantizer(16, 4)
    >>> values, index = quantizer(torch.randn(2, 4, 8, 8))
    >>> values.shape, index.shape
    (torch.Size([2, 4, 8, 8]), torch.Size([2, 8, 8]))
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, code_dim: int) -> None:
        super().__init__()
        owner = type(self).__name__
        self.num_codes = check_size(owner, "num_codes", num_codes)
        self.code_dim = check_size(owner, "code_dim", code_dim)
        self.register_buffer("codebook", torch.empty(self.num_codes, self.code_dim))
        self.register_buffer("counts", torch.empty(self.num_codes))
        self.register_buffer("sums", torch.empty(self.num_codes, self.code_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the codebook, for a layer that was made on the meta device."""
        nn.init.normal_(self.codebook, std=self.code_dim**-0.5)
        nn.init.constant_(self.counts, 1 / self.num_codes)
        with torch.no_grad():
            self.sums.copy_(self.codebook / self.num_codes)

    def forward(self, x: Tensor) -> Quantized:
        index = nearest_code(x, self.codebook)
        return Quantized(x + (self.look_up(index).to(x.dtype) - x).detach(), index)

    def look_up(self, index: Tensor) -> Tensor:
        """The codes [N, code_dim, ...] of indices [N, ...]."""
        return self.codebook[index].movedim(-1, 1)

    @torch.no_grad()
    def statistics(self, x: Tensor, index: Tensor) -> Tensor:
        """[K, 1 + D]: the share of the vectors x [N, D, ...] that have each code, and their sum as a share of all."""
        vectors = x.movedim(1, -1).reshape(-1, self.code_dim).to(self.sums.dtype)
        each = torch.cat([vectors.new_ones(len(vectors), 1), vectors], 1) / max(1, len(vectors))
        return each.new_zeros(self.num_codes, 1 + self.code_dim).index_add_(0, index.flatten(), each)

    @torch.no_grad()
    def update(self, statistics: Tensor, decay: float = 0.99, eps: float = 1e-5) -> None:
        """Move the codes towards the means of their vectors.

        Args:
            statistics: of a batch.
            decay: of the running share and sum.
            eps: added to each share, so that a code without vectors stays finite.
        """
        self.counts.lerp_(statistics[:, 0], 1 - decay)
        self.sums.lerp_(statistics[:, 1:], 1 - decay)
        total = self.counts.sum()
        smooth = (self.counts + eps) * (total / (total + self.num_codes * eps))
        self.codebook.copy_(self.sums / smooth[:, None])

    @torch.no_grad()
    def restart(self, candidates: Tensor, least: float = 0.05) -> Tensor:
        """Let codes that hardly any vector has begin anew at vectors of a batch.

        Args:
            candidates: [R, D]; at most so many begin anew, the first codes first.
            least: a code whose running share is below this part of the mean begins anew.

        Returns:
            How many began anew, a scalar.
        """
        mean = self.counts.mean()
        dead = self.counts < least * mean
        place = dead.cumsum(0) - 1
        chosen = dead & (place < len(candidates))
        fresh = candidates[place.clamp(0, len(candidates) - 1)].to(self.codebook.dtype)
        self.codebook.copy_(torch.where(chosen[:, None], fresh, self.codebook))
        self.counts.copy_(torch.where(chosen, mean, self.counts))
        self.sums.copy_(torch.where(chosen[:, None], fresh * mean, self.sums))
        return chosen.sum()

    def extra_repr(self) -> str:
        return f"{self.num_codes}, {self.code_dim}"


def perplexity(index: Tensor, num_codes: int) -> Tensor:
    """How many codes are in use, as the exponential of the entropy of their frequencies: 1 to num_codes, a scalar."""
    # bincount would wait for the device
    share = torch.zeros(num_codes, device=index.device).index_add_(
        0, index.flatten(), torch.ones(index.numel(), device=index.device)
    )
    share = share / index.numel()
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())
