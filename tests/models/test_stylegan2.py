"""StyleGAN2 against the recorded networks, and what a user does with it: train, compile, copy, load, halve."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from golden import Case, cases, relative_error

import imgops
from imgops import _backend
from imgops.models.stylegan2 import Discriminator, Generator, MappingNetwork
from imgops.nn import EqualizedConv2d, SynthesisLayer, ToRGB

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]
ARCHITECTURES = ["skip", "resnet", "orig"]
SMALL = {"channel_base": 512, "channel_max": 16, "mapping_layers": 2}


def generator(c_dim: int = 3, img_channels: int = 3, **kwargs: Any) -> Generator:
    """16 px, with noise that shows."""
    network = Generator(8, c_dim, 12, 16, img_channels, **{**SMALL, **kwargs})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    return network


def discriminator(c_dim: int = 3, img_channels: int = 3, **kwargs: Any) -> Discriminator:
    return Discriminator(c_dim, 16, img_channels, **{**SMALL, **kwargs})


def inputs(batch: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """(z, c)."""
    return torch.randn(batch, 8), torch.eye(batch, 3)


def recorded(network_type: type[torch.nn.Module], case: Case, prefix: str = "state/") -> Any:
    """The network of a case, with its weights."""
    names = inspect.signature(network_type).parameters
    network = network_type(**{k: v for k, v in case.params.items() if v is not None and k in names})
    network.load_state_dict({k.removeprefix(prefix): v for k, v in case.arrays.items() if k.startswith(prefix)})
    return network


def path_lengths(G: Generator, w: torch.Tensor, img: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    (dw,) = torch.autograd.grad((img * noise).sum(), w, create_graph=True)
    return dw.square().sum(2).mean(1).sqrt()


def r1_penalties(D: Discriminator, img: torch.Tensor, c: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """(logits, gradient, penalty per image)."""
    img = img.detach().requires_grad_()
    logits = D(img, c)
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    return logits, gradient, gradient.square().sum((1, 2, 3))


def gradients(loss: torch.Tensor, network: torch.nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    return dict(zip(names, torch.autograd.grad(loss, [network.get_parameter(n) for n in names]), strict=True))


def assert_close(case, **computed):
    """Against what is recorded of the case by these names."""
    for name, value in computed.items():
        assert relative_error(value, case.arrays[name]) < 1e-4, name


def assert_close_gradients(actual: dict[str, torch.Tensor], case: Case, prefix: str) -> None:
    """Each to 1e-4 of its own size, and a rounding of the float32 record: 1e-5 of the largest one.

    R1 reaches the biases only through the minibatch deviation, as a small difference of large terms: those
    records differ from a float64 evaluation by 3e-4 of their own size, or 6e-6 of the largest gradient.
    """
    expected = {k.removeprefix(prefix): v for k, v in case.arrays.items() if k.startswith(prefix)}
    assert expected.keys() == actual.keys()
    rounding = 1e-5 * max(float(g.abs().max()) for g in expected.values())
    for name, gradient in actual.items():
        allowed = 1e-4 * float(expected[name].abs().max()) + rounding
        assert float((gradient - expected[name]).abs().max()) <= allowed, name


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("case", list(cases("stylegan2_generator")))
def test_recorded_generator(case, impl):
    a, c = case.arrays, case.arrays.get("c")
    G = recorded(Generator, case)
    psi, cutoff = case.params["truncation_psi"], case.params["truncation_cutoff"]
    with imgops.use_impl(impl):
        w = G.mapping(a["z"], c)
        img = G.synthesis(w, noise_mode="const")
        assert_close(case, w=w, img=img, img_trunc=G(a["z"], c, psi, cutoff, noise_mode="const"))
        # the recorded noise is already divided by sqrt(height * width)
        lengths = path_lengths(G, w, img, a["pl_noise"])
        assert_close(case, pl_lengths=lengths)
        names = [k[8:] for k in a if k.startswith("pl_grad/")]
        assert_close_gradients(gradients(lengths.sum(), G, names), case, "pl_grad/")


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("case", list(cases("stylegan2_discriminator")))
def test_recorded_discriminator(case, impl):
    a = case.arrays
    D = recorded(Discriminator, case)
    with imgops.use_impl(impl):
        logits, img_grad, r1 = r1_penalties(D, a["img"], a.get("c"))
        assert_close(case, logits=logits, img_grad=img_grad, r1=r1)
        names = [k[8:] for k in a if k.startswith("r1_grad/")]
        assert_close_gradients(gradients(r1.mean(), D, names), case, "r1_grad/")


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("case", list(cases("stylegan2_clamped")))
def test_recorded_clamped_networks(case, impl):
    a, c = case.arrays, case.arrays.get("c")
    with imgops.use_impl(impl):
        assert_close(case, img=recorded(Generator, case, "G/")(a["z"], c, noise_mode="const"))
        assert_close(case, logits=recorded(Discriminator, case, "D/")(a["x"], c))


@pytest.mark.skipif(not CPU.available, reason=CPU.reason)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backends_agree_on_second_order_gradients_in_float64(architecture):
    G = generator(architecture=architecture).double()
    D = discriminator(architecture=architecture).double()
    (z, c), noise = inputs(), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    found = {}
    for impl in ("reference", "cpu"):
        with imgops.use_impl(impl):
            w = G.mapping(z, c)
            img = G.synthesis(w, noise_mode="const")
            lengths = path_lengths(G, w, img, noise)
            r1 = r1_penalties(D, img, c)[2]
            found[impl] = [
                img,
                *torch.autograd.grad(lengths.sum(), list(G.parameters()), materialize_grads=True, retain_graph=True),
                *torch.autograd.grad(r1.sum(), list(D.parameters()), materialize_grads=True),
            ]
    for actual, expected in zip(found["cpu"], found["reference"], strict=True):
        assert relative_error(actual, expected) < 1e-9 or float((actual - expected).abs().max()) < 1e-12


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("img_channels", [1, 4])
def test_architectures_and_channels(architecture, img_channels):
    z, c = inputs()
    G = generator(architecture=architecture, img_channels=img_channels)
    D = discriminator(architecture=architecture, img_channels=img_channels)
    img = G(z, c)
    logits = D(img, c)
    assert img.shape == (4, img_channels, 16, 16)
    assert logits.shape == (4, 1)
    logits.sum().backward()
    for name, parameter in [*G.named_parameters(), *D.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_sizes_of_the_published_256px_networks():
    G, D = Generator(512, 0, 512, 256, 3), Discriminator(0, 256, 3)
    assert G.num_ws == 14
    assert sum(p.numel() for p in G.parameters()) == 30_034_338
    assert sum(p.numel() for p in D.parameters()) == 28_864_129


@pytest.mark.parametrize("half_channels_last", [False, True])
@pytest.mark.parametrize(("half_dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_stays_close(architecture, half_dtype, tolerance, half_channels_last):
    z, c = inputs()
    full = generator(architecture=architecture), discriminator(architecture=architecture)
    settings = {"num_fp16_res": 1, "half_dtype": half_dtype, "half_channels_last": half_channels_last}
    half = generator(architecture=architecture, **settings), discriminator(architecture=architecture, **settings)
    seen = set()
    for network, narrow in zip(full, half, strict=True):
        narrow.load_state_dict(network.state_dict())
    half[0].synthesis.b16.conv1.register_forward_hook(lambda layer, x, y: seen.add(y.dtype))
    img, narrow_img = full[0](z, c, noise_mode="const"), half[0](z, c, noise_mode="const")
    logits, narrow_logits = full[1](img, c), half[1](img, c)
    assert seen == {half_dtype}
    assert narrow_img.dtype == narrow_logits.dtype == torch.float32
    assert 0 < relative_error(narrow_img, img) < tolerance
    assert 0 < relative_error(narrow_logits, logits) < tolerance
    half[1](narrow_img, c).sum().backward()
    assert all(p.grad.isfinite().all() for network in half for p in network.parameters())


@pytest.mark.parametrize("num_fp16_res", [0, 1])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_clamp_holds_in_every_precision(architecture, num_fp16_res):
    """In every convolution but the skips and the fromrgb of 4x4, which published networks leave open."""
    settings = {"architecture": architecture, "num_fp16_res": num_fp16_res, "conv_clamp": 0.125}
    G, D = generator(**settings), discriminator(**settings)
    largest: dict[str, float] = {}
    for network in (G, D):
        for name, layer in network.named_modules():
            # a resnet's layers give their share of the sum, sqrt(1 / 2)
            if isinstance(layer, (EqualizedConv2d, SynthesisLayer, ToRGB)):
                torch.nn.init.normal_(layer.weight, std=50)
                layer.register_forward_hook(
                    lambda layer, x, y, name=name: largest.__setitem__(name, float(y.detach().abs().max()))
                )
    z, c = inputs()
    D(G(z, c), c)
    unlimited = {n for n in largest if n.endswith(".skip") or n == "b4.fromrgb"}
    assert len(largest) >= 10
    assert all(largest[n] > 0.125 for n in unlimited)
    assert all(largest[n] in (0.125, pytest.approx(0.125 * 0.5**0.5, rel=4e-3)) for n in largest.keys() - unlimited)


def test_noise_modes():
    z, c = inputs()
    G = generator()
    w = G.mapping(z, c)
    assert torch.equal(G.synthesis(w, "const"), G.synthesis(w, "const"))
    assert torch.equal(G.synthesis(w, "none"), G.synthesis(w, "none"))
    assert not torch.equal(G.synthesis(w), G.synthesis(w))
    assert not torch.equal(G.synthesis(w, "none"), G.synthesis(w, "const"))
    quiet = generator(use_noise=False)
    assert not any("noise" in key for key in quiet.state_dict())
    assert torch.equal(quiet.synthesis(w), quiet.synthesis(w, "const"))


def test_average_w_moves_only_in_training_and_when_asked():
    z, c = inputs()
    G = generator()
    G.mapping(z, c)
    assert not G.mapping.w_avg.any()
    G.eval().mapping(z, c, update_w_avg=True)
    assert not G.mapping.w_avg.any()
    w = G.train().mapping(z, c, update_w_avg=True)
    torch.testing.assert_close(G.mapping.w_avg, 0.002 * w[:, 0].detach().mean(0))
    assert not G.mapping.w_avg.requires_grad


def test_truncation():
    z, c = inputs()
    G = generator()
    torch.nn.init.normal_(G.mapping.w_avg)
    w, mean = G.mapping(z, c), G.mapping.w_avg
    torch.testing.assert_close(G.mapping(z, c, 0.0), mean.expand_as(w))
    torch.testing.assert_close(G.mapping(z, c, 0.5), mean + 0.5 * (w - mean))
    cut = G.mapping(z, c, 0.5, 2)
    torch.testing.assert_close(cut[:, :2], mean + 0.5 * (w[:, :2] - mean))
    assert torch.equal(cut[:, 2:], w[:, 2:])


def test_labels_matter_in_both_networks():
    z, c = inputs()
    G, D = generator(), discriminator()
    img = G(z, c, noise_mode="const")
    assert not torch.allclose(img, G(z, c.roll(1, 1), noise_mode="const"))
    assert not torch.allclose(D(img, c), D(img, c.roll(1, 1)))
    torch.testing.assert_close(D(img, c.long()), D(img, c))


def test_label_free_networks_take_none_or_empty_labels():
    z, img = torch.randn(2, 8), torch.randn(2, 3, 16, 16)
    G, D = generator(c_dim=0), discriminator(c_dim=0)
    assert torch.equal(G.mapping(z), G.mapping(z, torch.zeros(2, 0)))
    assert torch.equal(D(img), D(img, torch.zeros(2, 0)))


def test_autocast():
    z, c = inputs()
    G, D = generator(), discriminator()
    expected = D(G(z, c, noise_mode="const"), c)
    with torch.autocast("cpu", torch.bfloat16):
        logits = D(G(z, c, noise_mode="const"), c)
    assert 0 < relative_error(logits.float(), expected) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("impl", BACKENDS)
def test_compiles_to_one_graph(impl):
    z, c = inputs()
    G, D = generator(), discriminator()
    with imgops.use_impl(impl):
        w = G.mapping(z, c).detach()
        expected = G.synthesis(w, noise_mode="const")
        img = torch.compile(G.synthesis, fullgraph=True, backend="aot_eager")(w, noise_mode="const")
        torch.testing.assert_close(img, expected)
        logits = torch.compile(D, fullgraph=True, backend="aot_eager")(img, c)
        torch.testing.assert_close(logits, D(expected, c))
        parameters = [p for n, p in G.named_parameters() if n.startswith("synthesis.")]
        actual = torch.autograd.grad(logits.sum(), parameters)
        for a, b in zip(actual, torch.autograd.grad(D(expected, c).sum(), parameters), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.skipif(
    not hasattr(torch._dynamo.config, "trace_autograd_ops"), reason="this torch does not trace autograd.grad"
)
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_r1_compiles_to_one_graph(impl):
    D = discriminator()
    parameters = list(D.parameters())

    def step(img, c):
        return torch.autograd.grad(r1_penalties(D, img, c)[2].mean(), parameters, materialize_grads=True)

    img, c = torch.randn(4, 3, 16, 16), torch.eye(4, 3)
    with imgops.use_impl(impl):
        expected = step(img, c)
        actual = torch.compile(step, fullgraph=True, backend="aot_eager")(img, c)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Generator(8, 0, 8, 47, 3), "Network: img_resolution must be a side, or height and width, .*; got 47"),
        (lambda: Discriminator(0, (4, 4), 3), "Discriminator: img_resolution must be a side, .*; got 4x4"),
        (lambda: MappingNetwork(0, 0, 8), "MappingNetwork: one of z_dim and c_dim must be above 0"),
        (lambda: generator(architecture="other"), "architecture must be one of orig, skip, resnet; got 'other'"),
        (lambda: discriminator(architecture="other"), "architecture must be one of orig, skip, resnet; got 'other'"),
        (lambda: generator(act="other"), "act must be one of linear, relu"),
        (lambda: generator(half_dtype=torch.float32), "half_dtype must be torch.float16 or torch.bfloat16"),
        (lambda: discriminator(num_fp16_res=-1), "num_fp16_res must be >= 0; got -1"),
        (lambda: generator().synthesis(torch.randn(2, 12)), r"w must have shape \[N, 6, 12\]; got \[2, 12\]"),
        (
            lambda: generator()(*inputs(), noise_mode="other"),
            "noise_mode must be one of random, const, none; got 'other'",
        ),
        (lambda: generator()(*inputs(), 0.5, 7), r"truncation_cutoff must be in \[0, 6\]; got 7"),
        (lambda: MappingNetwork(0, 3, 8)(None, torch.ones(2, 3), 0.5), "need an average"),
        (lambda: discriminator()(torch.randn(6, 3, 16, 16), torch.ones(6, 3)), "multiple of group_size 4; got 6"),
    ],
)
def test_bad_arguments_end_in_one_clear_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
