"""``bias_act``: add a bias, apply an activation, scale, clamp; in one pass, with its gradients fused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend
from .._epilogue import Epilogue
from ..reference import bias_act as reference
from ..reference.bias_act import ACTIVATIONS
from ._common import (
    STATUSES,
    accumulation_dtype,
    check_int,
    check_number,
    check_operand,
    check_tensor,
    dense_format,
    gradient_wanted,
)
from ._registration import check_kept, namespace, register

#: activations whose second derivative PyTorch gives as a tensor of zeros, where it gives None for a clamp; optimizers
#: treat zeros and None differently, so all backends do the same
_KINKED = ("relu", "lrelu")


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    *,
    impl: str | None = None,
) -> Tensor:
    """``clamp(gain * act(x + b), -clamp, clamp)`` in one pass over x.

    Differentiable to any order with respect to x and b; the bias gradient is summed in the same pass as x's.

    Args:
        x: tensor of any shape, float64/32/16 or bfloat16, any strides. Arithmetic is in float32 at least.
        b: bias [x.shape[dim]] in any of these dtypes; None adds none.
        dim: the dimension of x that b runs along; ignored without b. Default 1, the channels.
        act: "linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish" or "hardswish".
        alpha: negative slope of "lrelu"; default 0.2. The others ignore it.
        gain: factor after the activation; default sqrt(2) for relu, lrelu, swish and hardswish, which roughly keeps
            the variance of a layer's output (He et al. 2015), else 1.
        clamp: limit of the output's magnitude, >= 0; None clamps nothing.
        impl: "reference", "cpu", "triton" or "cuda"; None takes the best that is here.

    Returns:
        A tensor of x's shape and dtype, channels-last where x is.

    Raises:
        TypeError: x or b is no tensor of a supported dtype, or dim, alpha, gain or clamp no number.
        ValueError: b does not fit x, an unknown act, dim out of range, or a clamp below 0.
        RuntimeError: the backend named by ``impl`` cannot run here.
    """
    check_tensor("bias_act", "x", x)
    dim = check_int("bias_act", "dim", dim)
    if b is not None:
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(
                f"imgops.bias_act: dim must be in [{-x.ndim}, {x.ndim - 1}] for x of shape {list(x.shape)}; got {dim}"
            )
        dim %= x.ndim
        check_operand("bias_act", "b", b, x, (x.shape[dim],))
    epilogue = Epilogue(b, None, None, *activation_arguments("bias_act", act, alpha, gain, clamp))
    backend = _backend.choose("bias_act", x.device.type, impl, STATUSES)
    return fused_bias_act(backend, x, epilogue, dim if b is not None else 0)


def activation_arguments(
    op: str, act: str, alpha: float | None, gain: float | None, clamp: float | None
) -> tuple[str, float, float, float]:
    """(act, alpha, gain, clamp) checked, with the activation's defaults; no clamp is -1."""
    if act not in tuple(ACTIVATIONS):
        raise ValueError(f"imgops.{op}: act must be one of {', '.join(ACTIVATIONS)}; got {act!r}")
    defaults = ACTIVATIONS[act]
    return (
        act,
        defaults.default_alpha if alpha is None else check_number(op, "alpha", alpha),
        defaults.default_gain if gain is None else check_number(op, "gain", gain),
        -1.0 if clamp is None else check_number(op, "clamp", clamp, minimum=0),
    )


def fused_bias_act(backend: str, x: Tensor, epilogue: Epilogue, dim: int = 1) -> Tensor:
    """The epilogue of x on a backend, in x's dtype; arguments already checked.

    Shapes: x [N, C, ...]; b [x.shape[dim]]; scale [N, C]; noise [N or 1, 1, ...], the last two with dim = 1 only.
    """
    acc_dtype = accumulation_dtype(x.dtype)
    epilogue = epilogue.to(acc_dtype)
    if backend == "reference":
        return reference.bias_act(x.to(acc_dtype), epilogue, dim).to(x.dtype)
    return namespace(backend).bias_act(x, dim, *epilogue)


def _fake(x: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(x, memory_format=dense_format(x))


def _slope_from(epilogue: Epilogue, needs_x: bool) -> str | None:
    """Which of "x" and "y" gives the activation's slope, or None where it is constant.

    The output tells the slope where that depends on the sign alone. The next layer keeps the output anyway.
    """
    act, alpha, gain, clamp = epilogue[3:]
    if needs_x or ACTIVATIONS[act].derivative2 is not None:
        return "x"
    if act == "linear" and clamp < 0:
        return None
    return "y" if gain > 0 and (act != "lrelu" or alpha >= 0) else "x"


def keeps_input(inputs: Sequence[Tensor | None], epilogue: Epilogue) -> bool:
    """Whether a pass that ends in this epilogue must return what goes into it too, for the gradients of its inputs or
    of the epilogue's tensors."""
    scale = epilogue.scale
    return (
        gradient_wanted(*inputs, *epilogue[:3])
        and _slope_from(epilogue, needs_x=scale is not None and gradient_wanted(scale)) == "x"
    )


def saved_for_backward(
    x: Tensor, y: Tensor, epilogue: Epilogue, needs_x: bool, needs_scale: bool
) -> tuple[Tensor | None, ...]:
    """(x, y, b, scale, noise), None in place of those that no gradient reads.

    ``needs_x`` and ``needs_scale`` say whether x and scale get a gradient. The slope is read from y, or at the
    pre-activation, which is computed again from x, b, scale and noise.
    """
    source = _slope_from(epilogue, needs_scale)
    at_z = source == "x" and not (epilogue.act == "linear" and epilogue.clamp < 0)
    return (
        x if source == "x" else None,
        y if source == "y" else None,
        epilogue.b if at_z else None,
        epilogue.scale if at_z or needs_x else None,
        epilogue.noise if at_z else None,
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.dim, *rest = inputs
    epilogue = Epilogue(*rest)
    needs_x, needs_scale = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
    ctx.save_for_backward(*saved_for_backward(x, output, epilogue, needs_x, needs_scale and epilogue.scale is not None))
    ctx.activation, ctx.noise_shape = epilogue[3:], shape_of(epilogue.noise)


def shape_of(t: Tensor | None) -> Sequence[int] | None:
    """The shape of a tensor that may not be there."""
    return None if t is None else t.shape


def _backward(ops: Any, ctx: Any, needs: tuple[bool, ...], dy: Tensor) -> tuple[Any, ...]:
    dx, *others = gradients(ops, dy, ctx.saved_tensors, ctx.activation, ctx.noise_shape, needs[2:5], ctx.dim)
    return dx if needs[0] else None, None, *others, *[None] * 4


def gradients(
    ops: Any,
    dy: Tensor,
    saved: Sequence[Tensor | None],
    activation: tuple[str, float, float, float],
    noise_shape: Sequence[int] | None,
    needs: tuple[bool, ...],
    dim: int = 1,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """(dx, db, dscale, dnoise) by the fused backward, the last three where ``needs`` says so; ``saved`` is what
    :func:`saved_for_backward` gave."""
    needs_b, needs_scale, needs_noise = needs
    if _is_curvature(dy):
        dx = dy
        sizes = [dy.shape[dim]] if needs_b else [0], dy.shape[:2] if needs_scale else [0], noise_shape or [0]
        db, dscale, dnoise = (dy.new_zeros(size, dtype=accumulation_dtype(dy.dtype)) for size in sizes)
    else:
        x, y, *operands = saved
        dx, db, dscale, dnoise = ops.bias_act_backward(dy, x, y, dim, *operands, *activation, *needs)
    return (
        dx,
        db if needs_b else None,
        dscale if needs_scale else None,
        dnoise.sum_to_size(noise_shape) if needs_noise and noise_shape is not None else None,
    )


def remember_epilogue(
    ctx: Any, u: Tensor, y: Tensor, epilogue: Epilogue, keep: bool, needs_u: bool, needs_scale: bool
) -> tuple[Tensor | None, ...]:
    """What :func:`through_epilogue` needs of a pass that ends in an epilogue: the rest on ctx, and the tensors to save.

    ``u``, what goes into the epilogue, is an output of the op (where ``keep`` says so), so that second-order gradients
    reach the op's inputs through it. ``needs_u`` and ``needs_scale`` say whether u and scale get a gradient.
    """
    ctx.keep, ctx.plain = keep, epilogue.is_plain()
    ctx.activation, ctx.noise_shape = epilogue[3:], shape_of(epilogue.noise)
    return saved_for_backward(u, y, epilogue, needs_u, needs_scale)


def through_epilogue(
    ops: Any,
    op: str,
    what: str,
    ctx: Any,
    saved: Sequence[Tensor | None],
    dy: Tensor | None,
    du: Tensor | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients for (u, b, scale, noise) of those for the outputs y and u of ``op``; ``what`` names u in errors, and
    ``needs`` says which of the last three are wanted."""
    # a compiler may pass an empty gradient for what was not kept
    d, db, dscale, dnoise = du if ctx.keep else None, None, None, None
    if dy is not None:
        through: Tensor = dy
        if not ctx.plain:
            check_kept(op, what, ctx.keep or saved[0] is None)
            through, db, dscale, dnoise = gradients(ops, dy, saved, ctx.activation, ctx.noise_shape, needs)
        d = through if d is None else d + through
    return d, db, dscale, dnoise


def _fake_backward(
    dy: Tensor, x: Tensor | None, y: Tensor | None, dim: int, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    needs_b, needs_scale, needs_noise = rest[-3:]
    like = x if x is not None else y if y is not None else dy
    dx = torch.empty_like(dy, memory_format=dense_format(like))
    acc_dtype = accumulation_dtype(dy.dtype)
    return (
        dx,
        dy.new_empty([dy.shape[dim]] if needs_b else [0], dtype=acc_dtype),
        dy.new_empty(dy.shape[:2] if needs_scale else [0], dtype=acc_dtype),
        dy.new_empty([dy.shape[0], 1, *dy.shape[2:]] if needs_noise else [0], dtype=acc_dtype),
    )


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    dy, x, y, ctx.dim, *rest = inputs
    epilogue, ctx.needs = Epilogue(*rest[:7]), rest[7:]
    ctx.activation, ctx.shape, ctx.dtype = epilogue[3:], dy.shape, dy.dtype
    ctx.scaled = epilogue.scale is not None or ctx.needs[1]
    # without a second derivative and a scale the backward depends on dy alone, linearly
    needs_dy = ctx.scaled or ACTIVATIONS[epilogue.act].derivative2 is not None
    ctx.save_for_backward(dy if needs_dy else None, x, y, *epilogue[:3])


def _double_backward(
    ops: Any,
    ctx: Any,
    needs: tuple[bool, ...],
    vx: Tensor | None,
    vb: Tensor | None,
    vscale: Tensor | None,
    vnoise: Tensor | None,
) -> tuple[Any, ...]:
    """Gradients of <v, (dx, db, dscale, dnoise)>, in ops that are differentiable themselves.

    With z = x * scale + noise + b and s = dy/dz, the backward is dx = dy * s * scale, db = sum(dy * s),
    dscale = sum(dy * s * x), dnoise = sum(dy * s): linear in dy, and in x through s (smooth activations).
    """
    dy, x, y, *operands = ctx.saved_tensors
    epilogue = Epilogue(*operands, *ctx.activation)
    needs_dy, needs_x, needs_y, _, needs_b, needs_scale, needs_noise = needs[:7]
    needs_z = needs_x or needs_y or needs_b or needs_scale or needs_noise
    t = _change_of_z(ctx, x, epilogue.scale, vx, vb, vscale, vnoise)
    if t is None:
        return (None,) * len(ctx.needs_input_grad)
    curved = ACTIVATIONS[epilogue.act].derivative2 is not None
    slope: Tensor | float = epilogue.gain
    curvature: Tensor | float = 0.0
    if curved or ctx.scaled:
        dy = dy.to(accumulation_dtype(ctx.dtype))
        slope, curvature = _slope_and_curvature(x, y, epilogue, ctx.dim)

    ddy = dz = None
    if needs_dy and ctx.scaled:
        ddy = (t * slope).to(ctx.dtype).expand(ctx.shape)
    elif needs_dy:
        t_dy = t.to(ctx.dtype).expand(ctx.shape)
        ddy = ops.bias_act_backward(t_dy, x, y, ctx.dim, *epilogue, False, False, False)[0]
    if needs_z and curved:
        # z's gradient, which x, scale, noise and b share
        dz = t * dy * curvature
    elif needs_z and epilogue.act in _KINKED:
        # one zero in place of an image that would be written, and read again where the gradients of y are added
        dz = t.new_zeros(()).expand(ctx.shape)
    dx, dy_of_y, db, dscale, dnoise = _through_z(ctx, needs, dz, x, epilogue)

    # beside z, dx has scale as a factor, and dscale has x
    if needs_x and ctx.needs[1] and vscale is not None:
        dx = _sum_of(dx, dy * slope * _per_channel(vscale, ctx.shape))
    if needs_scale and vx is not None:
        dscale = _sum_of(dscale, (vx * (dy * slope)).sum(list(range(2, len(ctx.shape)))))
    return ddy, None if dx is None else dx.to(ctx.dtype), dy_of_y, None, db, dscale, dnoise, *[None] * 7


def _change_of_z(
    ctx: Any,
    x: Tensor | None,
    scale: Tensor | None,
    vx: Tensor | None,
    vb: Tensor | None,
    vscale: Tensor | None,
    vnoise: Tensor | None,
) -> Tensor | None:
    """The t with <v, (dx, db, dscale, dnoise)> = <t, dy * s>; it broadcasts to dy's shape. None if all of v is None."""
    (has_b, has_scale, has_noise), ndim = ctx.needs, len(ctx.shape)
    t = None
    if vx is not None:
        vx = vx.to(accumulation_dtype(ctx.dtype))
        t = vx if scale is None else vx * _per_channel(scale, ctx.shape)
    # a compiler may pass an empty gradient for a sum that was not asked for
    if has_b and vb is not None:
        t = _sum_of(t, vb.reshape([-1 if i == ctx.dim else 1 for i in range(ndim)]))
    if has_scale and x is not None and vscale is not None:
        t = _sum_of(t, x * _per_channel(vscale, ctx.shape))
    if has_noise and vnoise is not None:
        t = _sum_of(t, vnoise)
    return t


def _through_z(
    ctx: Any, needs: tuple[bool, ...], dz: Tensor | None, x: Tensor | None, epilogue: Epilogue
) -> tuple[Tensor | None, ...]:
    """What the gradient for z adds to those of (x, y, b, scale, noise); y gets it where it was saved in place of x."""
    if dz is None:
        return (None,) * 5
    _, needs_x, needs_y, _, needs_b, needs_scale, needs_noise = needs[:7]
    scale, noise, ndim = epilogue.scale, epilogue.noise, len(ctx.shape)
    return (
        (dz if scale is None else dz * _per_channel(scale, ctx.shape)) if needs_x else None,
        _as_output_gradient(dz.to(ctx.dtype), epilogue.act) if needs_y else None,
        dz.sum([i for i in range(ndim) if i != ctx.dim]) if needs_b else None,
        (dz * x).sum(list(range(2, ndim))) if needs_scale and x is not None else None,
        dz.sum(1, keepdim=True).sum_to_size(noise.shape) if needs_noise and noise is not None else None,
    )


def _as_output_gradient(zeros: Tensor, act: str) -> Tensor:
    """The zeros that a kink's second derivative gives, marked for lrelu: its backward hands them on without a pass."""
    if act == "lrelu":
        zeros.imgops_curvature = zeros._version  # type: ignore[attr-defined]
    return zeros


def _is_curvature(dy: Tensor) -> bool:
    """Whether dy is what :func:`_as_output_gradient` gave for lrelu, and nobody wrote to it since."""
    return not torch.compiler.is_compiling() and getattr(dy, "imgops_curvature", None) == dy._version


def _sum_of(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


def _per_channel(t: Tensor, shape: Sequence[int]) -> Tensor:
    """t [N, C] as a factor of an image of this shape."""
    return t.reshape(*t.shape, *[1] * (len(shape) - 2))


def _slope_and_curvature(
    x: Tensor | None, y: Tensor | None, epilogue: Epilogue, dim: int
) -> tuple[Tensor | float, Tensor | float]:
    """First and second derivative of ``clamp(gain * act(z))`` at z, from x or from the sign of y."""
    b, scale, noise, act, alpha, gain, clamp = epilogue
    function, derivative, derivative2, *_ = ACTIVATIONS[act]
    slope: Tensor | float = gain
    curvature: Tensor | float = 0.0
    if act == "linear" and clamp < 0:
        return slope, curvature
    if y is not None:
        slope, output = gain * derivative(y, alpha), y
    elif x is not None:
        z = reference.pre_activation(x.to(accumulation_dtype(x.dtype)), b, scale, noise, dim)
        slope, output = gain * derivative(z, alpha), gain * function(z, alpha)
        curvature = 0.0 if derivative2 is None else gain * derivative2(z, alpha)
    if clamp >= 0:
        inside = (output.abs() < clamp).to(output.dtype)
        slope, curvature = slope * inside, curvature * inside
    return slope, curvature


register(
    "bias_act(Tensor x, int dim, Tensor? b, Tensor? scale, Tensor? noise, str act, float alpha, float gain, float "
    "clamp) -> Tensor",
    fake=_fake,
    triton="bias_act",
    backward=_backward,
    setup_context=_setup_context,
)
register(
    "bias_act_backward(Tensor dy, Tensor? x, Tensor? y, int dim, Tensor? b, Tensor? scale, Tensor? noise, str act, "
    "float alpha, float gain, float clamp, bool needs_b, bool needs_scale, bool needs_noise) -> (Tensor, Tensor, "
    "Tensor, Tensor)",
    fake=_fake_backward,
    triton="bias_act",
    backward=_double_backward,
    setup_context=_setup_context_backward,
)
