"""Large pictures in tiles: which pixels a layer sees, and tiles whose features equal those of the whole picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...nn._checks import check_size
from ...nn.convolving import PaddedConv2d
from ...nn.features import Features, find_layer
from ._layers import Branches, Colors, Pool

#: layers whose every value depends on the value at the same place of the layer before, and on no other
_POINTWISE = (
    Colors,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.BatchNorm2d,
    nn.Identity,
    nn.Dropout,
)

#: sides of tiles to choose from, in pixels
TILES = (2048, 1536, 1024, 768, 512, 384, 256, 128)


class Field(NamedTuple):
    """The pixels that a value of a layer depends on: along each axis the ``stride`` pixels of its own place, and up to
    ``reach`` pixels beyond them on each side."""

    stride: int
    reach: int


class Tile(NamedTuple):
    """A rectangle of a picture, ``core``, and the larger one that its features are computed from, ``outer``; both
    (top, left, bottom, right) in pixels; and the picture's height and width."""

    core: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]
    size: tuple[int, int]

    def cut(self, picture: Tensor) -> Tensor:
        """The outer rectangle of a picture [..., H, W], a view."""
        top, left, bottom, right = self.outer
        return picture[..., top:bottom, left:right]

    def core_of(self, features: Tensor, stride: int) -> Tensor:
        """The core's part of features [..., H', W'] that were computed from the outer rectangle, a view."""
        rows, columns = (self._span(side, stride) for side in (0, 1))
        return features[..., rows, columns]

    def _span(self, side: int, stride: int) -> slice:
        start, end, outer = self.core[side], self.core[side + 2], self.outer[side]
        # pools round, so that at the end of the picture there may be a feature more or less than the core's share
        return slice((start - outer) // stride, None if end == self.size[side] else (end - outer) // stride)

    def core_in_picture(self, features: Tensor, stride: int) -> Tensor:
        """The core's part of features [..., H', W'] of the whole picture, a view."""
        rows, columns = (
            slice(
                self.core[side] // stride,
                None if self.core[side + 2] == self.size[side] else self.core[side + 2] // stride,
            )
            for side in (0, 1)
        )
        return features[..., rows, columns]


def receptive_fields(network: nn.Module, layers: Sequence[str]) -> dict[str, Field]:
    """The field of each of a network's layers, by the name it was asked for.

    Args:
        network: a sequence of convolutions, pools, pointwise layers, and sequences or branches of these, as the
            encoders of this package are; or any with an attribute ``fields``, {layer: (stride, reach)}.
        layers: names as :class:`~imgops.nn.Features` takes them. A layer within a block has the block's field.

    Raises:
        ValueError: a layer that the network lacks; a network of other layers, or with circular padding: what these
            see is not known.
    """
    paths = {name: find_layer(network, name) for name in layers}
    if (given := getattr(network, "fields", None)) is not None:
        return _of_attribute(network, given, paths)
    paths = {name: path.split(".")[0] for name, path in paths.items()}
    if not isinstance(network, nn.Sequential):
        raise ValueError(
            f"tiles need an attribute fields, or a network that is a sequence of layers; got {type(network).__name__}"
        )
    seen: dict[str, Field] = {}
    extent = _Extent(1, 0, 0)
    for name, layer in network.named_children():
        if set(paths.values()) <= seen.keys():
            break
        extent = _through(layer, name, extent)
        seen[name] = Field(extent.stride, max(extent.before, extent.behind - extent.stride + 1, 0))
    return {name: seen[path] for name, path in paths.items()}


def _of_attribute(network: nn.Module, given: Any, paths: Mapping[str, str]) -> dict[str, Field]:
    """The fields that a network itself tells, by the names of ``paths``."""
    if missing := sorted(set(paths.values()) - set(given)):
        raise ValueError(
            f"tiles need the fields of {', '.join(missing)}; {type(network).__name__}.fields has {', '.join(given)}"
        )
    found = {name: Field(*given[path]) for name, path in paths.items()}
    for name, field in found.items():
        check_size("fields", f"stride of {name}", field.stride)
        check_size("fields", f"reach of {name}", field.reach, 0)
    return found


class _Extent(NamedTuple):
    """Value i of a layer is made from the pixels ``i * stride - before`` to ``i * stride + behind``."""

    stride: int
    before: int
    behind: int


def _through(layer: nn.Module, name: str, extent: _Extent) -> _Extent:
    if isinstance(layer, _POINTWISE):
        return extent
    if isinstance(layer, nn.Sequential):
        for part, inner in layer.named_children():
            extent = _through(inner, f"{name}.{part}", extent)
        return extent
    if isinstance(layer, Branches):
        ends = [_through(branch, f"{name}.{part}", extent) for part, branch in layer.named_children()]
        return _Extent(ends[0].stride, max(end.before for end in ends), max(end.behind for end in ends))
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode == "circular" or isinstance(layer.padding, str):
            raise ValueError(f"tiles cannot be computed through layer {name} with padding {layer.padding_mode}")
        before = layer.pads[0] if isinstance(layer, PaddedConv2d) else None
        ends = [
            _windows(extent, (k - 1) * d, s, p if before is None else before)
            for k, d, s, p in zip(layer.kernel_size, layer.dilation, layer.stride, layer.padding, strict=True)
        ]
        return _Extent(ends[0].stride, max(end.before for end in ends), max(end.behind for end in ends))
    if isinstance(layer, (Pool, nn.MaxPool2d, nn.AvgPool2d)):
        size, stride, padding = (
            layer.size if isinstance(layer, Pool) else layer.kernel_size,
            layer.stride,
            layer.padding,
        )
        if all(isinstance(value, int) for value in (size, stride, padding)):
            return _windows(extent, size - 1, stride, padding)  # type: ignore[operator, arg-type]
    raise ValueError(f"tiles cannot be computed through layer {name}, a {type(layer).__name__}")


def _windows(extent: _Extent, reach: int, stride: int, padding: int) -> _Extent:
    return _Extent(
        extent.stride * stride,
        extent.before + padding * extent.stride,
        extent.behind + (reach - padding) * extent.stride,
    )


def plan_tiles(height: int, width: int, side: int | None, fields: Sequence[Field]) -> list[Tile]:
    """Tiles whose cores cover a picture once, and whose features in the cores are those of the whole picture.

    Args:
        height, width: of the picture, in pixels.
        side: of a core in pixels, rounded down to the largest stride; None makes one tile of the picture.
        fields: of the layers whose features are wanted.

    Raises:
        ValueError: a side below the largest stride.
    """
    rows, columns = _spans(height, width, side, fields)
    return [
        Tile((top, left, bottom, right), (y0, x0, y1, x1), (height, width))
        for (top, bottom), (y0, y1) in rows
        for (left, right), (x0, x1) in columns
    ]


def tile_areas(height: int, width: int, side: int | None, fields: Sequence[Field]) -> tuple[int, int]:
    """Pixels of the largest outer rectangle of :func:`plan_tiles`, and of all of them together. It makes no list of
    tiles, which could have millions of entries.

    Raises:
        ValueError: a side below the largest stride.
    """
    lengths = [[end - start for _, (start, end) in spans] for spans in _spans(height, width, side, fields)]
    return max(lengths[0]) * max(lengths[1]), sum(lengths[0]) * sum(lengths[1])


#: (start, end) of a tile's core along an axis, and of its outer rectangle
_Span = tuple[tuple[int, int], tuple[int, int]]


def _spans(height: int, width: int, side: int | None, fields: Sequence[Field]) -> tuple[list[_Span], list[_Span]]:
    """The tiles along y and along x."""
    if side is None or (side >= height and side >= width):
        return [((0, height), (0, height))], [((0, width), (0, width))]
    stride = max(field.stride for field in fields)
    if side < stride:
        raise ValueError(f"tile must be >= {stride}, the stride of the deepest layer; got {side}")
    side = side // stride * stride
    halo = -(-max(field.reach for field in fields) // stride) * stride

    def along(length: int) -> list[_Span]:
        spans = []
        # what is left at the end, if it is less than a stride, belongs to the tile before
        for start in range(0, max(length - stride + 1, 1), side):
            end = min(start + side, length) if length - (start + side) >= stride else length
            spans.append(((start, end), (max(start - halo, 0), min(end + halo, length))))
        return spans

    return along(height), along(width)


def bytes_per_pixel(network: nn.Module, layers: Sequence[str]) -> float:
    """Bytes per pixel that the gradient of a picture takes: the outputs that the layers up to the deepest of ``layers``
    keep for their backward, measured on a small picture, and five times the largest of them, for the layer that runs:
    its images and padded copies, and the memory of earlier ones that is kept for reuse (measured on the encoder that
    ships)."""
    features = Features(network, layers)
    parameter = next(network.parameters(), torch.empty(0))
    side = 128
    sizes: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        # detached, as a node that keeps its own output would keep itself alive forever
        return x.detach()

    own = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    x = torch.full((1, 3, side, side), 0.5, dtype=parameter.dtype, device=parameter.device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        found = features(x)
    kept = [size for place, size in sizes.items() if place not in own]
    del found
    return (sum(kept) + 5 * max(kept, default=0)) / side**2
