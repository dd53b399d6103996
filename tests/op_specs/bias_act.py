"""The fact sheet of bias_act, and of the epilogue that is the same kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import imgops
from imgops import _eager
from imgops._epilogue import Epilogue
from imgops.ops.bias_act import activation_arguments, fused_bias_act
from imgops.reference.bias_act import ACTIVATIONS

from ._random import Pick, RandomCall, kinks_of, random_epilogue, strided
from ._sheet import (
    Call,
    Called,
    Case,
    Comparison,
    Form,
    Kwargs,
    Made,
    Problem,
    Shape,
    Sheet,
    both,
    forward,
    image,
    label,
    values,
)


def _call(reads: frozenset[str] = frozenset(), **arguments: Any) -> Call:
    return Call(
        lambda impl, x, b=None: imgops.bias_act(x, b, **arguments, impl=impl),
        {"x": "NCHW", "b": "C"},
        {"N": 2, "C": 3, "H": 2, "W": 2},
        reads,
    )


def _epilogue(act: str, clamp: float, reads: frozenset[str] = frozenset()) -> Call:
    def run(impl: str, x: Tensor, b: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        return fused_bias_act(impl, x, Epilogue(b, scale, noise, act, 0.2, 1.3, clamp))

    shapes = {"x": "NCHW", "b": "C", "scale": "NC", "noise": "11HW"}
    return Call(run, shapes, {"N": 2, "C": 3, "H": 2, "W": 2}, reads)


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    shape = tuple(pick.integer(0, 9) for _ in range(pick.integer(1, 5)))
    dim, epilogue = pick.integer(0, len(shape) - 1), random_epilogue(pick)
    tensors = [strided(pick, shape, dtype)]
    if pick.one([True, False]):
        tensors.append(strided(pick, (shape[dim],), pick.one([dtype, torch.float32])))
    return RandomCall(
        lambda impl, x, b=None: imgops.bias_act(x, b, dim=dim, **epilogue, impl=impl),
        tensors,
        kinks_of(epilogue["act"], epilogue["clamp"]),
    )


def eager(x: Tensor, b: Tensor, act: str) -> Tensor:
    """As one writes it first; ``act`` is lrelu."""
    return _eager.lrelu(x + b.to(x.dtype)[None, :, None, None])


def _problem(shape: Shape, act: str, modulated: bool, device: str, dtype: torch.dtype, acc_dtype: torch.dtype) -> Made:
    activation = activation_arguments("bias_act", act, None, 1.3, 0.8 if modulated else None)
    sizes = [shape[1:2], *([shape[:2], (shape[0], 1, *shape[2:])] if modulated else [])]

    def call(backend: str, x: Tensor, b: Tensor, scale: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return fused_bias_act(backend, x, Epilogue(b, scale, noise, *activation))

    return [image(shape, dtype, device), *(torch.randn(size, device=device, dtype=acc_dtype) for size in sizes)], call


#: of one block, and of several
PLANES = [(2, 3, 5, 7), (3, 16, 9, 9), (2, 40, 16, 16)]


def _problems(dry: bool) -> Iterator[Problem]:
    for shape, act, modulated in itertools.product(PLANES[: 1 if dry else None], ACTIVATIONS, (False, True)):
        name = f"{shape}/{act}{' modulated' if modulated else ''}"
        yield Problem(name, partial(_problem, shape, act, modulated))


def bias_act_case(shape: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool = False) -> Case:
    """Bias and leaky ReLU, as after each layer of StyleGAN2."""

    def make(device: torch.device) -> Kwargs:
        return {
            "x": image(shape, dtype, device, channels_last),
            "b": torch.randn(shape[1], device=device),
            "act": "lrelu",
        }

    size = math.prod(shape) * dtype.itemsize
    # forward: x, y; backward: dy, y, dx
    return Case("bias_act", label(shape, dtype, channels_last), make, ("x", "b"), (2 * size, 5 * size), (0, 0), dtype)


def _cases(dry: bool) -> list[Case]:
    half, single = torch.float16, torch.float32
    if dry:
        return [bias_act_case((2, 4, 9, 7), single)]
    return [
        bias_act_case((16, 64, 256, 256), half),
        bias_act_case((16, 64, 256, 256), half, channels_last=True),
        bias_act_case((16, 512, 32, 32), half),
        bias_act_case((4, 32, 1024, 1024), half),
        bias_act_case((4, 64, 512, 512), single),
    ]


FORMS = {"eager": eager, "eager in place": _eager.bias_act}


def _comparisons() -> list[Comparison]:
    """At the shape of a layer of StyleGAN2-256."""
    kwargs = {"x": torch.randn(8, 128, 64, 64), "b": torch.randn(128), "act": "lrelu"}
    forms: dict[str, Form] = {"imgops": imgops.bias_act, **FORMS}
    sides = {"forward": forward(forms, kwargs), "forward+backward": both(forms, kwargs, ("x", "b"))}
    return [
        Comparison(
            "bias_act",
            f"8x128x64x64 lrelu {direction}, {memory} memory",
            sides[direction],
            goal=2.5 if direction == "forward+backward" else None,
            memory=memory,
        )
        for direction in sides
        for memory in ("fresh", "reused")
    ]


def _recorded(a: dict[str, Tensor], params: Kwargs, backend: str) -> dict[str, Tensor]:
    x, dy = a["x"].requires_grad_(), a["dy"].requires_grad_()
    b = a["b"].requires_grad_() if "b" in a else None
    y = imgops.bias_act(x, b, **params, impl=backend)
    dx, *rest = torch.autograd.grad(y, [x] if b is None else [x, b], dy, create_graph=True)
    d2x, ddy = torch.autograd.grad((dx * a["v"]).sum(), [x, dy], allow_unused=True)
    got = {"y": y, "dx": dx, "ddy": ddy} | ({"db": rest[0]} if rest else {})
    return got | {"d2x": torch.zeros_like(x) if d2x is None else d2x}


def _pictures() -> dict[str, nn.Module]:
    return {"bias_act": Called(lambda x, b: imgops.bias_act(x, b, act="swish"), b=torch.randn(4))}


_ACT = ("swish", 0.0, 1.3, 4.0)
_INPUTS, _OPERANDS = frozenset({"x", "b"}), frozenset({"b", "noise"})
SHEET = Sheet(
    calls={
        "bias_act-linear": _call(),
        "bias_act-linear-clamp": _call(clamp=1.0),
        "bias_act-relu": _call(act="relu"),
        "bias_act-lrelu": _call(act="lrelu"),
        "bias_act-lrelu-clamp": _call(act="lrelu", clamp=1.0),
        "bias_act-lrelu-from-input": _call(_INPUTS, act="lrelu", gain=-1.0),
        "bias_act-selu": _call(_INPUTS, act="selu"),
        "bias_act-swish-clamp": _call(_INPUTS, act="swish", clamp=1.0),
        "bias_act-softplus": _call(_INPUTS, act="softplus"),
        "epilogue-linear": _epilogue("linear", -1.0),
        "epilogue-lrelu-clamp": _epilogue("lrelu", 1.0, _OPERANDS),
        "epilogue-tanh": _epilogue("tanh", -1.0, _OPERANDS),
    },
    sized={
        "bias_act": Call(
            lambda impl, x, b: imgops.bias_act(x, b, act="lrelu", clamp=2, impl=impl), {"x": "NCHW", "b": "C"}, {}
        ),
    },
    random=_random,
    forms=FORMS,
    pictures=_pictures,
    problems=_problems,
    cases=_cases,
    comparisons=_comparisons,
    recorded=_recorded,
    schemas={
        "bias_act": lambda: (values(2, 3, 2, 2), 1, values(3), values(2, 3), values(2, 1, 2, 2), *_ACT),
        "bias_act: no operands": lambda: (values(2, 3, 4, 5), 1, values(3), None, None, "lrelu", 0.2, 1.4, 256.0),
        "bias_act_backward": lambda: (
            values(2, 3, 2, 2), values(2, 3, 2, 2), None, 1, values(3), values(2, 3), values(2, 1, 2, 2), *_ACT,
            True, True, True,
        ),
    },
    cuda=True,
)  # fmt: skip
