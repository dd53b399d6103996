"""The fact sheet of bias_act, and of the epilogue that is the same kernel."""

from __future__ import annotations

import itertools
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

from . import _sheet as s
from ._random import Pick, RandomCall, kinks_of, random_epilogue, strided


def _call(reads: frozenset[str] = frozenset(), **arguments: Any) -> s.Call:
    return s.Call(
        lambda impl, x, b=None: imgops.bias_act(x, b, **arguments, impl=impl),
        {"x": "NCHW", "b": "C"},
        {"N": 2, "C": 3, "H": 2, "W": 2},
        reads,
    )


def _epilogue(act: str, clamp: float, reads: frozenset[str] = frozenset()) -> s.Call:
    def run(impl: str, x: Tensor, b: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        return fused_bias_act(impl, x, Epilogue(b, scale, noise, act, 0.2, 1.3, clamp))

    shapes = {"x": "NCHW", "b": "C", "scale": "NC", "noise": "11HW"}
    return s.Call(run, shapes, {"N": 2, "C": 3, "H": 2, "W": 2}, reads)


def _random(pick: Pick, dtype: torch.dtype) -> RandomCall:
    shape = tuple(pick.integer(0, 9) for _ in range(pick.integer(1, 5)))
    dim, epilogue = pick.integer(0, len(shape) - 1), random_epilogue(pick)
    tensors = [strided(pick, shape, dtype)]
    if pick.one([True, False]):
        tensors.append(strided(pick, (shape[dim],), pick.one([dtype, torch.float32])))
    return RandomCall(
        lambda impl, x, b=None: imgops.bias_act(x, b, dim=dim, **epilogue, impl=impl),
        tensors,
        kinks_of(epilogue),
    )


def eager(x: Tensor, b: Tensor, act: str) -> Tensor:
    """As one writes it first; ``act`` is lrelu."""
    return _eager.lrelu(x + b.to(x.dtype)[None, :, None, None])


def _problem(
    shape: s.Shape, act: str, modulated: bool, device: str, dtype: torch.dtype, acc_dtype: torch.dtype
) -> s.Made:
    activation = activation_arguments("bias_act", act, None, 1.3, 0.8 if modulated else None)
    sizes = [shape[1:2], *([shape[:2], (shape[0], 1, *shape[2:])] if modulated else [])]

    def call(backend: str, x: Tensor, b: Tensor, scale: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return fused_bias_act(backend, x, Epilogue(b, scale, noise, *activation))

    return [s.image(shape, dtype, device), *(torch.randn(size, device=device, dtype=acc_dtype) for size in sizes)], call


#: of one block, and of several
PLANES = [(2, 3, 5, 7), (3, 16, 9, 9), (2, 40, 16, 16)]


def _problems(dry: bool) -> Iterator[s.Problem]:
    for shape, act, modulated in itertools.product(PLANES[: 1 if dry else None], ACTIVATIONS, (False, True)):
        name = f"{shape}/{act}{' modulated' if modulated else ''}"
        yield s.Problem(name, partial(_problem, shape, act, modulated))


def bias_act_case(shape: s.Shape, dtype: torch.dtype, channels_last: bool = False) -> s.Case:
    """Bias and leaky ReLU, as after each layer of StyleGAN2."""

    def make(device: torch.device) -> s.Kwargs:
        b = torch.randn(shape[1], device=device)
        return {"x": s.image(shape, dtype, device, channels_last), "b": b, "act": "lrelu"}

    # forward: x, y; backward: dy, y, dx
    return s.image_case("bias_act", shape, dtype, channels_last, make, ("x", "b"), images=(2, 5))


_CASES = s.cases_of(
    bias_act_case((2, 4, 9, 7), s.SINGLE),
    bias_act_case((16, 64, 256, 256), s.HALF),
    bias_act_case((16, 64, 256, 256), s.HALF, channels_last=True),
    bias_act_case((16, 512, 32, 32), s.HALF),
    bias_act_case((4, 32, 1024, 1024), s.HALF),
    bias_act_case((4, 64, 512, 512), s.SINGLE),
)


FORMS = {"eager": eager, "eager in place": _eager.bias_act}


def _comparisons() -> list[s.Comparison]:
    """At the shape of a layer of StyleGAN2-256."""
    kwargs = {"x": torch.randn(8, 128, 64, 64), "b": torch.randn(128), "act": "lrelu"}
    forms: dict[str, s.Form] = {"imgops": imgops.bias_act, **FORMS}
    sides = {"forward": s.forward(forms, kwargs), "forward+backward": s.both(forms, kwargs, ("x", "b"))}
    return [
        s.Comparison(
            "bias_act",
            f"8x128x64x64 lrelu {direction}, {memory} memory",
            sides[direction],
            goal=2.5 if direction == "forward+backward" else None,
            memory=memory,
        )
        for direction in sides
        for memory in ("fresh", "reused")
    ]


def _recorded(a: dict[str, Tensor], params: s.Kwargs, backend: str) -> dict[str, Tensor]:
    x, dy = a["x"].requires_grad_(), a["dy"].requires_grad_()
    b = a["b"].requires_grad_() if "b" in a else None
    y = imgops.bias_act(x, b, **params, impl=backend)
    dx, *rest = torch.autograd.grad(y, [x] if b is None else [x, b], dy, create_graph=True)
    d2x, ddy = torch.autograd.grad((dx * a["v"]).sum(), [x, dy], allow_unused=True)
    got = {"y": y, "dx": dx, "ddy": ddy} | ({"db": rest[0]} if rest else {})
    return got | {"d2x": torch.zeros_like(x) if d2x is None else d2x}


def _pictures() -> dict[str, nn.Module]:
    return {"bias_act": s.Called(lambda x, b: imgops.bias_act(x, b, act="swish"), b=torch.randn(4))}


#: a layer of StyleGAN2
LAUNCH_SHAPE = (16, 128, 128, 128)


def launch_epilogue() -> Epilogue:
    """That of a layer, for launches."""
    n, c, h, w = LAUNCH_SHAPE
    operands = torch.empty(c), torch.empty(n, c), torch.empty(n, 1, h, w)
    return Epilogue(*operands, "lrelu", 0.2, 2**0.5, 256.0)


def _launches(dtype: torch.dtype, channels_last: bool) -> Iterator[s.Launch]:
    x, lrelu = s.unread(LAUNCH_SHAPE, dtype, channels_last), launch_epilogue()
    swish = lrelu._replace(act="swish", alpha=0.0)
    yield s.Launch("bias_act", "bias_act.bias_act", (x, 1, *lrelu))
    name, backward = "bias_act_backward from", "bias_act.bias_act_backward"
    yield s.Launch(f"{name} x", backward, (x, x, None, 1, *swish, True, True, True))
    yield s.Launch(f"{name} y", backward, (x, None, x, 1, *lrelu, True, False, True), tested=False)


_ACT = ("swish", 0.0, 1.3, 4.0)
_INPUTS, _OPERANDS = frozenset({"x", "b"}), frozenset({"b", "noise"})
SHEET = s.Sheet(
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
        "bias_act-hardswish": _call(_INPUTS, act="hardswish", gain=3.0),
        "epilogue-linear": _epilogue("linear", -1.0),
        "epilogue-lrelu-clamp": _epilogue("lrelu", 1.0, _OPERANDS),
        "epilogue-tanh": _epilogue("tanh", -1.0, _OPERANDS),
    },
    sized={
        "bias_act": s.Call(
            lambda impl, x, b: imgops.bias_act(x, b, act="lrelu", clamp=2, impl=impl), {"x": "NCHW", "b": "C"}, {}
        ),
    },
    random=_random, forms=FORMS, pictures=_pictures, problems=_problems, cases=_CASES, launches=_launches,
    comparisons=_comparisons, recorded=_recorded,
    schemas={
        "bias_act": lambda: (s.values(2, 3, 2, 2), 1, s.values(3), s.values(2, 3), s.values(2, 1, 2, 2), *_ACT),
        "bias_act: no operands": lambda: (s.values(2, 3, 4, 5), 1, s.values(3), None, None, "lrelu", 0.2, 1.4, 256.0),
        "bias_act_backward": lambda: (
            s.values(2, 3, 2, 2), s.values(2, 3, 2, 2), None, 1, s.values(3), s.values(2, 3), s.values(2, 1, 2, 2),
            *_ACT, True, True, True,
        ),
    },
    cuda=True,
)  # fmt: skip
