"""What a fact sheet says of its op, and the kinds of problems on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._random import RandomCall

Shape = tuple[int, ...]
Kwargs = dict[str, Any]
#: a form of an op: called with the op's own arguments
Form = Callable[..., Any]
#: the inputs, the image first, and the op as a function of a backend's name and of them
Made = tuple[list[Tensor], Callable[..., Tensor]]

#: largest error over largest magnitude: a result is rounded once, at the end
ONE_ROUNDING = {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
#: a rounding at each pass, or sums of many terms
SEVERAL_ROUNDINGS = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}

#: the dtypes of cases
HALF, SINGLE = torch.float16, torch.float32
#: channels of the pictures that graphs with open sizes take
CHANNELS = 4
#: forms that have no gradient
FORWARD_ONLY = ("eager blocks",)


class Call(NamedTuple):
    """A small call: ``run(impl, **tensors)``, and the shapes of the tensors that it is differentiable by.

    A shape is a text such as "NCHW" or "OC33": a letter is one of ``sizes``, a digit itself. ``reads`` names the inputs
    that a backend's backward reads, so that they must not change in place before it, while the reference keeps a copy
    or a function of them.
    """

    run: Callable[..., Tensor | tuple[Tensor, ...]]
    shapes: Mapping[str, str]
    sizes: Mapping[str, int]
    reads: frozenset[str] = frozenset()

    def tensors(self, device: str, **sizes: int) -> dict[str, Tensor]:
        """Values in float64, away from 0, where a leaky ReLU's slope jumps; ``sizes`` replace those of the call."""
        known = {**self.sizes, **sizes}
        values = {
            name: torch.randn([int(c) if c.isdigit() else known[c] for c in shape], dtype=torch.float64)
            for name, shape in self.shapes.items()
        }
        return {name: (t + 0.1 * t.sign()).to(device) for name, t in values.items()}


class Called(nn.Module):
    """A function of a picture as a module; tensors that it uses are buffers."""

    def __init__(self, function: Callable[..., Tensor], **buffers: Tensor) -> None:
        super().__init__()
        self.function = function
        self.names = list(buffers)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **{name: getattr(self, name) for name in self.names})


class Problem(NamedTuple):
    """One problem on which the backends are checked.

    ``make`` takes a device, the dtype of images and that of all else. ``deterministic``: whether PyTorch is to be so.
    """

    name: str
    make: Callable[[str, torch.dtype, torch.dtype], Made]
    deterministic: bool = True


@dataclass(frozen=True)
class Case:
    """One problem timed on a GPU: what makes the op's arguments, which take gradients, and what it costs at least.

    ``bytes`` and ``flops`` are (forward, forward and backward). Each tensor counts once per pass: the backward reads
    the gradient and what it must know of the forward, and writes the gradients. Zeros are not counted. ``rate`` is that
    of the arithmetic: "float32" outside tensor cores, "tf32", "float16" or "bfloat16" on them. ``graph``: whether a
    CUDA graph can capture the work.
    """

    op: str
    name: str
    make: Callable[[torch.device], Kwargs]
    differentiable: tuple[str, ...]
    bytes: tuple[int, int]
    flops: tuple[int, int]
    dtype: torch.dtype
    rate: str = "float32"
    graph: bool = True

    @property
    def id(self) -> str:
        return f"{self.op}/{self.name}"


class Launch(NamedTuple):
    """A call of a Triton launcher, which resource reports compile for every GPU without one; its memory is never read.

    ``launcher`` is "module.function" of kernels/. ``deterministic``: whether PyTorch is to be so. ``tested``: whether
    tests compile it anew; one launch of each kernel and mode is enough.
    """

    name: str
    launcher: str
    arguments: tuple[Any, ...]
    deterministic: bool = False
    tested: bool = True

    def __call__(self) -> Any:
        module, _, function = self.launcher.partition(".")
        return getattr(import_module(f"imgops.kernels.{module}"), function)(*self.arguments)


@dataclass(frozen=True)
class Comparison:
    """A row of ``make bench``: a named problem, and the forms that solve it, by name, "imgops" among them.

    The calls return a tensor, or tensors, that all sides must agree on to ``tolerance`` of their norm. (Not of the
    largest element: in float32 the sides of a kink, such as leaky ReLU's, change places for one pixel in millions.)
    ``goal``: how many times faster than the fastest other side imgops means to be; ``obvious_goal``: than the one named
    "eager", the form that one writes first. ``memory``: "fresh", where PyTorch's results lie in pages that the kernel
    maps for each, as in a training step, whose activations are freed before the next; "reused", where they lie in the
    pages of those before; None leaves it to the C library, which maps those above 32 MiB and for the others changes its
    mind. ``peak``: bytes that a side, by its name, takes, as a process of its own measures them.
    """

    op: str
    name: str
    sides: Mapping[str, Callable[[], Any]]
    goal: float | None = None
    obvious_goal: float | None = None
    tolerance: float = 1e-4
    memory: str | None = None
    peak: Callable[[str], int] | None = None

    @property
    def id(self) -> str:
        return f"{self.op}: {self.name}"


@dataclass(frozen=True)
class Sheet:
    """The facts of an op, which the generic tests, the benchmarks and the GPU checks iterate over."""

    #: small calls by name, one for each way through kernels and gradients
    calls: dict[str, Call]
    #: calls whose tensors may have any sizes N, C, H, W and O
    sized: dict[str, Call]
    #: random calls: from random choices and the dtype of images
    random: Callable[..., RandomCall] | None
    #: forms in plain PyTorch: the obvious one, which torch.compile gets too, then the fastest known
    forms: dict[str, Form]
    #: modules that work with the sizes of a picture [N, CHANNELS, H, W]
    pictures: Callable[[], dict[str, nn.Module]]
    #: what the backends are checked on, in every dtype; of a dry run one shape
    problems: Callable[[bool], Iterator[Problem]]
    #: what is timed on a GPU; of a dry run tiny shapes
    cases: Callable[[bool], list[Case]]
    #: launches of its Triton kernels, by the dtype of images and whether they are channels-last
    launches: Callable[[torch.dtype, bool], Iterator[Launch]]
    #: the rows of ``make bench``
    comparisons: Callable[[], list[Comparison]]
    #: arguments of each registered op of this op's file, as "op" or "op: variant"
    schemas: dict[str, Callable[[], tuple[Any, ...]]] = field(default_factory=dict)
    #: plain operators that sum the same products as a registered op; one that is not here sums none
    products: dict[str, Callable[..., Any]] = field(default_factory=dict)
    #: of a recorded case's arrays and parameters and a backend: the results, by the names that they are recorded under
    recorded: Callable[[dict[str, Tensor], Kwargs, str], dict[str, Tensor]] | None = None
    #: the largest error of results in each dtype
    tolerance: dict[torch.dtype, float] = field(default_factory=lambda: ONE_ROUNDING)
    #: whether it has kernels in CUDA C++ beside Triton's
    cuda: bool = False
    #: whether autocast lowers it, as it does convolutions
    lowered: bool = False


def as_tuple(y: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs of an op that may have one or several; an index, which has no gradient, is left out."""
    return tuple(t for t in y if t.is_floating_point()) if isinstance(y, tuple) else (y,)


def image(shape: Shape, dtype: torch.dtype, device: str | torch.device, channels_last: bool = False) -> Tensor:
    """Random values, rounded to the dtype."""
    x = torch.randn(shape, device=device).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def of_shapes(shapes: Sequence[Shape], make: Callable[..., Made]) -> Callable[[bool], Iterator[Problem]]:
    """Problems that differ in their shape; ``make`` takes it first, then what the ``make`` of a problem takes."""

    def problems(dry: bool) -> Iterator[Problem]:
        for shape in shapes[: 1 if dry else None]:
            yield Problem(str(shape), partial(make, shape))

    return problems


def cases_of(small: Case, *cases: Case) -> Callable[[bool], list[Case]]:
    """The small case for a dry run, all others otherwise."""
    return lambda dry: [small] if dry else list(cases)


def unread(shape: Shape, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """An image for a launch, whose memory nothing reads."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, memory_format=form)


def no_launches(dtype: torch.dtype, channels_last: bool) -> Iterator[Launch]:
    """The launches of an op whose kernels are those of other ops: none."""
    yield from ()


def values(*shape: int) -> Tensor:
    """Random values in float64, away from 0, where a leaky ReLU's slope jumps."""
    t = torch.randn(shape, dtype=torch.float64)
    return t + 0.1 * t.sign()


def label(shape: Shape, dtype: torch.dtype, channels_last: bool, *notes: str) -> str:
    """The name of a case."""
    layout = "nhwc" if channels_last else "nchw"
    return " ".join(["x".join(map(str, shape)), str(dtype).removeprefix("torch."), layout, *notes])


def image_case(
    op: str,
    shape: Shape,
    dtype: torch.dtype,
    channels_last: bool,
    make: Callable[[torch.device], Kwargs],
    differentiable: tuple[str, ...],
    images: tuple[int, int],
    flops: tuple[int, int] = (0, 0),
) -> Case:
    """A case that moves so many ``images`` of one shape, forward, and forward and backward, and little else."""
    size = math.prod(shape) * dtype.itemsize
    name = label(shape, dtype, channels_last)
    return Case(op, name, make, differentiable, (images[0] * size, images[1] * size), flops, dtype)


def product_rate(dtype: torch.dtype) -> str:
    """The rate of a case whose products are in this dtype: float32 runs as TF32, as in PyTorch's convolutions."""
    return "tf32" if dtype == torch.float32 else str(dtype).removeprefix("torch.")


def forward(forms: Mapping[str, Form], kwargs: Kwargs) -> dict[str, Callable[[], Any]]:
    """The sides of a comparison without gradients."""
    return {name: torch.no_grad()(partial(form, **kwargs)) for name, form in forms.items()}


def both(forms: Mapping[str, Form], kwargs: Kwargs, names: tuple[str, ...]) -> dict[str, Callable[[], Any]]:
    """The sides of a comparison forward and backward, for the named arguments."""
    given = {**kwargs, **{name: kwargs[name].clone().requires_grad_() for name in names}}
    with torch.no_grad():
        # all positive: sums over pixels would by chance cancel
        dy = 0.5 + torch.rand_like(next(iter(forms.values()))(**given))
    leaves = [given[name] for name in names]
    return {name: lambda form=form: torch.autograd.grad(form(**given), leaves, dy) for name, form in forms.items()}
