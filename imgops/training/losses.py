"""The losses that generators and discriminators play for, their penalties, and what goes with lazy regularization."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss ``mean(-log sigmoid(D(G(z))))`` (Goodfellow et al. 2014); logits [N, 1]."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss ``mean(-log sigmoid(D(x))) + mean(-log(1 - sigmoid(D(G(z)))))``; logits [N, 1]."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


class AdversarialLoss(NamedTuple):
    """What the two networks play for, by their logits [N, 1] for real and generated images.

    Attributes:
        generator: (logits of generated images, of real ones) -> loss; only a ``paired`` one reads the latter.
        discriminator: (logits of real images, of generated ones) -> loss.
        paired: whether the generator's loss compares each generated image with a real one.
        middle: the logit of a discriminator that cannot tell.
    """

    generator: Callable[[Tensor, Tensor | None], Tensor]
    discriminator: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False
    middle: float = 0.0


def _relative(logits: Tensor, others: Tensor | None) -> Tensor:
    assert others is not None
    return F.softplus(others - logits).mean()


#: by name: the losses of Goodfellow et al. 2014 (non-saturating, and the minimax of equation 1), Lim & Ye 2017 and
#: Miyato et al. 2018 (hinge), Gulrajani et al. 2017 (Wasserstein), Mao et al. 2017 (least squares), and
#: Jolicoeur-Martineau 2018 in the paired form of Huang et al. 2024 (relativistic)
LOSSES = {
    "nonsaturating": AdversarialLoss(lambda fake, _: generator_loss(fake), discriminator_loss),
    "minimax": AdversarialLoss(lambda fake, _: -F.softplus(fake).mean(), discriminator_loss),
    "hinge": AdversarialLoss(
        lambda fake, _: -fake.mean(), lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    ),
    "wgan-gp": AdversarialLoss(lambda fake, _: -fake.mean(), lambda real, fake: fake.mean() - real.mean()),
    "lsgan": AdversarialLoss(
        lambda fake, _: (fake - 1).square().mean() / 2,
        lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
        middle=0.5,
    ),
    "relativistic": AdversarialLoss(_relative, _relative, paired=True),
}


def r1_penalty(real: Tensor, real_logits: Tensor) -> Tensor:
    """``mean over the batch of |d D(x) / dx|^2`` (Mescheder et al. 2018), differentiable; the loss is gamma / 2 of it.

    Of generated images it is the penalty R2.

    Args:
        real: images [N, C, H, W] that require grad.
        real_logits: the discriminator's output for them, [N, 1].
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def gradient_penalty(mixed: Tensor, logits: Tensor) -> Tensor:
    """``mean over the batch of (|d D(x) / dx| - 1)^2`` (Gulrajani et al. 2017), differentiable; the loss is 10 of it.

    Args:
        mixed: images [N, C, H, W] that require grad, each at a random place between a real and a generated one.
        logits: the discriminator's output for them, [N, 1].
    """
    (gradient,) = torch.autograd.grad(logits.sum(), mixed, create_graph=True)
    # where the gradient is 0 its length has none
    return ((gradient.square().sum(dim=(1, 2, 3)) + 1e-12).sqrt() - 1).square().mean()


def path_lengths(images: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
    """``|J^T y|`` of each sample, [N], differentiable: y white noise over the image, J = d image / d w.

    Karras et al. 2020, section 3.2: y is divided by sqrt(H * W), which makes the length independent of the
    resolution, and the squares are averaged over the layers.

    Args:
        images: [N, C, H, W], a function of w.
        w: [N, num_ws, w_dim] that requires grad.
        noise: y before it is divided, of the images' shape; None draws it.
    """
    noise = torch.randn_like(images) if noise is None else noise
    y = noise * (images.shape[2] * images.shape[3]) ** -0.5
    (gradient,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
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
