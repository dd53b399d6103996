"""``grid_sample``: bilinear samples of images, differentiable to any order, and the ops behind it and ``displace``.

Along each axis the weights (1 - t, t) have the derivative (-1, 1), which is constant. So the samples, their derivatives
for the position (``order`` says which, 0 or 1 along x and y) and the adjoints of all these are a closed family: the
gradient of each is made of others, and two ops give every order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import _backend
from ..reference import grid_sample as reference
from ..reference.grid_sample import PADDING_MODES
from ._common import STATUSES, accumulation_dtype, check_operand, check_tensor, dense_format, untraced
from ._registration import namespace, register


def grid_sample(x: Tensor, grid: Tensor, *, impl: str | None = None) -> Tensor:
    """``torch.nn.functional.grid_sample(x, grid, align_corners=False)``, bilinear with zeros outside.

    Differentiable to any order with respect to x and grid. On the CPU results do
    not depend on the number of threads. On a GPU the gradient for x is summed atomically, in an order that varies;
    under ``torch.use_deterministic_algorithms(True)`` in 64-bit fixed point, in which the order does not matter.
    Jaderberg et al. 2015, section 3.3.

    Args:
        x: [N, C, H, W], float64/32/16 or bfloat16, any strides. Arithmetic is in float32 at least.
        grid: [N, H', W', 2] in any of these dtypes, the places to sample as (x, y), with the image's outer edges at -1
            and 1; taken in float32 (float64 where x is). A place that is infinite or NaN is outside.
        impl: "reference", "cpu" or "triton"; None takes the best that is here.

    Returns:
        [N, C, H', W'] in x's dtype, channels-last where x is.

    Raises:
        TypeError: x or grid is no tensor of a supported dtype.
        ValueError: shapes or devices that do not fit, samples of an image without pixels.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("grid_sample", "x", x, 4)
    check_tensor("grid_sample", "grid", grid, 4)
    _check_grid(x, grid)
    backend = _backend.choose("grid_sample", x.device.type, impl, STATUSES)
    return sample(backend, x, grid, False, "zeros")


@untraced
def _check_grid(x: Tensor, grid: Tensor) -> None:
    check_operand("grid_sample", "grid", grid, x, (x.shape[0], *grid.shape[1:3], 2))
    if 0 in x.shape[2:] and 0 not in grid.shape[:3]:
        raise ValueError(f"imgops.grid_sample: x must have pixels to sample; got shape {list(x.shape)}")


def check_padding_mode(op: str, padding_mode: Any) -> None:
    """Raise ValueError unless this is the name of a padding mode."""
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"imgops.{op}: padding_mode must be one of {', '.join(PADDING_MODES)}; got {padding_mode!r}")


def sample(backend: str, x: Tensor, positions: Tensor, displaced: bool, padding_mode: str) -> Tensor:
    """x at a grid, or (``displaced``) at its pixels moved by a displacement; arguments already checked."""
    acc_dtype = accumulation_dtype(x.dtype)
    positions = positions.to(acc_dtype)
    if backend == "reference":
        formula = reference.displace if displaced else reference.grid_sample
        y = formula(x.to(acc_dtype), positions, padding_mode).to(x.dtype)
        return y.contiguous(memory_format=dense_format(x))
    return namespace(backend).grid_sample(x, positions, displaced, padding_mode, (0, 0))


def _output_size(positions: Tensor, displaced: bool) -> Sequence[int]:
    return positions.shape[2:] if displaced else positions.shape[1:3]


def _along(positions: Tensor, displaced: bool) -> tuple[Tensor, Tensor]:
    """The components of a field of positions along x and y, as factors of an image: [N, 1, H', W'] each."""
    return (
        (positions[:, :1], positions[:, 1:]) if displaced else (positions[:, None, ..., 0], positions[:, None, ..., 1])
    )


def _fake(x: Tensor, positions: Tensor, displaced: bool, padding_mode: str, order: Sequence[int]) -> Tensor:
    y = x.new_empty([*x.shape[:2], *_output_size(positions, displaced)])
    return y.contiguous(memory_format=dense_format(x))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, positions, *ctx.arguments = inputs
    # x itself is needed for the gradient of the positions alone
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, positions)
    ctx.size = x.shape


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor) -> tuple[Any, ...]:
    x, positions = ctx.saved_tensors
    dx, dpositions = ops.grid_sample_backward(dy, x, positions, ctx.size, *ctx.arguments, *needs[:2])
    return dx if needs[0] else None, dpositions if needs[1] else None, None, None, None


def _fake_backward(
    dy: Tensor, x: Tensor | None, positions: Tensor, size: Sequence[int], *rest: Any
) -> tuple[Tensor, Tensor]:
    *_, needs_x, needs_positions = rest
    dx = dy.new_empty(size if needs_x else [0])
    form = dense_format(dy if x is None else x)
    return (
        dx.contiguous(memory_format=form) if needs_x else dx,
        positions.new_empty(positions.shape if needs_positions else [0]),
    )


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    dy, x, positions, ctx.size, ctx.displaced, ctx.padding_mode, ctx.order, ctx.needs_x, ctx.needs_positions = inputs
    ctx.save_for_backward(dy, x, positions)


def _double_backward(
    ops: Any, ctx: Any, needs: tuple[bool, ...], vx: Tensor | None, vpositions: Tensor | None
) -> tuple[Any, ...]:
    """Gradients of <v, (dx, dpositions)>, in the two ops.

    With S_pq the samples of order (p, q), the backward is dx = adjoint of S_pq, applied to dy, and dpositions =
    (sum over channels of dy * S_p+1,q(x), the same of dy * S_p,q+1(x)): linear in dy and in x.
    """
    dy, x, positions = ctx.saved_tensors
    narrow = dy.dtype
    # stays in the accumulation dtype: products with the slope of a position overflow float16
    dy = dy.to(positions.dtype)
    if x is not None:
        x = x.to(positions.dtype)
    if vx is not None:
        vx = vx.to(positions.dtype)
    needs_dy, needs_x, needs_positions = needs[:3]
    displaced, padding_mode, (p, q) = ctx.displaced, ctx.padding_mode, ctx.order

    def samples(image: Tensor, order: tuple[int, int]) -> Tensor:
        return ops.grid_sample(image, positions, displaced, padding_mode, order)

    def gradients(d: Tensor, image: Tensor | None, order: tuple[int, int], of_x: bool) -> tuple[Tensor, Tensor]:
        return ops.grid_sample_backward(
            d, image, positions, ctx.size, displaced, padding_mode, order, of_x, needs_positions
        )

    ddy = dx = dpositions = None
    # a compiler may pass an empty gradient for what was not asked for
    if ctx.needs_x and vx is not None:
        if needs_dy:
            ddy = samples(vx, (p, q))
        if needs_positions:
            dpositions = gradients(dy, vx, (p, q), False)[1]
    if ctx.needs_positions and vpositions is not None:
        for v, order in zip(_along(vpositions, displaced), ((p + 1, q), (p, q + 1)), strict=True):
            # the second derivative of the linear weights is 0
            if max(order) > 1:
                continue
            if needs_dy:
                term = samples(x, order) * v
                ddy = term if ddy is None else ddy + term
            if needs_x or needs_positions:
                term_x, term_positions = gradients(dy * v, x, order, needs_x)
                if needs_x:
                    dx = term_x if dx is None else dx + term_x
                if needs_positions:
                    dpositions = term_positions if dpositions is None else dpositions + term_positions
    ddy, dx = (None if t is None else t.to(narrow) for t in (ddy, dx))
    return ddy, dx, dpositions, *[None] * 6


register(
    "grid_sample(Tensor x, Tensor positions, bool displaced, str padding_mode, int[] order) -> Tensor",
    fake=_fake,
    triton="grid_sample",
    backward=_backward,
    setup_context=_setup_context,
)
register(
    "grid_sample_backward(Tensor dy, Tensor? x, Tensor positions, SymInt[] size, bool displaced, str padding_mode, "
    "int[] order, bool needs_x, bool needs_positions) -> (Tensor, Tensor)",
    fake=_fake_backward,
    triton="grid_sample",
    backward=_double_backward,
    setup_context=_setup_context_backward,
)
