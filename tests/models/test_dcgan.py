"""DCGAN's layout, the names of PyTorch's example, and what is refused."""

from __future__ import annotations

import pytest
import torch

from imgops.models.dcgan import Discriminator, Generator


def test_the_layout_and_names_of_the_example_for_64_pixels():
    G, D = Generator(), Discriminator()
    shapes = {key: tuple(t.shape) for key, t in G.state_dict().items() if t.ndim == 4}
    assert shapes == {
        "main.0.weight": (100, 512, 4, 4),
        "main.3.weight": (512, 256, 4, 4),
        "main.6.weight": (256, 128, 4, 4),
        "main.9.weight": (128, 64, 4, 4),
        "main.12.weight": (64, 3, 4, 4),
    }
    shapes = {key: tuple(t.shape) for key, t in D.state_dict().items() if t.ndim == 4}
    assert shapes == {
        "main.0.weight": (64, 3, 4, 4),
        "main.2.weight": (128, 64, 4, 4),
        "main.5.weight": (256, 128, 4, 4),
        "main.8.weight": (512, 256, 4, 4),
        "main.11.weight": (1, 512, 4, 4),
    }
    assert G.num_parameters == 3_576_704
    assert D.num_parameters == 2_765_568
    assert G(torch.randn(2, 100)).shape == (2, 3, 64, 64)


def test_the_layout_of_textbooks_for_digits():
    G = Generator(100, 0, 28, 1, channels=128, channel_max=256, kernel_size=5)
    seen = []
    for layer in G.main:
        layer.register_forward_hook(lambda layer, x, y: seen.append(tuple(y.shape[1:])))
    assert G(torch.randn(2, 100)).shape == (2, 1, 28, 28)
    assert next(shape for shape in seen if shape[1] == 7) == (256, 7, 7)
    assert (128, 14, 14) in seen


@pytest.mark.parametrize("kernel_size", [4, 5])
@pytest.mark.parametrize(("resolution", "channels"), [(28, 1), (32, 3), ((48, 32), 4), (128, 3)])
def test_any_shape_and_number_of_channels(kernel_size, resolution, channels):
    small = {"channels": 4, "channel_max": 16, "kernel_size": kernel_size}
    G, D = Generator(8, 3, resolution, channels, **small), Discriminator(3, resolution, channels, **small)
    c = torch.eye(3)
    images = G(torch.randn(3, 8), c)
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert images.shape == (3, channels, height, width)
    assert float(images.detach().abs().max()) <= 1
    logits = D(images, c)
    assert logits.shape == (3, 1)
    assert not torch.allclose(logits, D(images, c.roll(1, 1)))
    logits.sum().backward()
    assert all(p.grad is not None for p in [*G.parameters(), *D.parameters()])


def test_without_batch_norm():
    D = Discriminator(0, 28, 1, batch_norm=False)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in D.modules())


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="img_resolution must be sides that halve"):
        Generator(img_resolution=30)
    with pytest.raises(ValueError, match="kernel_size must be 4 or 5; got 3"):
        Discriminator(kernel_size=3)
