"""The losses of the trainings of feed-forward networks, relative to means over the whole batch of all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import Features, StyleLoss, TotalVariation
from ..ops.gram_matrix import gram_matrix
from .objective import default_layers
from .training_settings import FastLearning, Learning

#: replaces tensors by their means over the processes
Average = Callable[[Sequence[Tensor]], None]


def scale(target: Tensor, relative: bool | None, average: Average) -> Tensor:
    """What a mean squared difference from the target is divided by."""
    if not relative:
        return target.new_ones(())
    size = target.detach().square().mean()
    average([size])
    return size.clamp(min=1e-12)


def weighted(settings: Learning, content: Tensor, style: Tensor, smoothness: Tensor) -> dict[str, Tensor]:
    """The losses that count, by name, times their weights."""
    weights = settings.content_weight, settings.style_weight, settings.tv_weight
    parts = zip(("content", "style", "smoothness"), weights, (content, style, smoothness), strict=True)
    return {name: weight * loss for name, weight, loss in parts if weight}


class FastLosses:
    """The losses of Johnson et al. 2016: of features to those of the content, of Gram matrices to those of the style.

    Args:
        encoder: whose features are compared.
        settings: with nothing left open, see :meth:`FastLearning.of_encoder`.
        style: [3, H, W], RGB in [0, 1].
        mask: how much each pixel of the style counts, [1, H, W]; None: all the same.
        average: see :data:`Average`.
    """

    def __init__(
        self, encoder: nn.Module, settings: FastLearning, style: Tensor, mask: Tensor | None, average: Average
    ) -> None:
        layers, content = settings.style_layers, settings.content_layer
        assert layers is not None
        assert content is not None
        self.settings, self.content, self.average = settings, content, average
        self.weights = layers if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        with torch.no_grad():
            found = Features(encoder, list(self.weights))(style[None].float())
        self.styles = {layer: StyleLoss(_counted(y, mask)) for layer, y in found.items()}
        # the style is the same everywhere
        self.scales = {k: scale(loss.target, settings.relative, lambda sizes: None) for k, loss in self.styles.items()}
        self.features = Features(encoder, list(dict.fromkeys([*self.weights, content])))
        self.contents, self.smoothness = Features(encoder, [content]), TotalVariation()

    def __call__(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The losses of y, which a network made of the pictures x; both [n, 3, H, W]."""
        ours = floats(self.features(y))
        with torch.no_grad():
            target = self.contents(x)[self.content].float()
        content = F.mse_loss(ours[self.content], target) / scale(target, self.settings.relative, self.average)
        compared = (
            weight * self.styles[layer](ours[layer]) / self.scales[layer] for layer, weight in self.weights.items()
        )
        return weighted(self.settings, content, sum(compared, x.new_zeros(())), self.smoothness(y))


class AdaINLosses(Protocol):
    """What compares the pictures of a decoder."""

    def of_style(self, s: Tensor) -> dict[str, Tensor]:
        """What the styles s are compared by."""
        ...

    def __call__(self, y: Tensor, x: Tensor, target: Tensor, style: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Content and style loss of pictures y, of the contents x and the styles whose features are given; ``target``
        is what y was decoded from."""
        ...


class PaperLosses:
    """The losses of Huang and Belongie 2017: of the content at the layer that is decoded, to the target; of the style
    of the means and standard deviations of all layers up to there.

    Args:
        encoder: whose features are compared.
        layers: the names of these layers, the one that is decoded last.
        relative: whether losses are divided by the mean square of what they compare with.
        average: see :data:`Average`.
    """

    def __init__(self, encoder: nn.Module, layers: Sequence[str], relative: bool | None, average: Average) -> None:
        self.layers, self.relative, self.average = layers, relative, average
        self.features = Features(encoder, self.layers)

    def of_style(self, s: Tensor) -> dict[str, Tensor]:
        """The features of the styles s."""
        return self.features(s)

    def __call__(self, y: Tensor, x: Tensor, target: Tensor, style: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Content and style loss."""
        ours = floats(self.features(y))
        content = F.mse_loss(ours[self.layers[-1]], target) / scale(target, self.relative, self.average)
        compared = (
            F.mse_loss(a, b) / scale(b, self.relative, self.average)
            for layer in self.layers
            for a, b in zip(_statistics(ours[layer]), _statistics(style[layer].float()), strict=True)
        )
        return content, sum(compared, y.new_zeros(()))


class PerceptualLosses:
    """The losses of :func:`imgops.style.optimize`, in the features of any encoder that has default layers; the content
    of normalized features, as the style changes brightness, contrast and colors. The style's colors, on which features
    depend little, are compared by their means and standard deviations.

    Args:
        encoder: whose features are compared.
        average: see :data:`Average`.

    Raises:
        ValueError: it has no default layers.
    """

    #: the name of a style's pixels among its features, and the weight of their loss
    pixels, color_weight = "pixels", 5.0

    def __init__(self, encoder: nn.Module, average: Average) -> None:
        layers = default_layers(encoder)
        if layers is None:
            raise ValueError(f"train_adain: loss_encoder must have layers to compare at; got {type(encoder).__name__}")
        self.content, self.weights, self.average = next(iter(layers.content_to_find)), layers.style, average
        self.style_features, self.of_content = Features(encoder, list(self.weights)), Features(encoder, [self.content])
        self.features = Features(encoder, list(dict.fromkeys([*self.weights, self.content])))

    def of_style(self, s: Tensor) -> dict[str, Tensor]:
        """The features of the styles s, and their pixels."""
        return self.style_features(s) | {self.pixels: s}

    def __call__(self, y: Tensor, x: Tensor, target: Tensor, style: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Content and style loss."""
        ours = floats(self.features(y))
        with torch.no_grad():
            wanted = F.instance_norm(self.of_content(x)[self.content].float())
        content = F.mse_loss(F.instance_norm(ours[self.content]), wanted)
        colors = zip(_statistics(y), _statistics(style[self.pixels]), strict=True)
        parts = [self.color_weight * F.mse_loss(a, b) / scale(b, True, self.average) for a, b in colors]
        for layer, weight in self.weights.items():
            gram, goal = (gram_matrix(features.float()) for features in (ours[layer], style[layer]))
            size = goal.square().mean((1, 2)).clamp(min=1e-24)
            parts.append(weight * ((gram - goal).square().mean((1, 2)) / size).mean())
        return content, torch.stack(parts).sum()


def floats(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features in the losses' precision."""
    return {name: y.float() for name, y in features.items()}


def _counted(y: Tensor, mask: Tensor | None) -> Tensor:
    """Features [1, C, H, W] whose Gram matrix is the mean over what a mask [1, H', W'] counts."""
    if mask is None:
        return y
    area = F.adaptive_avg_pool2d(mask[None].to(y), (y.shape[2], y.shape[3]))
    return y * (area / area.mean()).sqrt()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, as AdaIN takes them."""
    variance, mean = torch.var_mean(x, (2, 3))
    return mean, (variance + 1e-5).sqrt()
