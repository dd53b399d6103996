"""What people write without imgops: each op in plain PyTorch, the obvious way and the fastest known one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def bias_act(x: Tensor, b: Tensor, act: str) -> Tensor:
    """As one writes it first; ``act`` is lrelu."""
    return _lrelu(x + b.to(x.dtype)[None, :, None, None])


def bias_act_in_place(x: Tensor, b: Tensor, act: str) -> Tensor:
    """The same with one new tensor fewer: the activation in place, as far as autograd allows."""
    return F.leaky_relu_(x + b.to(x.dtype)[None, :, None, None], 0.2) * math.sqrt(2)


def upfirdn2d(x: Tensor, f: Tensor, up: int, down: int, padding: list[int], gain: float) -> Tensor:
    """Insert zeros, pad, convolve each channel, keep each down-th pixel."""
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, padding)
    kernels = [f] if f.ndim == 2 else [f[None, :], f[:, None]]
    for kernel in kernels:
        kernel = (kernel * gain ** (1 / len(kernels))).flip([0, 1]).to(x.dtype)
        x = F.conv2d(x, kernel.expand(c, 1, *kernel.shape), groups=c)
    return x[:, :, ::down, ::down]


def upfirdn2d_strided(x: Tensor, f: Tensor, up: int, down: int, padding: list[int], gain: float) -> Tensor:
    """By strides: a transposed depthwise convolution up-samples, a strided one down-samples; no zero is inserted."""
    c = x.shape[1]
    kernels = [f] if f.ndim == 2 else [f[None, :], f[:, None]]
    for i, kernel in enumerate(kernels):
        kernel = (kernel * gain ** (1 / len(kernels))).to(x.dtype)
        fh, fw = kernel.shape
        # which axes this kernel filters: both, or x and then y
        along_x, along_y = len(kernels) == 1 or i == 0, len(kernels) == 1 or i == 1
        px, py = padding[:2] if along_x else (0, 0), padding[2:] if along_y else (0, 0)
        weight = kernel.expand(c, 1, fh, fw)
        if up > 1:
            stride = (up if along_y else 1, up if along_x else 1)
            crop_x = [fw - 1 - p - e for p, e in zip(px, (0, stride[1] - 1), strict=True)]
            crop_y = [fh - 1 - p - e for p, e in zip(py, (0, stride[0] - 1), strict=True)]
            # a crop that is the same on both sides costs nothing: it is the convolution's own padding
            free_y, free_x = (c[0] if c[0] == c[1] and c[0] >= 0 else 0 for c in (crop_y, crop_x))
            x = F.conv_transpose2d(x, weight, stride=stride, padding=(free_y, free_x), groups=c)
            rest = [free_x - crop_x[0], free_x - crop_x[1], free_y - crop_y[0], free_y - crop_y[1]]
            x = F.pad(x, rest) if any(rest) else x
        else:
            stride = (down if along_y else 1, down if along_x else 1)
            weight, same = weight.flip([2, 3]), px[0] == px[1] >= 0 and py[0] == py[1] >= 0
            x = x if same else F.pad(x, [*px, *py])
            x = F.conv2d(x, weight, stride=stride, padding=(py[0], px[0]) if same else 0, groups=c)
    return x


def filtered_lrelu(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, up: int, down: int, padding: list[int], clamp: float
) -> Tensor:
    """Each step as one writes it first."""
    return _filtered_lrelu(upfirdn2d, x, fu, fd, b, up, down, padding, clamp)


def filtered_lrelu_strided(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, up: int, down: int, padding: list[int], clamp: float
) -> Tensor:
    """The same with filters by strides."""
    return _filtered_lrelu(upfirdn2d_strided, x, fu, fd, b, up, down, padding, clamp)


def _filtered_lrelu(
    resample: Callable[..., Tensor],
    x: Tensor,
    fu: Tensor,
    fd: Tensor,
    b: Tensor,
    up: int,
    down: int,
    padding: list[int],
    clamp: float,
) -> Tensor:
    x = resample(x + b.to(x.dtype)[:, None, None], fu, up, 1, padding, float(up**2))
    return resample(_lrelu(x).clamp(-clamp, clamp), fd, 1, down, [0] * 4, 1.0)


def _epilogue(x: Tensor, demod: Tensor | None, noise: Tensor | None, bias: Tensor | None) -> Tensor:
    # x is a convolution's fresh output; in place where autograd allows it
    if torch.is_grad_enabled():
        x = x if demod is None else x * demod[:, :, None, None]
        x = x if noise is None else x + noise.to(x.dtype)
        return _lrelu(x if bias is None else x + bias[:, None, None].to(x.dtype))
    x = x if demod is None else x.mul_(demod[:, :, None, None])
    x = x if noise is None else x.add_(noise.to(x.dtype))
    x = x if bias is None else x.add_(bias[:, None, None].to(x.dtype))
    return F.leaky_relu_(x, 0.2).mul_(math.sqrt(2))


def convolution(
    x: Tensor, weight: Tensor, up: int, down: int, padding: int, f: Tensor | None, groups: int = 1
) -> Tensor:
    """A convolution with a low-pass filter after up-sampling or before down-sampling; f has 4 x 4 taps, up is 2."""
    kernel = weight.shape[-1]
    if up > 1 and f is not None:
        o, i = weight.shape[0] // groups, weight.shape[1]
        shape = (groups * i, o, kernel, kernel)
        transposed = weight.reshape(groups, o, i, kernel, kernel).transpose(1, 2).reshape(shape).flip([2, 3])
        x = F.conv_transpose2d(x, transposed, stride=up, groups=groups)
        return upfirdn2d_strided(x, f, 1, 1, [padding] * 4, float(up**2))
    if down > 1 and f is not None:
        if kernel == 1:
            return F.conv2d(upfirdn2d_strided(x, f, 1, down, [1] * 4, 1.0), weight, groups=groups)
        x = upfirdn2d_strided(x, f, 1, 1, [padding + 1] * 4, 1.0)
        return F.conv2d(x, weight, stride=down, groups=groups)
    return F.conv2d(x, weight, padding=padding, groups=groups)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor,
    bias: Tensor,
    act: str,
    up: int,
    down: int,
    padding: int,
    resample_filter: Tensor | None,
) -> Tensor:
    """Scale the input, convolve, scale the output."""
    demod = torch.rsqrt(styles.square() @ weight.square().sum([2, 3]).t() + 1e-8).to(x.dtype)
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = convolution(x, weight.to(x.dtype), up, down, padding, resample_filter)
    return _epilogue(x, demod, noise, bias)


def modulated_conv2d_grouped(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor,
    bias: Tensor,
    act: str,
    up: int,
    down: int,
    padding: int,
    resample_filter: Tensor | None,
) -> Tensor:
    """A weight for each sample, and one convolution with as many groups."""
    n, o = x.shape[0], weight.shape[0]
    w = weight * styles[:, None, :, None, None]
    w = (w * torch.rsqrt(w.square().sum([2, 3, 4], keepdim=True) + 1e-8)).to(x.dtype).reshape(n * o, *weight.shape[1:])
    x = convolution(x.reshape(1, -1, *x.shape[2:]), w, up, down, padding, resample_filter, groups=n)
    return _epilogue(x.reshape(n, o, *x.shape[2:]), None, noise, bias)


def plain_conv2d(x: Tensor, weight: Tensor, up: int, down: int, padding: int, **_: Any) -> Tensor:
    """The library's convolution of the same shape, and nothing else: what a modulated one is held against."""
    weight = weight.to(x.dtype)
    if up > 1:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)
    return F.conv2d(x, weight, stride=down, padding=padding)


def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    mean = x.mean([2, 3], keepdim=True)
    return mean, (x.var([2, 3], keepdim=True) + eps).sqrt()


def adain(content: Tensor, style: Tensor) -> Tensor:
    """The formula, as the published code has it."""
    mean, std = _statistics(content, 1e-5)
    style_mean, style_std = _statistics(style, 1e-5)
    return (content - mean) / std * style_std + style_mean


def adain_instance_norm(content: Tensor, style: Tensor) -> Tensor:
    """instance_norm, whose variance is the biased one, and an affine map."""
    style_mean, style_std = _statistics(style, 1e-5)
    return F.instance_norm(content, eps=1e-5) * style_std + style_mean


def _affine(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return (1 + scale.to(x.dtype)[:, :, None, None]) * x + bias.to(x.dtype)[:, :, None, None]


def adaptive_instance_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The formula."""
    centred = x - x.mean([2, 3], keepdim=True)
    x_hat = centred * torch.rsqrt(centred.square().mean([2, 3], keepdim=True) + 1e-8)
    return _affine(x_hat, scale, bias)


def adaptive_instance_norm_affine(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """instance_norm and an affine map."""
    return _affine(F.instance_norm(x, eps=1e-8), scale, bias)


def gram_matrix(x: Tensor) -> Tensor:
    """As one writes it first."""
    n, c, h, w = x.shape
    flat = x.reshape(n, c, h * w)
    return torch.bmm(flat, flat.transpose(1, 2)) / (c * h * w)


def gram_matrix_blocks(x: Tensor) -> Tensor:
    """Blocks of channels on and below the diagonal, the rest mirrored; for one sample, and without gradient."""
    n, c, h, w = x.shape
    flat, g, half = x.reshape(c, h * w), x.new_empty(n, c, c), c // 2
    torch.mm(flat[:half], flat[:half].t(), out=g[0, :half, :half])
    torch.mm(flat[half:], flat.t(), out=g[0, half:])
    g[0, :half, half:] = g[0, half:, :half].t()
    return g.div_(c * h * w)


def style_loss(x: Tensor, target: Tensor) -> Tensor:
    """As one writes it first; its gradient is two products."""
    return F.mse_loss(gram_matrix(x), target)


def style_loss_detached(x: Tensor, target: Tensor) -> Tensor:
    """With the gradient for one factor, doubled: the other's is the same, and a product is saved. First order only."""
    n, c, h, w = x.shape
    flat = x.reshape(n, c, h * w)
    g = torch.bmm(flat, flat.detach().transpose(1, 2)) / (c * h * w)
    return F.mse_loss(2 * g - g.detach(), target)


def feature_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """As one writes it first."""
    flat = x.flatten(2)
    mean = flat.mean(2, keepdim=True)
    flat = flat - mean
    return mean[:, :, 0], torch.bmm(flat, flat.mT) / flat.shape[2]


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT


def wasserstein_loss(x: Tensor, target_mean: Tensor, target_covariance: Tensor) -> Tensor:
    """By eigenvalues in float64, through which autograd goes."""
    mean, covariance = (t.double() for t in feature_statistics(x.float()))
    identity = 1e-5 * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    covariance, target_covariance = covariance + identity, target_covariance.double() + identity
    root = _root(target_covariance)
    apart = (mean - target_mean).square().sum(1)
    variances = covariance + target_covariance - 2 * _root(root @ covariance @ root)
    return (apart + variances.diagonal(dim1=1, dim2=2).sum(1)).mean().float()


def grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    """PyTorch's own, which takes a grid of the image's dtype."""
    return F.grid_sample(x, grid.to(x.dtype), align_corners=False)


def displaced_grid(displacement: Tensor) -> Tensor:
    """The grid of grid_sample for a displacement [N, 2, H, W] in pixels."""
    h, w = displacement.shape[2:]
    along_x, along_y = ((torch.arange(size, device=displacement.device) * 2 + 1) / size - 1 for size in (w, h))
    return torch.stack([displacement[:, 0] * (2 / w) + along_x, displacement[:, 1] * (2 / h) + along_y[:, None]], -1)


def displace(x: Tensor, displacement: Tensor, padding_mode: str = "zeros") -> Tensor:
    """PyTorch's grid_sample at a grid that is made for it."""
    grid = displaced_grid(displacement).to(x.dtype)
    return F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=False)


#: forms without a gradient
FORWARD_ONLY = ("eager blocks",)
#: forms in plain PyTorch by op; the first is the obvious one, which torch.compile gets too
FORMS: dict[str, dict[str, Callable[..., Any]]] = {
    "adain": {"eager": adain, "eager instance_norm": adain_instance_norm},
    "adaptive_instance_norm": {
        "eager": adaptive_instance_norm,
        "eager instance_norm": adaptive_instance_norm_affine,
    },
    "bias_act": {"eager": bias_act, "eager in place": bias_act_in_place},
    "feature_statistics": {"eager": feature_statistics},
    "gram_matrix": {"eager": gram_matrix, "eager blocks": gram_matrix_blocks},
    "style_loss": {"eager": style_loss, "eager detached": style_loss_detached},
    "wasserstein_loss": {"eager": wasserstein_loss},
    "displace": {"eager": displace},
    "grid_sample": {"eager": grid_sample},
    "upfirdn2d": {"eager": upfirdn2d, "eager strided": upfirdn2d_strided},
    "filtered_lrelu": {"eager": filtered_lrelu, "eager strided": filtered_lrelu_strided},
    "modulated_conv2d": {
        "eager": modulated_conv2d,
        "eager grouped": modulated_conv2d_grouped,
        "plain conv": plain_conv2d,
    },
}
