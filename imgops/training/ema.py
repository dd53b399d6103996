"""Averages of a network's weights over its training: the running one, and power functions of which an average of any
length is made afterwards (Karras et al. 2023, "Analyzing and Improving the Training Dynamics of Diffusion Models",
section 3 and appendix C).

A length is the standard deviation of the average's weight over time, in units of the time since the start, as in the
paper (sigma_rel): at any time of the training 0.1 gives the last quarter of it nine tenths of the weight.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..data.files import write_file

#: the lengths that are kept
LENGTHS = (0.05, 0.1)
#: the length of a plain mean over all time, which every length is below
LONGEST = 12**-0.5
#: the folder of the snapshots, in that of a run
SNAPSHOTS = "ema"
#: what a snapshot of the averages is stored in
DTYPES = {"float32": torch.float32, "float16": torch.float16}
_SNAPSHOT = re.compile(r"ema-(\d{10})\.safetensors")
#: the least penalty on the weights of snapshots, which keeps their equations solvable in float64
_LEAST_PENALTY = 1e-13


class SnapshotError(ValueError):
    """A snapshot is missing, damaged or of another network; the message is one line that names the file."""


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move a running average on: its parameters to ``decay`` of themselves and the rest of the network's; its buffers
    become the network's. :func:`~imgops.training.losses.ema_decay` gives the decay, with its ramp-up."""
    torch._foreach_lerp_(list(average.parameters()), [p.to(a) for a, p in _pairs(average, network)], 1 - decay)
    for own, buffer in zip(average.buffers(), network.buffers(), strict=True):
        own.copy_(buffer)


def _pairs(average: nn.Module, network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return list(zip(average.parameters(), network.parameters(), strict=True))


def power_of(length: float) -> float:
    """The power gamma of the weight ``(gamma + 1) / t * (tau / t)^gamma`` that an average of a length at time t gives
    to time tau <= t; the length is ``sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3))``.

    Raises:
        ValueError: a length that is not between 0 and that of a plain mean.

    >>> round(power_of(0.1), 3)
    6.937
    """
    if not 0 < length < LONGEST:
        raise ValueError(f"length must be above 0 and below {LONGEST:.4g}; got {length}")
    roots = np.roots([1.0, 7.0, 16 - length**-2, 12 - length**-2])
    return float(roots.real.max())


class PowerAverages:
    """Averages of a network's parameters by power functions of the time, in float64.

    In float32 an average stops following what moves by less than a rounding error in a step, and the share of a step
    shrinks as the training goes on.

    Args:
        network: whose parameters are averaged; their names are those of the averages.
        lengths: of the averages. Default (0.05, 0.1).

    Attributes:
        seen: images shown until the last update.
        averages: {name: float64 tensor} for each length, on the devices of the parameters.

    Raises:
        ValueError: a length out of range, or two alike.
    """

    def __init__(self, network: nn.Module, lengths: Sequence[float] = LENGTHS) -> None:
        self.lengths, self.seen = tuple(map(float, lengths)), 0
        if not self.lengths or len(set(self.lengths)) < len(self.lengths):
            raise ValueError(f"lengths must be one or several, all different; got {lengths}")
        self._powers = [power_of(length) for length in self.lengths]
        self.averages = [
            {name: p.detach().to(torch.float64, copy=True) for name, p in network.named_parameters()}
            for _ in self.lengths
        ]

    @property
    def snapshot_bytes(self) -> int:
        """About the size of a snapshot, in float32."""
        return sum(4 * t.numel() for average in self.averages for t in average.values())

    @torch.no_grad()
    def update(self, network: nn.Module, seen: int) -> None:
        """Add the parameters as they are after a step.

        Args:
            network: the same network.
            seen: images shown so far, with those of the step.

        Raises:
            ValueError: no more images than at the last update.
        """
        if seen <= self.seen:
            raise ValueError(f"PowerAverages: seen must be above {self.seen}, that of the last update; got {seen}")
        values = [p.detach().double() for p in network.parameters()]
        for power, average in zip(self._powers, self.averages, strict=True):
            # the first update takes the parameters as they are
            torch._foreach_lerp_(list(average.values()), values, 1 - (self.seen / seen) ** (power + 1))
        self.seen = seen

    def state_dict(self) -> dict[str, Tensor]:
        """``seen`` (int64, no dimensions) and each average as ``<number>.<parameter>``: all there is to save."""
        tensors = {f"{i}.{name}": t for i, average in enumerate(self.averages) for name, t in average.items()}
        return {"seen": torch.tensor(self.seen), **tensors}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            ValueError: a tensor is missing or has another shape; names it.
        """
        for key, own in self.state_dict().items():
            if key not in state or state[key].shape != own.shape:
                got = list(state[key].shape) if key in state else "nothing"
                raise ValueError(f"PowerAverages: {key} must be {list(own.shape)}; got {got}")
        self.seen = int(state["seen"])
        for i, average in enumerate(self.averages):
            for name, own in average.items():
                own.copy_(state[f"{i}.{name}"])


def write_snapshot(folder: str | os.PathLike[str], averages: PowerAverages, dtype: str = "float32") -> Path:
    """Write the averages as they are into ``<folder>/ema-<images>.safetensors``, whole or not at all.

    Args:
        folder: is made if need be.
        averages: after an update.
        dtype: "float32", or "float16" for half of the size.

    Raises:
        ValueError: another dtype.
        OSError: it cannot be written.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}; got {dtype!r}")
    state = averages.state_dict()
    del state["seen"]
    tensors = {key: t.to("cpu", DTYPES[dtype]).contiguous() for key, t in state.items()}
    about = {"images": str(averages.seen), "lengths": ",".join(map(repr, averages.lengths))}
    path = Path(folder) / f"ema-{averages.seen:010d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, safetensors.torch.save(tensors, about))
    return path


def snapshots(folder: str | os.PathLike[str]) -> list[Path]:
    """The snapshots in a folder, oldest first."""
    return sorted(path for path in Path(folder).glob("ema-*.safetensors") if _SNAPSHOT.fullmatch(path.name))


class _Kept(NamedTuple):
    """An average in a snapshot: the length and the time, in images, and the prefix of its tensors in the file."""

    length: float
    images: int
    path: Path
    prefix: str


class Reconstruction(NamedTuple):
    """An average that was made of snapshots: {name: float32 tensor}, when, and by how much its weight over time differs
    from that which was asked for, as a share of the latter (root mean square)."""

    parameters: dict[str, Tensor]
    images: int
    misfit: float


def reconstruct(paths: Sequence[str | os.PathLike[str]], length: float, images: int | None = None) -> Reconstruction:
    """The average of any length, by least squares from those in snapshots (the paper's appendix C).

    Args:
        paths: snapshots of one network; those after ``images`` are not used.
        length: as for :class:`PowerAverages`. Shorter than the distance of the snapshots it fits badly.
        images: when it is the average; None: at the newest snapshot.

    Raises:
        SnapshotError: no snapshot until then, one that is damaged, or of another network; names it.
        ValueError: a length out of range.
    """
    power_of(length)
    kept = [average for path in paths for average in _averages(Path(path))]
    when = max((average.images for average in kept), default=0) if images is None else images
    kept = [average for average in kept if average.images <= when]
    if not kept:
        raise SnapshotError("there is no snapshot" + ("" if images is None else f" of {images:,} images or fewer"))
    dtypes, names = _contents(kept)
    penalty = max(torch.finfo(dtype).eps for dtype in dtypes) ** 2
    times = [(average.length, average.images) for average in kept]
    weights, misfit = solve_weights(times, length, when, max(penalty, _LEAST_PENALTY))
    sums: dict[str, Tensor] = {}
    for average, weight in zip(kept, weights.tolist(), strict=True):
        if weight == 0:
            continue
        with safetensors.safe_open(average.path, "pt") as file:
            for name in names:
                part = file.get_tensor(average.prefix + name).double() * weight
                sums[name] = sums[name] + part if name in sums else part
    return Reconstruction({name: value.float() for name, value in sums.items()}, when, misfit)


def solve_weights(
    kept: Sequence[tuple[float, int]], length: float, images: int, penalty: float = _LEAST_PENALTY
) -> tuple[Tensor, float]:
    """How much each kept average counts in one of another length or time.

    The weights minimize the squared distance, over all time, between the sum of the averages' power functions and the
    one that is wanted; their sum is 1, so that parameters that do not change are reproduced. Kept averages resemble
    each other, so that weights are large and of both signs: ``penalty`` times their squares keeps the rounding of
    stored averages from being amplified.

    Args:
        kept: (length, images) of each.
        length, images: of the one that is wanted.
        penalty: about the square of the relative rounding error of what is stored.

    Returns:
        (weights, float64 [len(kept)]; the root of the distance left, as a share of the wanted function).

    >>> solve_weights([(0.05, 100), (0.1, 100)], 0.1, 100)
    (tensor([0., 1.], dtype=torch.float64), 0.0)
    """
    n = len(kept)
    if (length, images) in kept:
        weights = torch.zeros(n, dtype=torch.float64)
        weights[list(kept).index((length, images))] = 1
        return weights, 0.0
    powers = torch.tensor([power_of(value) for value, _ in [*kept, (length, images)]], dtype=torch.float64)
    times = torch.tensor([time for _, time in kept] + [images], dtype=torch.float64) / images
    products = _inner_products(powers, times)
    matrix, wanted = products[:n, :n], products[:n, n]
    # Lagrange's equations, the last of which says that the sum is 1
    equations = torch.ones(n + 1, n + 1, dtype=torch.float64)
    equations[:n, :n] = matrix + penalty * torch.eye(n, dtype=torch.float64)
    equations[n, n] = 0
    weights = torch.linalg.solve(equations, torch.cat([wanted, wanted.new_ones(1)]))[:n]
    left = float(products[n, n] - 2 * weights @ wanted + weights @ matrix @ weights)
    return weights, (max(left, 0.0) / float(products[n, n])) ** 0.5


def _inner_products(powers: Tensor, times: Tensor) -> Tensor:
    """Integrals over time of the products of power functions, [n, n]."""
    a, b, s, t = powers[:, None], powers[None, :], times[:, None], times[None, :]
    # of the two functions the one that begins to be zero first bounds the integral
    later, power = torch.maximum(s, t), torch.where(s < t, b, a)
    ratio = torch.minimum(s, t) / later
    return (a + 1) * (b + 1) / (a + b + 1) * ratio**power / later


def _averages(path: Path) -> list[_Kept]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
        lengths, images = [float(text) for text in about["lengths"].split(",")], int(about["images"])
        return [_Kept(length, images, path, f"{i}.") for i, length in enumerate(lengths)]
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise SnapshotError(f"{path}: missing or damaged ({type(error).__name__}: {error})") from None


def _contents(kept: Sequence[_Kept]) -> tuple[set[torch.dtype], list[str]]:
    """The dtypes of snapshots, and the names of the parameters, which must be the same in all.

    Raises:
        SnapshotError: they are not.
    """
    first: dict[str, Any] | None = None
    dtypes = set()
    for average in kept:
        with safetensors.safe_open(average.path, "pt") as file:
            own = [key for key in file.keys() if key.startswith(average.prefix)]  # noqa: SIM118
            shapes = {key.removeprefix(average.prefix): file.get_slice(key).get_shape() for key in own}
            dtypes |= {file.get_tensor(key).dtype for key in own[:1]}
        if first is not None and shapes != first:
            raise SnapshotError(f"{average.path}: is of another network than {kept[0].path}")
        first = shapes
    assert first is not None
    return dtypes, list(first)
