"""Curves of what a run recorded, as drawings (SVG) that need nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

#: (images shown, value) in order
Series: TypeAlias = Sequence[tuple[float, float]]

#: most points of a curve; of more, neighbors are averaged
POINTS = 300
#: of a drawing, in its own units: its size, and the margins left, right, above and below
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 400, 220, 46, 10, 8, 22
#: how many steps of an axis to aim at
_TICKS = 4


def drawing(curves: Mapping[str, Series]) -> str:
    """Curves over the images shown, each with its name, as SVG; classes ``c0``, ``c1``, ... give their colors."""
    thinned = {name: thin(series) for name, series in curves.items()}
    xs = [x for points in thinned.values() for x, *_ in points]
    ys = [y for points in thinned.values() for _, *values in points for y in values]
    low, high, right = min(ys), max(ys), max(xs)
    if low == high:
        # a flat curve lies on the axis
        high += 1
    x_ticks, y_ticks = ticks(0, right), ticks(low, high)

    def x_of(x: float) -> float:
        return _LEFT + x / right * (_WIDTH - _LEFT - _RIGHT)

    def y_of(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(", ".join(curves))}">']
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y_of(y):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y_of(y) + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in x_ticks:
        at = "end" if x_of(x) > _WIDTH - 2 * _RIGHT else "middle"
        parts.append(f'<text x="{x_of(x):.1f}" y="{_HEIGHT - 6}" text-anchor="{at}">{number(x)}</text>')
    for k, (name, points) in enumerate(thinned.items()):
        line = " ".join(f"{x_of(x):.1f},{y_of(mean):.1f}" for x, _, mean, _ in points)
        if any(least < most for _, least, _, most in points):
            band = [(x, most) for x, _, _, most in points] + [(x, least) for x, least, _, _ in reversed(points)]
            corners = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in band)
            parts.append(f'<polygon class="c{k}" points="{corners}"/>')
        if len(points) == 1:
            ((x, _, y, _),) = points
            parts.append(f'<circle class="c{k}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="2.5"/>')
        parts.append(f'<polyline class="c{k}" points="{line}"><title>{html.escape(name)}</title></polyline>')
    return "".join([*parts, "</svg>"])


def thin(series: Series, points: int = POINTS) -> list[tuple[float, float, float, float]]:
    """Neighbors averaged until there are at most ``points``: (images shown, least, mean and largest value) of each."""
    found, count = [], min(points, len(series))
    for k in range(count):
        part = series[k * len(series) // count : (k + 1) * len(series) // count]
        values = [y for _, y in part]
        found.append((part[-1][0], min(values), sum(values) / len(values), max(values)))
    return found


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, which is larger, about :data:`_TICKS` steps.

    >>> ticks(0, 4000)
    [0.0, 1000.0, 2000.0, 3000.0, 4000.0]
    """
    rough = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * unit / rough)))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number in few characters.

    >>> number(25_000_000), number(1129), number(0.25), number(0)
    ('25M', '1.129k', '0.25', '0')
    """
    for size, letter in (1e6, "M"), (1e3, "k"):
        # from there on three digits would round to an exponent
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}"
