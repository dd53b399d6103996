"""The table of a network's layers: what is counted is what is there, and nothing is computed for it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from imgops import use_impl
from imgops.models import autoencoder, dcgan, progan, r3gan, stylegan1, stylegan2, stylegan3, vae, vqvae
from imgops.models.network import DiscriminatorNetwork, GeneratorNetwork, Network

SMALL = {"channel_base": 256, "channel_max": 16}
NETWORKS = {
    "stylegan2 G": lambda: stylegan2.Generator(8, 3, 12, 16, 3, mapping_layers=2, **SMALL),
    "stylegan2 D": lambda: stylegan2.Discriminator(3, 16, 3, **SMALL),
    "stylegan3-t G": lambda: stylegan3.Generator(8, 3, 12, 16, 3, num_layers=4, margin_size=4, **SMALL),
    "stylegan3-r G": lambda: stylegan3.Generator(8, 0, 12, 16, 1, "r", num_layers=4, margin_size=4, **SMALL),
    "stylegan1 G": lambda: stylegan1.Generator(8, 3, 12, 16, 3, mapping_layers=2, displacement=True, **SMALL),
    "stylegan1 D": lambda: stylegan1.Discriminator(3, 16, 3, **SMALL),
    "progan G": lambda: progan.Generator(8, 3, 16, 1, **SMALL),
    "progan D": lambda: progan.Discriminator(3, 16, 1, **SMALL),
    "r3gan G": lambda: r3gan.Generator(8, 3, 16, 4, **SMALL),
    "r3gan D": lambda: r3gan.Discriminator(3, 16, 4, **SMALL),
    "autoencoder": lambda: autoencoder.Autoencoder(8, 3, 28, 1, channels=4),
    "vae": lambda: vae.VAE(8, 3, 16, 4, channels=4),
    "vqvae": lambda: vqvae.VQVAE(3, 16, 3, two_levels=True, channels=4, num_codes=8, code_dim=4, prior_channels=8),
    "dcgan G": lambda: dcgan.Generator(8, 3, 28, 1, channels=4),
    "dcgan D": lambda: dcgan.Discriminator(3, 28, 1, channels=4),
}

#: those whose noise is random
NOISY = ("stylegan1 G", "stylegan2 G")


def arguments(network: Network, batch: int) -> list[torch.Tensor]:
    return [torch.randn(batch, *t.shape[1:]) for t in network.example()]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_summary_is_of_the_network(name):
    network = NETWORKS[name]().eval().requires_grad_(False)
    summary = network.summary()
    assert network.num_parameters == summary.parameters == sum(p.numel() for p in network.parameters())
    given = arguments(network, 1)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), use_impl("reference"):
        output = network.everything(*given)
    assert summary.flops == counter.get_total_flops() > 0
    names = {name for name, _ in network.named_modules()}
    assert {layer.name for layer in summary.layers} <= names
    assert name.endswith("D") or any(layer.shape == output.shape[1:] for layer in summary.layers)
    lines = str(summary).splitlines()
    assert len(lines) == len(summary.layers) + 2
    assert len({len(line) for line in lines}) == 1
    assert f"{network.num_parameters:,}" in lines[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_initialized_after_the_meta_device(name):
    with torch.device("meta"):
        empty = NETWORKS[name]()
    empty.to_empty(device="cpu")
    for t in empty.state_dict().values():
        t.fill_(float("nan") if t.is_floating_point() else -1)
    # as PyTorch's own wrappers do it: a module after those that hold it
    for module in empty.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    built = NETWORKS[name]().state_dict()
    for key, t in empty.state_dict().items():
        expected = built[key].double()
        if expected.numel() > 1 and expected.std() == 0:
            assert torch.equal(t, built[key]), key
        elif expected.numel() >= 64:
            assert t.double().std() == pytest.approx(float(expected.std()), rel=0.5), key
        assert t.isfinite().all(), key


@pytest.mark.parametrize("name", NETWORKS)
def test_copies_and_half_precision(name):
    network = NETWORKS[name]().eval()
    given = arguments(network, 2)
    # the noise of stylegan2 is random
    torch.manual_seed(0)
    expected = network(*given)
    for other in copy.deepcopy(network), pickle.loads(pickle.dumps(network)):
        torch.manual_seed(0)
        assert not other.training
        assert torch.equal(other(*given), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(*given).isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_arguments_that_do_not_fit_are_told(name):
    network = NETWORKS[name]()
    given, c = arguments(network, 2)
    what = "img" if isinstance(network, DiscriminatorNetwork) else "z"
    with pytest.raises(ValueError, match=rf"{what} must have shape \[N, {given.shape[1]}"):
        network(given[:, 1:], c)
    with pytest.raises(TypeError, match=f"{what} must be a torch.Tensor; got list"):
        network([1.0], c)
    with pytest.raises(ValueError, match="c must have a row for each of the 2 samples; got 1"):
        network(given, c[:1])
    with pytest.raises(ValueError, match=rf"c must have shape \[N, {network.c_dim}\]"):
        network(given, torch.ones(2, network.c_dim + 1))
    if network.c_dim:
        with pytest.raises(ValueError, match=rf"c must have shape \[N, {network.c_dim}\].*; got None"):
            network(given)


@pytest.mark.parametrize("build", [GeneratorNetwork, DiscriminatorNetwork])
def test_sizes_of_another_type_or_out_of_range_are_told(build):
    sizes = {"c_dim": 0, "img_resolution": 16, "img_channels": 3, **({"z_dim": 8} if build is GeneratorNetwork else {})}
    owner = build.__name__
    with pytest.raises(TypeError, match=f"{owner}: img_resolution must be a whole number or a pair"):
        build(**{**sizes, "img_resolution": (8, 8, 8)})
    for size in sizes:
        with pytest.raises(TypeError, match=f"{owner}: {size} must be an int; got float"):
            build(**{**sizes, size: 1.5})
        with pytest.raises(ValueError, match=f"{owner}: {size} must be >= [01]; got -1"):
            build(**{**sizes, size: -1})


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_compiles_to_one_graph_and_exports(name):
    network = NETWORKS[name]().eval()
    given = arguments(network, 2)
    torch.manual_seed(0)
    expected = network(*given)
    torch.manual_seed(0)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")(*given)
    exported = torch.export.export(network, tuple(given)).module()(*given)
    if name not in NOISY:
        torch.testing.assert_close(compiled, expected)
        torch.testing.assert_close(exported, expected)


def test_a_network_without_an_example_is_told():
    with pytest.raises(NotImplementedError, match="Network has no example"):
        Network().summary()
