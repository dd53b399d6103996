"""The generators of other families than StyleGAN2, and their training steps, on the CPU.

Sides: imgops, and the same networks on the fastest forms of their ops in plain PyTorch, planar and channels-last. DCGAN
has no rows: it is plain PyTorch, whose convolutions and batch norm are the fastest forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imgops import _eager
from imgops.nn.quantize import nearest_code
from imgops.reference.modulated_conv2d import resample_padding
from imgops.training import Trainer
from imgops.training.recipes import config_class

from .bench_iteration import biased, gradients_of
from .bench_training import bias_act, eager_layers, plain_resampled_conv2d
from .comparison import Comparison, names, time_side


class Problem(NamedTuple):
    """A network: its recipe, settings, the batch and side of its pictures, and the least ratio that is wanted."""

    recipe: str
    settings: dict[str, Any]
    batch: int
    side: int
    goal: float

    @property
    def shape(self) -> str:
        """What a report calls it."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if name not in _QUIET)
        return f"{self.recipe}, {self.batch}x3x{self.side}x{self.side}, {settings}"


#: settings that a report need not name
_QUIET = ("channel_max", "grow_kimg")
WIDE: dict[str, Any] = {"channel_base": 4096}
SMALL: dict[str, Any] = {"preset": "tiny"}
PROBLEMS = {
    problem.shape: problem
    for problem in [
        Problem("stylegan3-t", WIDE, 4, 64, 8.0),
        Problem("stylegan3-t", SMALL, 16, 32, 8.0),
        Problem("stylegan3-r", WIDE, 4, 64, 8.0),
        Problem("stylegan3-r", SMALL, 16, 32, 8.0),
        Problem("stylegan1", {**WIDE, "grow_kimg": 0.0}, 4, 64, 1.5),
        Problem("stylegan1", {**SMALL, "grow_kimg": 0.0}, 16, 32, 1.5),
        Problem("progan", {**WIDE, "grow_kimg": 0.0}, 4, 64, 1.0),
        Problem("r3gan", {"channel_base": 8192, "channel_max": 256}, 4, 64, 1.5),
        Problem("r3gan", SMALL, 16, 32, 1.5),
        Problem("autoencoder", SMALL, 32, 32, 1.0),
        Problem("vae", SMALL, 32, 32, 1.0),
        Problem("vqvae", SMALL, 32, 32, 1.0),
    ]
}


def _modulated_conv2d(
    layout: torch.memory_format,
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    bias: Tensor | None = None,
    clamp: float | None = None,
    padding: int = 0,
    demodulate: bool = True,
    input_gain: Tensor | None = None,
) -> Tensor:
    """Scale, convolve, scale; the last layer's bias and clamp."""
    x = (x * styles[:, :, None, None]).contiguous(memory_format=layout)
    y = F.conv2d(x, weight, padding=padding)
    if demodulate:
        demod = torch.rsqrt(styles.square() @ weight.square().sum([2, 3]).t() + 1e-8)
        return y * (demod if input_gain is None else demod * input_gain)[:, :, None, None]
    y = y if bias is None else y + bias[:, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


def _filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor,
    up: int,
    down: int,
    padding: list[int],
    *,
    clamp: float | None,
) -> Tensor:
    """Each step with the fastest known filter, by strides."""
    x = x + b[:, None, None]
    x = F.pad(x, padding) if fu is None else _eager.upfirdn2d(x, fu, up, 1, padding, float(up**2))
    x = _eager.lrelu(x)
    x = x if clamp is None else x.clamp(-clamp, clamp)
    return x if fd is None else _eager.upfirdn2d(x, fd, 1, down, [0] * 4, 1.0)


def _plain_conv2d(
    layout: torch.memory_format, x: Tensor, weight: Tensor, bias: Tensor | None, *, act: str, gain: float, **more: Any
) -> Tensor:
    how = {name: more[name] for name in ("stride", "padding", "dilation", "groups")}
    return bias_act(F.conv2d(x.contiguous(memory_format=layout), weight, bias, **how), act=act, gain=gain)


def _upward_conv2d(layout: torch.memory_format, op: str, x: Tensor, weight: Tensor, **more: Any) -> Tensor:
    """Of StyleGAN1: a convolution of doubled pixels is a transposed one of fewer products."""
    x = x.contiguous(memory_format=layout)
    if more["up"] == 1:
        return F.conv2d(x, weight, more["bias"], padding=more["padding"])
    w = _four_shifted(weight.flip([2, 3]) if more["flip_weight"] else weight)
    return F.conv_transpose2d(x, w.transpose(0, 1), more["bias"], stride=2, padding=1)


def _four_shifted(weight: Tensor) -> Tensor:
    """The sum of a kernel at four places: that of a convolution with doubled pixels, or of a mean of four."""
    w = F.pad(weight, [1] * 4)
    return w[..., 1:, 1:] + w[..., 1:, :-1] + w[..., :-1, 1:] + w[..., :-1, :-1]


def _by_means(x: Tensor, weight: Tensor, *, bias: Tensor, act: str, gain: float, up: int, **_: Any) -> Tensor:
    """Of ProGAN: pixels doubled before a convolution, or their means taken after it, in one convolution."""
    w = _four_shifted(weight)
    if up > 1:
        y = F.conv_transpose2d(x, w.transpose(0, 1), stride=2, padding=1)
    else:
        y = F.conv2d(x, w / 4, stride=2, padding=1)
    return bias_act(y, bias, act=act, gain=gain)


def _instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    return torch.addcmul(bias[:, :, None, None], F.instance_norm(x, eps=eps), (1 + scale)[:, :, None, None])


def _blurred(x: Tensor, f: Tensor, padding: int) -> Tensor:
    return _eager.upfirdn2d(x, f, 1, 1, [padding] * 4, 1.0)


def _resample(x: Tensor, f: Tensor, up: int, down: int) -> Tensor:
    pads = resample_padding((0, 0, 0, 0), (f.shape[-1], f.shape[0]), up, down)
    return _eager.upfirdn2d(x, f, up, down, list(pads), float(up**2))


@contextmanager
def eager_families(layout: torch.memory_format) -> Iterator[None]:
    """A context in which networks call the fastest forms in plain PyTorch, on images in this layout."""

    def laid_out(op: str, x: Tensor, weight: Tensor, **more: Any) -> Tensor:
        x, f = x.contiguous(memory_format=layout), more["resample_filter"]
        if more["up"] * more["down"] > 1 and f.shape[0] == 2:
            return _by_means(x, weight, **more)
        return plain_resampled_conv2d(op, x, weight, **more)

    with (
        eager_layers(),
        mock.patch("imgops.nn.conv.resampled_conv2d", laid_out),
        mock.patch("imgops.models.stylegan3.layers.modulated_conv2d", partial(_modulated_conv2d, layout)),
        mock.patch("imgops.models.stylegan3.layers.filtered_lrelu", _filtered_lrelu),
        mock.patch("imgops.nn.plain_conv.conv2d", partial(_plain_conv2d, layout)),
        mock.patch("imgops.models.r3gan.blocks.upsample2d", lambda x, f: _resample(x, f, 2, 1)),
        mock.patch("imgops.models.r3gan.blocks.downsample2d", lambda x, f: _resample(x, f, 1, 2)),
        mock.patch("imgops.models.stylegan1.layers.resampled_conv2d", partial(_upward_conv2d, layout)),
        mock.patch("imgops.models.stylegan1.layers.bias_act", bias_act),
        mock.patch("imgops.models.stylegan1.layers.upfirdn2d", _blurred),
        mock.patch("imgops.models.stylegan1.layers.adaptive_instance_norm", _instance_norm),
    ):
        yield


SIDES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "imgops": nullcontext,
    "eager": partial(eager_families, torch.contiguous_format),
    "eager channels-last": partial(eager_families, torch.channels_last),
}


@cache
def trainer(name: str) -> Trainer:
    """All sides train the same networks, by next to nothing, so that they stay comparable from step to step."""
    recipe, settings, batch, side, _ = PROBLEMS[name]
    kind = config_class(recipe)
    given = {"batch": batch, "resolution": side, "device": "cpu", "augment": "none", **settings}
    # a rate that falls to another one must stay as small
    given |= dict.fromkeys(["g_lr", "d_lr", "lr", "lr_end"], 1e-12) | {"codebook_decay": 0.999999, "restart_share": 0.0}
    made: Any = kind(data="", out="", **{name: value for name, value in given.items() if hasattr(kind, name)})
    return biased(Trainer(made.resolve()))


def forward(name: str, side: str) -> Tensor:
    """Images of fixed latents."""
    recipe: Any = trainer(name).recipe
    G = recipe.networks[recipe.result]
    z = torch.randn(PROBLEMS[name].batch, G.z_dim, generator=torch.Generator().manual_seed(0))
    noise = {"noise_mode": "const"} if PROBLEMS[name].recipe == "stylegan1" else {}
    with torch.no_grad(), SIDES[side]():
        return G(z, **noise)  # type: ignore[no-any-return]


def step(name: str, side: str) -> dict[str, Tensor]:
    """A step on fixed images, with the penalty of the loss."""
    made, problem = trainer(name), PROBLEMS[name]
    shape = problem.batch, 3, problem.side, problem.side
    real = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made.steps = made.seen = 0
    with SIDES[side]():
        return made.step(real, torch.zeros(problem.batch, dtype=torch.int64))


def nearest_codes(vectors: int, code_dim: int, num_codes: int, goal: float) -> Comparison:
    """The codes of VQ-VAE, against products with all of them: the matrix of distances, or what of it matters."""
    x, codebook = torch.randn(1, code_dim, vectors), torch.randn(num_codes, code_dim)
    sides = {
        "imgops": lambda: codebook[nearest_code(x, codebook)[0]],
        "eager": lambda: codebook[torch.cdist(x[0].t(), codebook).argmin(1)],
        "eager products": lambda: codebook[
            torch.addmm(codebook.square().sum(1), x[0].t(), codebook.t(), alpha=-2).argmin(1)
        ],
    }
    return Comparison("nearest code", f"{vectors} of {num_codes} codes of {code_dim}", sides, goal=goal, tolerance=1e-3)


def comparisons() -> list[Comparison]:
    """Of each network the pictures that it makes, and a step with the penalty of its loss."""
    rows = [nearest_codes(2048, 16, 128, 1.0), nearest_codes(32768, 64, 512, 2.0)]
    for name, problem in PROBLEMS.items():
        made = {side: partial(forward, name, side) for side in SIDES}
        if problem.recipe != "vqvae":
            # which draws its codes one by one, by a network that no op of ours is in
            rows.append(Comparison("family generator", name, made, problem.goal, tolerance=1e-3))
        steps = {
            side: lambda side=side, name=name: gradients_of(trainer(name), lambda: step(name, side)) for side in SIDES
        }
        rows.append(Comparison("family step", name, steps, problem.goal, tolerance=1e-1))
    return rows


@pytest.mark.parametrize(("problem", "side"), names(comparisons))
def test_family(benchmark, problem, side):
    time_side(benchmark, comparisons, problem, side)
