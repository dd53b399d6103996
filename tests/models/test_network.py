"""The table of a network's layers: what is counted is what is there, and nothing is computed for it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from imgops import use_impl
from imgops.models import autoencoder, dcgan, r3gan, stylegan2, stylegan3, vae, vqvae
from imgops.models.network import Network

SMALL = {"channel_base": 256, "channel_max": 16}
NETWORKS = {
    "stylegan2 G": lambda: stylegan2.Generator(8, 3, 12, 16, 3, mapping_layers=2, **SMALL),
    "stylegan2 D": lambda: stylegan2.Discriminator(3, 16, 3, **SMALL),
    "stylegan3-t G": lambda: stylegan3.Generator(8, 3, 12, 16, 3, num_layers=4, margin_size=4, **SMALL),
    "stylegan3-r G": lambda: stylegan3.Generator(8, 0, 12, 16, 1, "r", num_layers=4, margin_size=4, **SMALL),
    "r3gan G": lambda: r3gan.Generator(8, 3, 16, 4, **SMALL),
    "r3gan D": lambda: r3gan.Discriminator(3, 16, 4, **SMALL),
    "autoencoder": lambda: autoencoder.Autoencoder(8, 3, 28, 1, channels=4),
    "vae": lambda: vae.VAE(8, 3, 16, 4, channels=4),
    "vqvae": lambda: vqvae.VQVAE(3, 16, 3, two_levels=True, channels=4, num_codes=8, code_dim=4, prior_channels=8),
    "dcgan G": lambda: dcgan.Generator(8, 3, 28, 1, channels=4),
    "dcgan D": lambda: dcgan.Discriminator(3, 28, 1, channels=4),
}


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
def test_copies_and_half_precision(name):
    network = NETWORKS[name]().eval()
    given = arguments(network, 2)
    expected = network(*given)
    assert torch.equal(copy.deepcopy(network)(*given), expected) or "stylegan2 G" in name
    with torch.autocast("cpu", torch.bfloat16):
        assert network(*given).isfinite().all()


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
    if name != "stylegan2 G":
        # whose noise is random
        torch.testing.assert_close(compiled, expected)
        torch.testing.assert_close(exported, expected)


def test_a_network_without_an_example_is_told():
    with pytest.raises(NotImplementedError, match="Network has no example"):
        Network().summary()
