"""R3GAN against its formula in plain PyTorch, and what its penalties need: gradients of the second order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error
from torch import Tensor

import imgops
from imgops import _backend
from imgops.models.r3gan import Discriminator, Generator, ResidualBlock

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]
SMALL = {"channel_base": 256, "channel_max": 16, "blocks": 1}


def awake(network: torch.nn.Module) -> Any:
    """With random biases and last weights in its blocks, so that every part matters."""
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.normal_(std=0.3)
    return network.double()


def block(module: ResidualBlock, x: Tensor) -> Tensor:
    y = F.leaky_relu(F.conv2d(x, module.conv1.weight, module.conv1.bias), 0.2)
    y = F.leaky_relu(F.conv2d(y, module.conv2.weight, module.conv2.bias, padding=1, groups=module.conv2.groups), 0.2)
    return x + F.conv2d(y, module.conv3.weight)


def filtered(x: Tensor, up: bool) -> Tensor:
    """By [1, 2, 1] along both axes, on twice or half as many pixels."""
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    kernel = torch.outer(taps, taps)[None, None].repeat(x.shape[1], 1, 1, 1)
    if not up:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, groups=x.shape[1])[:, :, ::2, ::2]
    zeros = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    zeros[:, :, ::2, ::2] = x
    return 4 * F.conv2d(F.pad(zeros, (2, 0, 2, 0)), kernel, groups=x.shape[1])


def generated(G: Generator, z: Tensor, c: Tensor | None) -> Tensor:
    z = z if c is None else torch.cat([z, c @ G.embed.weight.t()], 1)
    x = G.basis * (z @ G.linear.weight.t())[:, :, None, None]
    for res in G.block_resolutions:
        for layer in G.get_submodule(f"b{res}"):
            if isinstance(layer, ResidualBlock):
                x = block(layer, x)
            else:
                x = filtered(x if layer.conv is None else F.conv2d(x, layer.conv.weight), up=True)
    return F.conv2d(x, G.torgb.weight, G.torgb.bias)


def scored(D: Discriminator, x: Tensor, c: Tensor | None) -> Tensor:
    x = F.conv2d(x, D.fromrgb.weight, D.fromrgb.bias)
    for res in D.block_resolutions:
        for layer in D.get_submodule(f"b{res}"):
            if isinstance(layer, ResidualBlock):
                x = block(layer, x)
            else:
                x = filtered(x, up=False)
                x = x if layer.conv is None else F.conv2d(x, layer.conv.weight)
    features = (x * D.basis).sum((2, 3)) @ D.linear.weight.t()
    return features if c is None else (features * (c @ D.embed.weight.t())).sum(1, keepdim=True) / 64**0.5


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize(("resolution", "channels"), [(16, 3), ((24, 16), 1), (32, 4)])
def test_the_formula(impl, c_dim, resolution, channels):
    G = awake(Generator(8, c_dim, resolution, channels, **SMALL))
    D = awake(Discriminator(c_dim, resolution, channels, **SMALL))
    z = torch.randn(3, 8, dtype=torch.float64)
    c = torch.eye(3, dtype=torch.float64) if c_dim else None
    with imgops.use_impl(impl):
        images = G(z, c)
        assert relative_error(images, generated(G, z, c)) < 1e-12
        assert relative_error(D(images, c), scored(D, images, c)) < 1e-12
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert images.shape == (3, channels, height, width)


@pytest.mark.parametrize("impl", BACKENDS)
def test_gradients_of_the_penalty(impl):
    D = awake(Discriminator(0, 16, 3, **SMALL))
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)

    def penalty(network: Any) -> Any:
        x = images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), list(D.parameters()), materialize_grads=True)

    with imgops.use_impl(impl):
        found = penalty(D)
    for gradient, expected in zip(found, penalty(lambda x: scored(D, x, None)), strict=True):
        assert float((gradient - expected).norm()) <= 1e-9 * float(expected.norm()) + 1e-12


def test_blocks_begin_as_the_identity():
    x = torch.randn(2, 16, 8, 8)
    module = ResidualBlock(16, 8)
    assert torch.equal(module(x), x)
    assert module.conv2.groups == 2
    assert ResidualBlock(6, 8).conv2.groups == 1


def test_the_variance_stays_the_same_through_both_networks():
    """Of new networks, so that they learn at once without normalization."""
    torch.manual_seed(0)
    wide = {"channel_base": 4096, "channel_max": 256}
    with torch.no_grad():
        images = Generator(64, 0, 64, 3, **wide)(torch.randn(16, 64))
        logits = Discriminator(0, 64, 3, **wide)(images)
    assert 0.3 < float(images.std()) < 3
    assert 0.1 < float(logits.std()) < 3


@pytest.mark.parametrize("half_dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(half_dtype):
    z = torch.randn(2, 8)
    full, half = (Generator(8, 0, 16, 3, num_fp16_res=n, half_dtype=half_dtype, **SMALL) for n in (0, 1))
    half.load_state_dict(full.state_dict())
    images, narrow = full(z), half(z)
    assert narrow.dtype == torch.float32
    assert 0 < relative_error(narrow, images) < 3e-2


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="blocks must be >= 1; got 0"):
        Generator(blocks=0)
    with pytest.raises(ValueError, match="img_resolution"):
        Discriminator(0, 31)
