"""The losses of StyleGAN2 (Karras et al. 2020): logistic, R1, path length; and lazy regularization."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss ``mean(-log sigmoid(D(G(z))))`` (Goodfellow et al. 2014); logits [N, 1]."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss ``mean(-log sigmoid(D(x))) + mean(-log(1 - sigmoid(D(G(z)))))``; logits [N, 1]."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real: Tensor, real_logits: Tensor) -> Tensor:
    """``mean over the batch of |d D(x) / dx|^2`` (Mescheder et al. 2018), differentiable; the loss is gamma / 2 of it.

    Args:
        real: images [N, C, H, W] that require grad.
        real_logits: the discriminator's output for them, [N, 1].
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(images: Tensor, w: Tensor) -> Tensor:
    """``|J^T y|`` of each sample, [N], differentiable: y white noise over the image, J = d image / d w.

    Karras et al. 2020, section 3.2: y is divided by sqrt(H * W), which makes the length independent of the
    resolution, and the squares are averaged over the layers.

    Args:
        images: [N, C, H, W], a function of w.
        w: [N, num_ws, w_dim] that requires grad.
    """
    noise = torch.randn_like(images) * (images.shape[2] * images.shape[3]) ** -0.5
    (gradient,) = torch.autograd.grad((images * noise).sum(), w, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def lazy_adam(lr: float, beta1: float, beta2: float, interval: int | None) -> tuple[float, tuple[float, float]]:
    """Adam's (lr, betas) when a regularizer takes one more step every ``interval`` steps; None: no regularizer.

    Karras et al. 2020, appendix B: with c = k / (k + 1), the k + 1 steps of lr * c and beta^c do what k steps did.
    """
    c = 1.0 if interval is None else interval / (interval + 1)
    return lr * c, (float(beta1**c), float(beta2**c))


def ema_decay(batch: int, seen: int, ema_kimg: float, rampup: float | None) -> float:
    """Decay of the averaged generator for a step of ``batch`` images: ``0.5^(batch / half-life)``.

    Args:
        batch: images per step.
        seen: real images shown before this step.
        ema_kimg: half-life in thousands of images; 0 averages nothing.
        rampup: the half-life is at most this fraction of ``seen``, to forget the early generator; None: no limit.
    """
    half_life = ema_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, seen * rampup)
    return 0.5 ** (batch / half_life) if half_life > 0 else 0.0
