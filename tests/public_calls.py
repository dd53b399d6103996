"""A small call of every public op, in the forms that take another way through its kernels and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import imgops
from imgops._epilogue import Epilogue
from imgops.ops.bias_act import fused_bias_act


class PublicCall(NamedTuple):
    """``run(impl, **tensors)``, and the shapes of the tensors that it is differentiable by."""

    run: Callable[..., Tensor | tuple[Tensor, ...]]
    shapes: dict[str, tuple[int, ...]]

    def tensors(self, device: str) -> dict[str, Tensor]:
        """Values in float64, away from 0, where a leaky ReLU's slope jumps."""
        values = {name: torch.randn(shape, dtype=torch.float64) for name, shape in self.shapes.items()}
        return {name: (t + 0.1 * t.sign()).to(device) for name, t in values.items()}


def _bias_act(**arguments: Any) -> PublicCall:
    return PublicCall(
        lambda impl, x, b=None: imgops.bias_act(x, b, **arguments, impl=impl), {"x": (2, 3, 2, 2), "b": (3,)}
    )


def _epilogue(act: str, clamp: float) -> PublicCall:
    def run(impl: str, x: Tensor, b: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        return fused_bias_act(impl, x, Epilogue(b, scale, noise, act, 0.2, 1.3, clamp))

    return PublicCall(run, {"x": (2, 3, 2, 2), "b": (3,), "scale": (2, 3), "noise": (1, 1, 2, 2)})


def _upfirdn2d(f: tuple[int, ...], **arguments: Any) -> PublicCall:
    return PublicCall(lambda impl, x, f: imgops.upfirdn2d(x, f, **arguments, impl=impl), {"x": (1, 2, 4, 3), "f": f})


def _filtered_lrelu(filters: bool) -> PublicCall:
    fixed = torch.tensor([0.3, 1.0, 0.5], dtype=torch.float64)

    def run(impl: str, x: Tensor, b: Tensor, fu: Tensor | None = None, fd: Tensor | None = None) -> Tensor:
        fu, fd = (fixed.to(x.device) if f is None else f for f in (fu, fd))
        return imgops.filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=[3, 2, 2, 3], clamp=2.0, impl=impl)

    shapes: dict[str, tuple[int, ...]] = {"x": (1, 2, 5, 4), "b": (2,)}
    return PublicCall(run, shapes | ({"fu": (3,), "fd": (3,)} if filters else {}))


def _modulated_conv2d(size: int = 4, out: int = 4, kernel: int = 3, channels: int = 2, **arguments: Any) -> PublicCall:
    f = imgops.setup_filter([1, 3, 3, 1])

    def run(impl: str, x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        given = arguments | {"padding": kernel // 2, "resample_filter": f.to(x.device)}
        return imgops.modulated_conv2d(x, weight, styles, noise=noise, bias=bias, impl=impl, **given)

    shapes = {"x": (1, channels, size, size), "weight": (channels, channels, kernel, kernel), "styles": (1, channels)}
    return PublicCall(run, shapes | {"noise": (1, 1, out, out), "bias": (channels,)})


def _places(t: Tensor) -> Tensor:
    # between the centres of pixels, where a sample's slope does not jump
    return t.tanh() * 0.2 + 0.5


CALLS = {
    "bias_act-linear": _bias_act(),
    "bias_act-linear-clamp": _bias_act(clamp=1.0),
    "bias_act-relu": _bias_act(act="relu"),
    "bias_act-lrelu": _bias_act(act="lrelu"),
    "bias_act-lrelu-clamp": _bias_act(act="lrelu", clamp=1.0),
    "bias_act-lrelu-from-input": _bias_act(act="lrelu", gain=-1.0),
    "bias_act-selu": _bias_act(act="selu"),
    "bias_act-swish-clamp": _bias_act(act="swish", clamp=1.0),
    "bias_act-softplus": _bias_act(act="softplus"),
    "epilogue-linear": _epilogue("linear", -1.0),
    "epilogue-lrelu-clamp": _epilogue("lrelu", 1.0),
    "epilogue-tanh": _epilogue("tanh", -1.0),
    "upfirdn2d-separable": _upfirdn2d((3,), up=2, padding=2),
    "upfirdn2d-matrix": _upfirdn2d((3, 2), down=2, padding=1, flip_filter=True),
    "filtered_lrelu": _filtered_lrelu(filters=False),
    "filtered_lrelu-filters": _filtered_lrelu(filters=True),
    "modulated_conv2d": _modulated_conv2d(act="lrelu"),
    "modulated_conv2d-clamp": _modulated_conv2d(clamp=1.0, demodulate=False),
    "modulated_conv2d-up": _modulated_conv2d(up=2, out=8, act="lrelu", clamp=2.0),
    "modulated_conv2d-up-swish": _modulated_conv2d(up=2, out=8, act="swish"),
    "modulated_conv2d-down": _modulated_conv2d(down=2, out=2, act="lrelu"),
    "modulated_conv2d-pointwise": _modulated_conv2d(kernel=1, demodulate=False),
    "adain": PublicCall(
        lambda impl, content, style: imgops.adain(content, style, impl=impl),
        {"content": (2, 2, 3, 2), "style": (1, 2, 2, 3)},
    ),
    "adaptive_instance_norm": PublicCall(
        lambda impl, x, scale, bias: imgops.adaptive_instance_norm(x, scale, bias, impl=impl),
        {"x": (2, 2, 3, 2), "scale": (2, 2), "bias": (1, 2)},
    ),
    "gram_matrix": PublicCall(lambda impl, x: imgops.gram_matrix(x, impl=impl), {"x": (2, 3, 2, 2)}),
    "feature_statistics": PublicCall(lambda impl, x: imgops.feature_statistics(x, impl=impl), {"x": (2, 3, 2, 2)}),
    "style_loss": PublicCall(
        lambda impl, x, target: imgops.style_loss(x, target, impl=impl), {"x": (2, 3, 2, 2), "target": (1, 3, 3)}
    ),
    "wasserstein_loss": PublicCall(
        lambda impl, x, mean, root: imgops.wasserstein_loss(x, mean, root @ root.mT, impl=impl),
        {"x": (2, 2, 3, 2), "mean": (1, 2), "root": (1, 2, 2)},
    ),
    "grid_sample": PublicCall(
        # an image of 4 x 4, at places between its pixels
        lambda impl, x, grid: imgops.grid_sample(x, grid.tanh() * 0.1 + 0.5, impl=impl),
        {"x": (1, 2, 4, 4), "grid": (1, 2, 3, 2)},
    ),
    **{
        f"displace-{mode}": PublicCall(
            lambda impl, x, field, mode=mode: imgops.displace(x, _places(field), padding_mode=mode, impl=impl),
            {"x": (1, 2, 3, 4), "field": (1, 2, 3, 4)},
        )
        for mode in ("zeros", "border")
    },
}
