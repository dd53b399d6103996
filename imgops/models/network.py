"""What networks of all families have: sizes of pictures, how many parameters, and a table of their layers."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .._settings import Resolution, shape_of
from .._table import aligned
from ..nn._checks import check_batch, check_labels, check_size
from ._common import check_resolution


class Layer(NamedTuple):
    """A row of a summary.

    Attributes:
        name: the module's, as in the state dict; "" for the network itself.
        kind: its class.
        shape: of its output, for one sample; () where it was not called or gives no tensor.
        parameters: its own, without those of the layers inside, which have their own rows.
        flops: its own, for one sample: two for each product that is summed.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


class Summary(NamedTuple):
    """The layers of a network in the order in which they were called; ``str`` makes a table.

    Attributes:
        network: the class of the network.
        layers: those that have parameters or do arithmetic.
    """

    network: str
    layers: list[Layer]

    @property
    def parameters(self) -> int:
        """Of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        """Of all layers, for one sample."""
        return sum(layer.flops for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "kind", "output", "parameters", "MFLOP")]
        for layer in self.layers:
            shape = " x ".join(map(str, layer.shape)) or "-"
            rows.append((layer.name or "-", layer.kind, shape, f"{layer.parameters:,}", f"{layer.flops / 1e6:,.2f}"))
        rows.append(("all of them", self.network, "", f"{self.parameters:,}", f"{self.flops / 1e6:,.2f}"))
        return aligned(rows, numbers=2)


class Network(nn.Module):
    """A network of :mod:`imgops.models`.

    Attributes: ``num_parameters``, how many numbers it learns.
    """

    @property
    def num_parameters(self) -> int:
        """How many numbers the network learns."""
        return sum(p.numel() for p in self.parameters())

    def example(self) -> tuple[Any, ...]:
        """Arguments of a call, for one sample, on the meta device."""
        raise NotImplementedError(f"{type(self).__name__} has no example of its arguments")

    def everything(self, *arguments: Any) -> Any:
        """What passes through all layers, of the arguments of :meth:`example`."""
        return type(self).forward(self, *arguments)

    def summary(self) -> Summary:
        """The layers in the order in which they are called: output shapes, parameters and FLOPs, for one sample.

        Nothing is computed, and no memory taken: shapes are worked out on the meta device.
        """
        from torch.utils.flop_counter import FlopCounterMode

        # a copy whose tensors have shapes alone
        known = [*self.parameters(), *self.buffers()]
        empty = copy.deepcopy(self, {id(t): _empty(t) for t in known})
        shapes: dict[str, tuple[int, ...]] = {}
        names = {id(module): name for name, module in empty.named_modules()}

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) else output
            # a layer that is called again keeps the place of its first call
            shapes.setdefault(names[id(module)], tuple(first.shape[1:]) if isinstance(first, Tensor) else ())

        def begin(module: nn.Module, inputs: Any) -> None:
            order.setdefault(names[id(module)], None)

        order: dict[str, None] = {}
        for module in empty.modules():
            module.register_forward_pre_hook(begin)
            module.register_forward_hook(note)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            # the counter knows layers by the network that is called
            empty.forward = empty.everything
            empty(*self.example())
        counted = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
        owner = type(empty).__name__

        modules = dict(empty.named_modules())

        def total(name: str) -> int:
            # a container that is not called itself has what is inside
            key = f"{owner}.{name}" if name else owner
            return counted[key] if key in counted else within(name)

        def within(name: str) -> int:
            return sum(total(f"{name}.{child}".lstrip(".")) for child, _ in modules[name].named_children())

        def held(name: str) -> int:
            # the parameters of a layer, and of modules in it that it reads and does not call
            module = modules[name]
            inside = (f"{name}.{child}" for child, _ in module.named_modules() if child)
            whole = name in order and name and not any(child in order for child in inside)
            return sum(p.numel() for p in module.parameters(recurse=bool(whole)))

        def is_read(name: str) -> bool:
            # whether a layer that is called holds it so
            above = (name[:end] for end in range(len(name)) if name[end] == ".")
            return name not in order and any(owner in order and held(owner) > _own(modules[owner]) for owner in above)

        layers = []
        for name in [*order, *(n for n in modules if n not in order and not is_read(n))]:
            module = modules[name]
            own = held(name)
            flops = total(name) - within(name)
            if own or flops:
                layers.append(Layer(name, type(module).__name__, shapes.get(name, ()), own, flops))
        return Summary(owner, layers)


class PictureNetwork(Network):
    """A network that makes or reads pictures of one shape, and takes labels.

    Args:
        c_dim: size of a label; 0 takes none.
        img_resolution: the side of the pictures, or (height, width).
        img_channels: of the pictures.

    Attributes: these, ``img_height`` and ``img_width``.

    Raises:
        TypeError, ValueError: a size that is no int in range.
    """

    def __init__(self, c_dim: int, img_resolution: Resolution, img_channels: int) -> None:
        super().__init__()
        owner = type(self).__name__
        self.c_dim = check_size(owner, "c_dim", c_dim, 0)
        self.img_resolution = check_resolution(owner, img_resolution)
        self.img_channels = check_size(owner, "img_channels", img_channels)
        self.img_height, self.img_width = shape_of(self.img_resolution)

    @property
    def _img_shape(self) -> tuple[int, int, int]:
        """(img_channels, height, width)."""
        return self.img_channels, self.img_height, self.img_width

    def _check_images(self, img: Tensor, c: Tensor | None) -> None:
        """Raise unless img is [N, img_channels, height, width], and c as the network takes labels, [N, c_dim]."""
        check_batch(type(self).__name__, "img", img, self._img_shape)
        check_labels(type(self).__name__, c, self.c_dim, img.shape[0])


class GeneratorNetwork(PictureNetwork):
    """A network that makes pictures of standard normal latents.

    Args:
        z_dim: size of a latent, >= 1: without one there is nothing to sample.
        c_dim, img_resolution, img_channels: as of :class:`PictureNetwork`.

    Attributes: ``smooth``, whether pictures change little by little with z.
    """

    smooth: ClassVar[bool] = True

    def __init__(self, z_dim: int, c_dim: int, img_resolution: Resolution, img_channels: int) -> None:
        super().__init__(c_dim, img_resolution, img_channels)
        self.z_dim = check_size(type(self).__name__, "z_dim", z_dim)

    def _check_latents(self, z: Tensor, c: Tensor | None) -> None:
        """Raise unless z is [N, z_dim], and c as the network takes labels, [N, c_dim]."""
        check_batch(type(self).__name__, "z", z, (self.z_dim,))
        check_labels(type(self).__name__, c, self.c_dim, z.shape[0])

    def example(self) -> tuple[Tensor, Tensor]:
        """z and c of one sample, on the meta device."""
        return torch.empty(1, self.z_dim, device="meta"), torch.empty(1, self.c_dim, device="meta")

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, c_dim={self.c_dim}, img_resolution={self.img_resolution}"


class DiscriminatorNetwork(PictureNetwork):
    """A network that tells pictures apart; the arguments are those of :class:`PictureNetwork`."""

    def example(self) -> tuple[Tensor, Tensor]:
        """An image and its label, on the meta device."""
        return torch.empty(1, *self._img_shape, device="meta"), torch.empty(1, self.c_dim, device="meta")

    def extra_repr(self) -> str:
        return f"c_dim={self.c_dim}, img_resolution={self.img_resolution}, img_channels={self.img_channels}"


def _own(module: nn.Module) -> int:
    """How many numbers a module has itself."""
    return sum(p.numel() for p in module.parameters(recurse=False))


def _empty(t: Tensor) -> Tensor:
    """A tensor of the same shape and dtype on the meta device."""
    made = torch.empty_like(t, device="meta")
    return nn.Parameter(made, False) if isinstance(t, nn.Parameter) else made
