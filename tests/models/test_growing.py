"""ProGAN and StyleGAN1 against their formulas in plain PyTorch, how they grow, and what a state dict of the port is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error
from torch import Tensor

import imgops
from imgops import _backend
from imgops.models import progan, stylegan1

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]
SMALL = {"channel_base": 128, "channel_max": 8}
LEVELS = [0, 0.25, 1, 1.5, 2]


def awake(network: torch.nn.Module) -> Any:
    """With random biases and strengths, so that every part matters; in float64."""
    with torch.no_grad():
        for p in network.parameters():
            if not p.any() or p.ndim == 1:
                p.normal_(std=0.3)
    return network.double()


def lrelu(x: Tensor, gain: float = 2**0.5) -> Tensor:
    return gain * F.leaky_relu(x, 0.2)


def conv(layer: Any, x: Tensor, flip: bool = False) -> Tensor:
    """An equalized convolution, without its activation."""
    weight = layer.weight / layer.weight[0].numel() ** 0.5
    return F.conv2d(x, weight.flip([2, 3]) if flip else weight, layer.bias, padding=layer.weight.shape[2] // 2)


def linear(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight / layer.weight.shape[1] ** 0.5, layer.bias)


def normed(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def faded(level: float, of: Any) -> Tensor:
    """The image of a level, or of two that are mixed: ``of(k)`` is that of level k."""
    low = int(level)
    return of(low) if low == level else twice(of(low)).lerp(of(low + 1), level - low)


def progan_images(G: progan.Generator, z: Tensor, c: Tensor | None, level: float) -> Tensor:
    def image(last: int) -> Tensor:
        x = normed(z) if c is None else torch.cat([normed(z), c], 1)
        for k in range(last + 1):
            block = G.get_submodule(f"b{4 * 2**k}")
            if k == 0:
                x = lrelu(linear(block.linear, x)).unflatten(1, (-1, *block.shape))
            else:
                x = lrelu(conv(block.conv0, twice(x), flip=True))
            x = normed(lrelu(conv(block.conv1, normed(x))))
        return conv(G.get_submodule(f"torgb{4 * 2**last}"), x)

    return faded(level, image)


def scores(D: Any, img: Tensor, c: Tensor | None, level: float, blurred: bool) -> Tensor:
    """Of ProGAN, or with a blur of StyleGAN1: filter and strided convolution as a mean after the whole convolution."""

    def down(layer: Any, x: Tensor) -> Tensor:
        if not blurred:
            return lrelu(F.avg_pool2d(conv(layer, x) - layer.bias[:, None, None], 2) + layer.bias[:, None, None])
        taps = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype) / 8
        f = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
        y = F.conv2d(F.pad(x, (2, 2, 2, 2)), f, groups=x.shape[1])
        weight = layer.weight / layer.weight[0].numel() ** 0.5
        return lrelu(F.conv2d(y, weight, layer.bias, stride=2))

    def read(k: int, img: Tensor) -> Tensor:
        return lrelu(conv(D.get_submodule(f"fromrgb{4 * 2**k}"), img))

    top = -int(-level // 1)
    x = read(top, img)
    for k in range(top, 0, -1):
        block = D.get_submodule(f"b{4 * 2**k}")
        x = down(block.conv1, lrelu(conv(block.conv0, x)))
        if k == top and level < top:
            x = read(k - 1, F.avg_pool2d(img, 2)).lerp(x, level - (top - 1))
    block = D.b4
    spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean().expand(len(x), 1, *x.shape[2:])
    x = lrelu(linear(block.linear, lrelu(conv(block.conv, torch.cat([x, spread], 1))).flatten(1)))
    logits = linear(D.out, x)
    if c is None:
        return logits
    embedded = c @ D.embed.weight.t() / D.c_dim**0.5
    return logits + (embedded * x).sum(1, keepdim=True) / x.shape[1] ** 0.5


def equal(layer: Any, x: Tensor) -> Tensor:
    """A layer of StyleGAN1: linear or a convolution, weights times sqrt(2 / fan in)."""
    held = layer.linear if hasattr(layer, "linear") else layer.conv
    weight = held.weight_orig * (2 / held.weight_orig[0].numel()) ** 0.5
    if weight.ndim == 2:
        return F.linear(x, weight, held.bias)
    return F.conv2d(x, weight, held.bias, padding=weight.shape[2] // 2)


def blur(x: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 2, 1], dtype=x.dtype) / 4
    return F.conv2d(x, torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def styled_images(G: stylegan1.Generator, z: Tensor, noise: list[Tensor], level: float) -> Tensor:
    def style(norm: Any, x: Tensor, w: Tensor) -> Tensor:
        scale, bias = equal(norm.style, w)[:, :, None, None].chunk(2, 1)
        return scale * F.instance_norm(x, eps=1e-8) + bias

    def noisy(layer: Any, x: Tensor, noise: Tensor) -> Tensor:
        return lrelu(x + layer.weight_orig * (2 / layer.weight_orig.shape[1]) ** 0.5 * noise, 1)

    def image(last: int) -> Tensor:
        w = normed(z)
        for i in range(G.style.num_layers):
            w = lrelu(equal(G.style.get_submodule(str(2 * i + 1)), w), 1)
        x = z
        for k in range(last + 1):
            block = G.generator.progression[k]
            if k == 0:
                x = block.conv1.input.expand(len(z), -1, -1, -1)
            elif block.conv1.fused:
                fused = block.conv1.get_submodule("0")
                weight = F.pad(fused.weight * (2 / (9 * fused.weight.shape[0])) ** 0.5, (1, 1, 1, 1))
                shifts = weight[..., 1:, 1:] + weight[..., 1:, :-1] + weight[..., :-1, 1:] + weight[..., :-1, :-1]
                x = blur(F.conv_transpose2d(x, shifts / 4, fused.bias, stride=2, padding=1))
            else:
                x = blur(equal(block.conv1.get_submodule("1"), twice(x)))
            x = style(block.adain1, noisy(block.noise1, x, noise[2 * k]), w)
            x = style(block.adain2, noisy(block.noise2, equal(block.conv2, x), noise[2 * k + 1]), w)
        return equal(G.generator.to_rgb[last], x)

    return faded(level, image)


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("c_dim", "resolution", "channels"), [(0, 16, 3), (3, (16, 24), 1)])
def test_progan_is_its_formula(impl, level, c_dim, resolution, channels):
    G = awake(progan.Generator(8, c_dim, resolution, channels, **SMALL))
    z, c = torch.randn(4, 8).double(), torch.eye(3)[[0, 1, 2, 0]].double() if c_dim else None
    G.grow(level)
    with imgops.use_impl(impl):
        images = G.grown(z, c)
        assert relative_error(images, progan_images(G, z, c, level)) < 1e-12
        whole = G(z, c)
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert whole.shape == (4, channels, height, width)
    assert torch.equal(whole, F.interpolate(images, (height, width)))


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("module", [progan, stylegan1])
def test_discriminators_are_their_formula_and_its_gradients(impl, level, module):
    """Of the second order, as penalties need them."""
    D = awake(module.Discriminator(3, 16, 3, **SMALL))
    D.grow(level)
    side = 4 * 2 ** -int(-level // 1)
    img, c = torch.randn(4, 3, side, side).double(), torch.eye(3)[[0, 1, 2, 0]].double()

    def penalty(score: Any) -> tuple[Tensor, ...]:
        x = img.clone().requires_grad_()
        (slope,) = torch.autograd.grad(score(x).sum(), x, create_graph=True)
        weights = [p for p in D.parameters() if p.ndim > 1]
        gradients = torch.autograd.grad(slope.square().sum(), weights, allow_unused=True)
        return tuple(g for g in gradients if g is not None)

    with imgops.use_impl(impl):
        assert relative_error(D(img, c), scores(D, img, c, level, module is stylegan1)) < 1e-12
        found = penalty(lambda x: D(x, c))
    wanted = penalty(lambda x: scores(D, x, c, level, module is stylegan1))
    assert len(found) == len(wanted) > 0
    for gradient, expected in zip(found, wanted, strict=True):
        assert float((gradient - expected).norm()) <= 1e-9 * float(expected.norm()) + 1e-12


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("level", LEVELS)
def test_stylegan1_is_its_formula(impl, level):
    G = awake(stylegan1.Generator(8, 0, 12, 16, 3, mapping_layers=2, **SMALL))
    G.grow(level)
    z = torch.randn(4, 8).double()
    noise = [torch.randn(4, *shape).double() for shape in G.synthesis.noise_shapes]
    with imgops.use_impl(impl):
        images = G.synthesis.grown(G.mapping(z), noise=noise)
    assert relative_error(images, styled_images(G, z, noise, level)) < 1e-10


def test_from_128_pixels_on_stylegan1_has_transposed_convolutions():
    G = awake(stylegan1.Generator(8, 0, 12, 128, 3, mapping_layers=1, **SMALL))
    z = torch.randn(1, 8).double()
    noise = [torch.randn(1, *shape).double() for shape in G.synthesis.noise_shapes]
    images = G.synthesis(G.mapping(z), noise=noise)
    assert relative_error(images, styled_images(G, z, noise, 5)) < 1e-10


def test_stylegan1_takes_a_state_dict_of_the_port():
    G = stylegan1.Generator(8, 0, 8, 128, 3, mapping_layers=2, **SMALL)
    block = {"noise1.weight_orig", "adain1.style.linear.weight_orig", "adain1.style.linear.bias"}
    block |= {name.replace("1", "2") for name in block} | {"conv2.conv.weight_orig", "conv2.conv.bias"}
    up = {"conv1.1.conv.weight_orig", "conv1.1.conv.bias"}
    firsts = [{"conv1.input"}, up, up, up, up, {"conv1.0.weight", "conv1.0.bias"}]
    keys = {f"generator.progression.{k}.{name}" for k, first in enumerate(firsts) for name in block | first}
    keys |= {f"generator.to_rgb.{k}.conv.{name}" for k in range(6) for name in ("weight_orig", "bias")}
    keys |= {f"style.{k}.linear.{name}" for k in (1, 3) for name in ("weight_orig", "bias")}
    assert keys | {"generator.level", "style.w_avg"} == set(G.state_dict())
    port = {key: torch.randn(G.state_dict()[key].shape) for key in keys}
    # the port's filters are buffers
    port |= {f"generator.progression.{k}.conv1.{2 - (k == 5)}.weight": torch.ones(8, 1, 3, 3) for k in range(1, 6)}
    port |= {f"{key}_flip": t for key, t in port.items() if t.shape == (8, 1, 3, 3)}
    G.grow(2)
    G.load_state_dict(port)
    assert G.synthesis.top == 5
    w = G.mapping(torch.randn(4000, 8))[:, 0].detach()
    assert float((G.style.w_avg - w.mean(0)).norm()) < 0.1 * float(w.std(0).norm())
    average = G.style.w_avg.clone()
    G.grow(1)
    G.load_state_dict({"generator.to_rgb.0.conv.bias": torch.zeros(3)}, strict=False)
    assert G.synthesis.top == 1
    assert torch.equal(G.style.w_avg, average)
    with pytest.raises(RuntimeError, match=r"style\.1\.linear\.bias"):
        G.load_state_dict({key: t for key, t in port.items() if key != "style.1.linear.bias"})


@pytest.mark.parametrize("make", [progan.Generator, progan.Discriminator, stylegan1.Generator])
def test_a_state_dict_holds_how_far_a_network_has_grown(make):
    first, other = make(img_resolution=16, **SMALL), make(img_resolution=16, **SMALL)
    first.grow(1.25)
    other.load_state_dict(first.state_dict())
    growing = other.generator if make is stylegan1.Generator else other
    assert (growing.top, growing.fading, float(growing.level)) == (2, True, 1.25)
    smaller = make(img_resolution=8, **SMALL)
    first.grow(2)
    smaller.load_state_dict({key: t for key, t in first.state_dict().items() if "level" in key}, strict=False)
    assert (smaller.generator if make is stylegan1.Generator else smaller).top == 1
    copied = copy.deepcopy(growing)
    copied.grow(0)
    assert (copied.top, copied.fading) == (0, False)
    assert growing.top == 2


@pytest.mark.parametrize("make", [progan.Generator, progan.Discriminator, stylegan1.Generator])
def test_a_network_of_the_meta_device_begins_with_all_levels(make):
    with torch.device("meta"):
        network = make(img_resolution=16, **SMALL)
    network.to_empty(device="cpu")
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    growing = network.generator if make is stylegan1.Generator else network
    assert (float(growing.level), growing.top) == (2, 2)


def test_constant_noise_is_the_same_in_every_network():
    first, other = (stylegan1.Generator(8, 0, 8, 16, 3, mapping_layers=1, **SMALL) for _ in range(2))
    awake(first)
    other.double().load_state_dict(first.state_dict())
    z = torch.randn(2, 8).double()
    assert torch.equal(first(z, noise_mode="const"), other(z, noise_mode="const"))
    assert not torch.equal(first(z, noise_mode="const"), first(z, noise_mode="none"))
    assert not torch.equal(first(z), first(z))


def test_displacement_leaves_an_untrained_network_as_it_is():
    plain = stylegan1.Generator(8, 0, 8, 16, 3, mapping_layers=1, **SMALL)
    moved = stylegan1.Generator(8, 0, 8, 16, 3, mapping_layers=1, displacement=True, **SMALL)
    missing, unexpected = moved.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {key.split(".")[1] for key in missing} == {"displacement"}
    z = torch.randn(2, 8)
    torch.testing.assert_close(moved(z, noise_mode="none"), plain(z, noise_mode="none"))
    with torch.no_grad():
        for layer in moved.generator.displacement:
            layer.bias.fill_(0.5)
    assert not torch.allclose(moved(z, noise_mode="none"), plain(z, noise_mode="none"))
    # a resolution that begins to fade in changes nothing yet
    moved.grow(1)
    whole = moved(z, noise_mode="none")
    moved.grow(1 + 1e-6)
    torch.testing.assert_close(moved(z, noise_mode="none"), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("half_dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [progan.Generator, stylegan1.Generator])
def test_half_precision_stays_close(make, half_dtype):
    full, half = (make(z_dim=8, img_resolution=16, num_fp16_res=n, half_dtype=half_dtype, **SMALL) for n in (0, 2))
    half.load_state_dict(full.state_dict())
    z = torch.randn(2, 8)
    if make is stylegan1.Generator:
        images, narrow = (G(z, noise_mode="none") for G in (full, half))
    else:
        images, narrow = full(z), half(z)
    assert narrow.dtype == torch.float32
    assert 0 < relative_error(narrow, images) < 5e-2


def test_wrong_arguments_are_told():
    G = stylegan1.Generator(8, 0, 8, 16, 3, mapping_layers=1, **SMALL)
    for level in (-0.5, 2.5):
        with pytest.raises(ValueError, match=r"level must be in \[0, 2\]; got"):
            G.grow(level)
    with pytest.raises(ValueError, match="noise must be 6 tensors"):
        G.synthesis(G.mapping(torch.randn(2, 8)), noise=[])
    with pytest.raises(ValueError, match="noise_mode"):
        G(torch.randn(2, 8), noise_mode="loud")
    with pytest.raises(ValueError, match=r"z must have shape \[N, 8\]"):
        G(torch.randn(2, 9))
    D = progan.Discriminator(0, 16, 3, **SMALL)
    D.grow(1)
    with pytest.raises(ValueError, match=r"img must have shape \[N, 3, 8, 8\]"):
        D(torch.randn(4, 3, 16, 16))
