"""A picture through a network of one style."""

from __future__ import annotations

import doctest

import pytest
import torch

import imgops.style.fast
from imgops.models.style.transform_net import TransformNet
from imgops.style.fast import stylize_fast


@pytest.mark.parametrize("size", [(16, 20), (21, 33)])
def test_the_picture_is_what_the_network_makes_clipped(size):
    network, content = TransformNet((4, 6, 8), 1), torch.rand(3, *size)
    # to both ends of the range
    network.deconv3.conv2d.weight.data.mul_(300)
    output = stylize_fast(content, network)
    assert (output.min(), output.max()) == (0, 1)
    torch.testing.assert_close(output, network(content[None]).detach()[0].clamp(0, 1))
    assert not output.requires_grad
    assert stylize_fast(content.double(), network).dtype == torch.float64


def test_bad_pictures():
    network = TransformNet((4, 6, 8), 1)
    with pytest.raises(ValueError, match=r"content must be \[3, H, W\]; got \(1, 3, 9, 9\)"):
        stylize_fast(torch.zeros(1, 3, 9, 9), network)
    with pytest.raises(ValueError, match="at least 5 x 5 pixels"):
        stylize_fast(torch.zeros(3, 9, 4), network)


def test_examples_run():
    failed, tried = doctest.testmod(imgops.style.fast, extraglobs={"torch": torch})
    assert (failed, tried) == (0, 1)
