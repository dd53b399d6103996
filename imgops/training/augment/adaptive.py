"""The controller that drives the probability of an augmentation by how far the discriminator overfits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed, nn

from ...ops._common import check_int, check_number, check_tensor

_OWNER = "training.AdaptiveStrength"
#: what overfitting is told by
HEURISTICS = ("real", "fake", "both")


class AdaptiveStrength(nn.Module):
    """Moves p by a fixed step, up where the discriminator overfits and else down, within [0, 1].

    Karras et al. 2020 (limited data), section 3: overfitting is ``r = E[sign(D(real))]``, 0 for a discriminator that
    cannot tell and 1 for one that knows every picture; p moves such that it takes ``kimg`` thousand images from 0 to 1.
    Jiang et al. 2021 drive the share of generated images shown as real ones so too, and compare two more heuristics.

    Args:
        target: the overfitting aimed at, in [-1, 1]. None: p stays as it is. Default 0.6.
        interval: calls of :meth:`step` between two moves. Default 4.
        kimg: thousands of real images in which p goes from 0 to 1; more than 0. Default 500.
        heuristic: "real" (the default) as above; "fake" is ``E[-sign(D(fake))]``; "both" is the mean of these two.

    In each training step call :meth:`observe` with every batch of logits, in parts or whole, then :meth:`step` once.
    Sums stay on the device of the logits and nothing waits for them. Where torch.distributed is initialized sums are
    over all processes, so that p is the same on all.

    The state_dict holds, as tensors, the sums and the number of steps, so that a run goes on exactly; p is the
    augmentation's own state.

    Raises:
        TypeError: an argument that is no number, logits that are no tensor of floating dtype.
        ValueError: an argument out of range, an unknown heuristic.

    >>> import torch
    >>> from imgops.training import AdaptiveStrength, AugmentPipe
    >>> pipe, adaptive = AugmentPipe.preset("bgc"), AdaptiveStrength(interval=1, kimg=1)
    >>> pipe.p.zero_()
    tensor(0.)
    >>> adaptive.observe(real_logits=torch.ones(50, 1))
    >>> adaptive.step(pipe.p)
    >>> pipe.p
    tensor(0.0500)
    """

    totals: Tensor
    pending: Tensor

    def __init__(
        self, target: float | None = 0.6, interval: int = 4, kimg: float = 500.0, heuristic: str = "real"
    ) -> None:
        super().__init__()
        self.target = None if target is None else check_number(_OWNER, "target", target, -1)
        if self.target is not None and self.target > 1:
            raise ValueError(f"imgops.{_OWNER}: target must be in [-1, 1]; got {target}")
        self.interval = check_int(_OWNER, "interval", interval, 1)
        self.kimg = check_number(_OWNER, "kimg", kimg, 0)
        if not 0 < self.kimg < math.inf:
            raise ValueError(f"imgops.{_OWNER}: kimg must be above 0 and finite; got {kimg}")
        if heuristic not in HEURISTICS:
            raise ValueError(f"imgops.{_OWNER}: heuristic must be one of {', '.join(HEURISTICS)}; got {heuristic!r}")
        self.heuristic = heuristic
        self.steps = 0
        # of (real, fake) logits: sums of signs, and how many, since p was last moved; pending is this process's alone
        self.register_buffer("totals", torch.zeros(2, 2))
        self.register_buffer("pending", torch.zeros(2, 2), persistent=False)

    @torch.no_grad()
    def observe(self, real_logits: Tensor | None = None, fake_logits: Tensor | None = None) -> None:
        """Count logits of any shape; those of either kind may come apart."""
        for i, (name, logits) in enumerate((("real_logits", real_logits), ("fake_logits", fake_logits))):
            if logits is not None:
                check_tensor(_OWNER, name, logits)
                self.pending[0, i] += logits.sign().sum(dtype=self.pending.dtype)
                self.pending[1, i] += logits.numel()

    @torch.no_grad()
    def step(self, p: Tensor) -> None:
        """End a training step: every ``interval`` of them p, a scalar such as ``AugmentPipe.p``, moves in place."""
        if distributed.is_available() and distributed.is_initialized():
            # in every step, so that all processes have the same state to save
            distributed.all_reduce(self.pending)
        self.totals += self.pending
        self.pending.zero_()
        self.steps += 1
        if self.steps % self.interval == 0:
            if self.target is not None:
                images = self.totals[1].amax()
                move = (self.overfitting() - self.target).sign() * images / (1000 * self.kimg)
                p.add_(move.to(p.dtype)).clamp_(0, 1)
            self.totals.zero_()

    def overfitting(self) -> Tensor:
        """The heuristic's value, a scalar, over the logits since p last moved, other processes' up to the last step."""
        real, fake = (self.totals[0] / self.totals[1].clamp(min=1)).unbind()
        return {"real": real, "fake": -fake, "both": (real - fake) / 2}[self.heuristic]

    def get_extra_state(self) -> Tensor:
        """The number of steps, as a tensor, which every file of weights can hold."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the number of steps from :meth:`get_extra_state`."""
        self.steps = int(state)

    def extra_repr(self) -> str:
        return f"target={self.target}, interval={self.interval}, kimg={self.kimg:g}, heuristic={self.heuristic!r}"
