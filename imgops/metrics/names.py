"""The names of the metrics. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence

#: the Fréchet distance and the sliced Wasserstein distance
METRICS = ("fd", "swd")


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics as they were given.

    Raises:
        ValueError: none, an unknown one, or one twice.
    """
    chosen = tuple(metrics)
    if isinstance(metrics, str) or not chosen or not set(chosen) <= set(METRICS) or len(set(chosen)) < len(chosen):
        raise ValueError(f"metrics must be one or several of {', '.join(METRICS)}; got {metrics!r}")
    return chosen


def parse_metrics(text: str) -> tuple[str, ...]:
    """``"fd,swd"`` to ("fd", "swd").

    Raises:
        ValueError: as :func:`check_metrics`.
    """
    try:
        return check_metrics([part.strip() for part in text.split(",")])
    except ValueError:
        raise ValueError(f"metrics must be one or several of {', '.join(METRICS)}, as fd,swd; got {text!r}") from None
