"""What a dream makes larger: the activations of a layer, or of one of its channels, their likeness to a guide's, or the
logit of a class."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.encoders.classes import find_class

#: dot products that are held at once in the search for guides, a bound on memory
_PRODUCTS = 1 << 24
_SPEC = re.compile(r"(?P<layer>[^:=\s]+)(:(?P<channel>[^:=]*))?(=(?P<weight>[^:=]*))?")


@dataclass(frozen=True)
class Objective:
    """Half the mean square of a layer's activations, or of one of its channels (Mordvintsev et al. 2015).

    Args:
        layer: a name as :class:`~imgops.nn.Features` takes it.
        channel: from 0; None is all of them. Default None.
        weight: in the sum of several objectives; below 0 to make the activations smaller. Default 1.

    Raises:
        TypeError: a layer that is no name, a channel that is no int, a weight that is no number.
        ValueError: a channel below 0, a weight that is 0 or not finite.

    >>> Objective("relu4_2").density(torch.full((1, 8, 2, 2), 3.0)).mean()
    tensor(4.5000)
    """

    layer: str
    channel: int | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check(self)
        if self.channel is not None and (isinstance(self.channel, bool) or not isinstance(self.channel, int)):
            raise TypeError(f"Objective: channel must be an int or None; got {self.channel!r}")
        if self.channel is not None and self.channel < 0:
            raise ValueError(f"Objective: channel must be >= 0; got {self.channel}")

    def bound(self, features: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[Tensor], Tensor]:
        """The function that gives the density; ``features`` are those of the network."""
        return self.density

    def density(self, y: Tensor) -> Tensor:
        """Of activations [N, C, ...] the values [N, C or 1, ...] whose mean is the objective.

        Raises:
            ValueError: there is no such channel.
        """
        if self.channel is not None:
            if y.ndim < 2 or self.channel >= y.shape[1]:
                has = y.shape[1] if y.ndim > 1 else 0
                raise ValueError(f"Objective: channel of layer {self.layer} must be 0 to {has - 1}; got {self.channel}")
            y = y[:, self.channel : self.channel + 1]
        return y.square() / 2


@dataclass(frozen=True, eq=False)
class GuidedObjective:
    """The dot product of each position's activations with those of a guide picture, at the place in the guide where it
    is largest: the dream takes over what the guide shows (Mordvintsev et al. 2015). Divided by the channels.

    Args:
        layer: a name as :class:`~imgops.nn.Features` takes it.
        guide: a picture [3, H, W], RGB in [0, 1]. The network reads it at its own size, which sets the size of the
            patterns: about 256 pixels is plenty.
        weight: in the sum of several objectives. Default 1.
        mask: how visible each pixel of the guide is, [1, H, W] in [0, 1], such as its alpha: positions that are less
            than half visible do not guide, unless all are. None: all of it. Default None.

    Raises:
        TypeError: a layer that is no name, a weight that is no number, a guide that is no tensor of floats.
        ValueError: a weight that is 0 or not finite, a guide of another shape, a mask of another or 0 all over.
    """

    layer: str
    guide: Tensor
    weight: float = 1.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        _check(self)
        check_picture("GuidedObjective", "guide", self.guide)
        if self.mask is not None and (self.mask.shape != (1, *self.guide.shape[1:]) or not self.mask.max() > 0):
            raise ValueError(
                f"GuidedObjective: mask must be {[1, *self.guide.shape[1:]]} as the guide is, and not 0 all over; got "
                f"{list(self.mask.shape)}"
            )

    def bound(self, features: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[Tensor], Tensor]:
        """The function that gives the density; ``features`` are those of the network, computed for the guide once.

        Raises:
            ValueError: the layer's output is no [N, C, H, W].
        """
        with torch.no_grad():
            y = features(self.guide[None])[self.layer]
        if y.ndim != 4:
            raise ValueError(f"GuidedObjective: layer {self.layer} must give [N, C, H, W]; it gives {tuple(y.shape)}")
        found = y[0].flatten(1)
        if self.mask is not None:
            seen = F.adaptive_avg_pool2d(self.mask[None].to(found), (y.shape[2], y.shape[3])).flatten()
            found = found[:, seen >= seen.max().clamp(max=0.5)]
        return partial(guided_density, guide=found)


@dataclass(frozen=True)
class ClassObjective:
    """The logit of a class, which grows with what shows the class; its probability would grow as well by what shows no
    other one.

    Args:
        number: of the class, from 0; :func:`~imgops.models.encoders.find_class` finds those of ImageNet by name.
        weight: in the sum of several objectives. Default 1.
        layer: the one whose output is [N, classes]. Default "classifier", as ``load_encoder(..., classifier=True)``
            names it.

    Raises:
        TypeError: a number that is no int, a weight that is no number, a layer that is no name.
        ValueError: a number below 0, a weight that is 0 or not finite.

    >>> ClassObjective(2).density(torch.tensor([[0.5, 1.5, 2.5]]))
    tensor([[2.5000]])
    """

    number: int
    weight: float = 1.0
    layer: str = "classifier"

    def __post_init__(self) -> None:
        _check(self)
        if isinstance(self.number, bool) or not isinstance(self.number, int):
            raise TypeError(f"ClassObjective: number must be an int; got {self.number!r}")
        if self.number < 0:
            raise ValueError(f"ClassObjective: number must be >= 0; got {self.number}")

    def bound(self, features: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[Tensor], Tensor]:
        """The function that gives the density; ``features`` are those of the network."""
        return self.density

    def density(self, y: Tensor) -> Tensor:
        """Of logits [N, classes] the class's [N, 1].

        Raises:
            ValueError: the layer's output is no [N, classes], or there is no such class.
        """
        if y.ndim != 2:
            raise ValueError(f"ClassObjective: layer {self.layer} must give [N, classes]; it gives {tuple(y.shape)}")
        if self.number >= y.shape[1]:
            raise ValueError(f"ClassObjective: number must be 0 to {y.shape[1] - 1}; got {self.number}")
        return y[:, self.number : self.number + 1]


#: what :func:`~imgops.dream.dream` takes
AnyObjective: TypeAlias = Objective | GuidedObjective | ClassObjective


def guided_density(y: Tensor, guide: Tensor) -> Tensor:
    """The products whose sum over the channels is the largest dot product with a guide's features.

    Args:
        y: activations [N, C, H, W].
        guide: features of the guide [C, positions].

    Returns:
        [N, C, H, W]. Its gradient for y is the guide's feature at each position.
    """
    n, channels, h, w = y.shape
    flat = y.permute(0, 2, 3, 1).reshape(-1, channels)
    rows = max(1, _PRODUCTS // guide.shape[1])
    best = torch.cat([(part @ guide).argmax(1) for part in flat.detach().split(rows)])
    return y * guide[:, best].reshape(channels, n, h, w).transpose(0, 1)


def parse_objective(text: str, guide: Tensor | None = None, mask: Tensor | None = None) -> Objective | GuidedObjective:
    """An objective as the command line has it: ``layer`` or ``layer:channel``, either with or without ``=weight``.

    Args:
        text: such as ``inception_4c``, ``relu4_2:17`` or ``relu4_2:17=0.5``.
        guide, mask: a picture [3, H, W], and what is visible of it, make it guided; then without a channel. Default
            None.

    Raises:
        ValueError: it is none of these, or out of range.

    >>> parse_objective("relu4_2:17=0.5")
    Objective(layer='relu4_2', channel=17, weight=0.5)
    """
    match = _SPEC.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        channel = None if match["channel"] is None else int(match["channel"])
        weight = 1.0 if match["weight"] is None else float(match["weight"])
    except ValueError:
        raise ValueError(
            f"{text!r} is no objective; write a layer, layer:channel or layer:channel=weight, as in relu4_2:17=0.5"
        ) from None
    if guide is None:
        return Objective(match["layer"], channel, weight)
    if channel is not None:
        raise ValueError(f"{text!r}: an objective with a guide takes a whole layer; leave out :{channel}")
    return GuidedObjective(match["layer"], guide, weight, mask)


def parse_class(text: str) -> ClassObjective:
    """A class of ImageNet as the command line has it: a name or a number, with or without ``=weight``.

    Raises:
        ValueError: there is no such class, with the closest names, or several are called so; a weight that is no
            number, 0 or not finite.

    >>> parse_class("tabby cat=2")
    ClassObjective(number=281, weight=2.0, layer='classifier')
    """
    name, _, weight = text.partition("=")
    try:
        number = float(weight or 1)
    except ValueError:
        raise ValueError(f"{text!r} is no class; write a name or a number, or either with =WEIGHT") from None
    return ClassObjective(find_class(name), number)


def check_picture(owner: str, name: str, picture: Any) -> None:
    """Raise TypeError, ValueError unless this is a picture: a tensor of floats [3, H, W] with pixels."""
    if not isinstance(picture, Tensor) or not picture.is_floating_point():
        kind = picture.dtype if isinstance(picture, Tensor) else type(picture).__name__
        raise TypeError(f"{owner}: {name} must be a tensor of floats in [0, 1]; got {kind}")
    if picture.ndim != 3 or picture.shape[0] != 3 or picture.numel() == 0:
        raise ValueError(f"{owner}: {name} must be RGB [3, H, W]; got shape {list(picture.shape)}")


def _check(objective: AnyObjective) -> None:
    owner = type(objective).__name__
    if not isinstance(objective.layer, str):
        raise TypeError(f"{owner}: layer must be the name of a layer; got {objective.layer!r}")
    if isinstance(objective.weight, bool) or not isinstance(objective.weight, (int, float)):
        raise TypeError(f"{owner}: weight must be a number; got {objective.weight!r}")
    if not math.isfinite(objective.weight) or objective.weight == 0:
        raise ValueError(f"{owner}: weight must be finite and other than 0; got {objective.weight}")
