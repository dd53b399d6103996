"""ModulatedDisplacement: its recurrence, what it is untrained, its gradients and its copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from golden import relative_error

import imgops
import imgops.nn.displacement
from imgops.nn import DisplacementState, ModulatedDisplacement


def trained(layer):
    """A layer as training may leave it."""
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def test_untrained_layers_are_the_identity():
    w, state = torch.randn(2, 5), None
    for size in (4, 8, 8, 16):
        x = torch.randn(2, 3, size, size)
        y, state = ModulatedDisplacement(3, 5)(x, w, state)
        assert torch.equal(x, y)
        assert not state.displacement.any()
        assert not state.momentum.any()
        assert state.displacement.shape == state.momentum.shape == (2, 2, size, size)


def test_recurrence():
    layer = trained(ModulatedDisplacement(3, 5, kernel_size=1, padding_mode="zeros").double())
    w, state = torch.randn(2, 5, dtype=torch.float64), None
    displacement = momentum = torch.zeros(2, 2, 6, 7, dtype=torch.float64)
    styles = (w @ layer.affine.weight.t() / 5**0.5 + layer.affine.bias) / 3**0.5
    for _ in range(3):
        x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
        y, state = layer(x, w, state)
        displacement = displacement + momentum
        moved = imgops.displace(x, displacement, padding_mode="zeros", impl="reference")
        change = torch.einsum("oi,ni,nihw->nohw", layer.weight[:, :, 0, 0], styles, moved)
        momentum = momentum + change + layer.bias[:, None, None]
        assert relative_error(y, moved) < 1e-7
        assert relative_error(state.displacement, displacement) < 1e-7 or not displacement.any()
        assert relative_error(state.momentum, momentum) < 1e-7


def test_fields_are_carried_up_in_pixels():
    """A field of one pixel is of two at twice the resolution, along each axis by its own ratio."""
    fields = DisplacementState(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    _, state = ModulatedDisplacement(3, 5)(torch.randn(1, 3, 8, 12), torch.randn(1, 5), fields)
    expected = torch.tensor([3.0, 2.0])[:, None, None].expand(1, 2, 8, 12)
    torch.testing.assert_close(state.displacement, expected)
    # and so moves the picture as far
    ramp = torch.arange(12.0).expand(1, 3, 8, 12)
    y, _ = ModulatedDisplacement(3, 5)(ramp, torch.randn(1, 5), fields)
    torch.testing.assert_close(y, (ramp + 3).clamp(max=11))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fields_are_float32_beside_half_precision(dtype):
    layer, x = trained(ModulatedDisplacement(3, 5)), torch.randn(1, 3, 8, 8, dtype=dtype)
    y, state = layer(x.contiguous(memory_format=torch.channels_last), torch.randn(1, 5))
    y, state = layer(x.contiguous(memory_format=torch.channels_last), torch.randn(1, 5), state)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert state.momentum.dtype == state.displacement.dtype == torch.float32


def test_gradients_of_two_orders():
    first, second = (trained(ModulatedDisplacement(2, 3).double()) for _ in range(2))
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)

    def run(x, z, w):
        y, state = first(x, w)
        moved, state = second(z, w, state)
        return y, moved, *state

    assert torch.autograd.gradcheck(run, (x, z, w))
    assert torch.autograd.gradgradcheck(run, (x, z, w))
    loss = sum(t.square().sum() for t in run(x, z, w))
    parameters = [*first.parameters(), *second.parameters()]
    assert all(g.any() for g in torch.autograd.grad(loss, [x, z, w, *parameters]))


def test_an_untrained_layer_learns():
    layer, x, w = ModulatedDisplacement(3, 5), torch.randn(1, 3, 8, 8), torch.randn(1, 5)
    _, state = layer(x, w)
    y, _ = layer(x, w, state)
    y.square().sum().backward()
    assert layer.weight.grad.any()
    assert layer.bias.grad.any()


def test_copies():
    layer = trained(ModulatedDisplacement(3, 5, kernel_size=1, padding_mode="reflection"))
    loaded = ModulatedDisplacement(3, 5, kernel_size=1, padding_mode="reflection")
    loaded.load_state_dict(layer.state_dict())
    assert set(layer.state_dict()) == {"weight", "bias", "affine.weight", "affine.bias"}
    x, w = torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    _, state = layer(x, w)
    y, after = layer(x, w, pickle.loads(pickle.dumps(state)))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        y_other, after_other = other(x, w, state)
        assert torch.equal(y, y_other)
        assert all(torch.equal(a, b) for a, b in zip(after, after_other, strict=True))


def test_bad_input():
    with pytest.raises(ValueError, match="ModulatedDisplacement: kernel_size must be odd; got 2"):
        ModulatedDisplacement(3, 5, kernel_size=2)
    with pytest.raises(
        ValueError, match="ModulatedDisplacement: padding_mode must be one of zeros, border, reflection"
    ):
        ModulatedDisplacement(3, 5, padding_mode="wrap")
    with pytest.raises(TypeError, match="ModulatedDisplacement: in_channels must be an int; got float"):
        ModulatedDisplacement(3.0, 5)
    layer, x, w = ModulatedDisplacement(3, 5), torch.zeros(2, 3, 4, 4), torch.zeros(2, 5)
    fields = torch.zeros(2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"displacement must have shape \[2, 2, H, W\]; got \[1, 2, 4, 4\]"):
        layer(x, w, DisplacementState(fields[:1], fields))
    with pytest.raises(ValueError, match=r"momentum must have shape \[2, 2, H, W\]; got \[2, 3, 4, 4\]"):
        layer(x, w, DisplacementState(fields, x))
    with pytest.raises(TypeError, match="state must be a DisplacementState or None; got Tensor"):
        layer(x, w, fields)
