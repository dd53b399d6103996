"""Training of the networks of feed-forward style transfer: one for a style, and a decoder for any style."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.datasets.crops import RandomCrops
from ..data.pictures import resize_picture
from ..models.encoders.probing import layers_by_stride
from ..models.encoders.vgg import VGG
from ..models.style.adain_decoder import AdaINDecoder
from ..models.style.transform_net import TransformNet
from ..nn import Features, StyleLoss, TotalVariation
from ..ops.adain import adain
from ..ops.gram_matrix import gram_matrix
from ._run import OnStep, check_out, run
from .objective import default_layers
from .training_settings import AdaINTraining, FastTraining, Training

Network = TypeVar("Network", bound=nn.Module)
#: channels at the full size of a decoder for another encoder than a VGG; half the size has twice as many
NARROWEST = 32


def train_fast(
    style: Tensor,
    data: str | Path,
    out: str | Path,
    encoder: nn.Module,
    settings: FastTraining | None = None,
    *,
    style_mask: Tensor | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> TransformNet:
    """Train a network that paints any picture in one style (Johnson et al. 2016).

    Args:
        style: [3, H, W], RGB in [0, 1].
        data: pictures to paint while training, a folder or ``samples:``; see
            :class:`~imgops.data.datasets.RandomCrops`.
        out: the network's file, .safetensors; ``out`` with ``.state`` appended holds what a resumed run needs, and may
            be removed when the network is done.
        encoder: whose features the losses are on; see :func:`~imgops.models.encoders.load_encoder`.
        settings: None takes :class:`FastTraining`'s defaults.
        style_mask: how much each pixel of the style counts, [1, H, W] in [0, 1], such as its alpha; None: all the same.
        resume: go on from ``out``'s state, bit by bit on the CPU as if never stopped.
        device: where to train.
        on_step: called after each step with its number, the number of steps, the weighted losses by name, and, when
            the network is saved, [3, H, 2 W]: a crop and what becomes of it. A true answer stops the training.
        on_skip: called with each picture that cannot be read; None warns.

    Returns:
        The network, in evaluation mode.

    Raises:
        ValueError: settings, files or data that cannot be used, named, before the training starts.
        FloatingPointError: the loss is no longer finite.
        OSError: a file cannot be read or written.
    """
    settings, out, name = settings or FastTraining(), Path(out), "train_fast"
    check_out(name, out, resume)
    if style.ndim != 3 or style.shape[0] != 3:
        raise ValueError(f"{name}: style must be RGB [3, H, W]; got {tuple(style.shape)}")
    if style_mask is not None and (style_mask.shape != (1, *style.shape[1:]) or not style_mask.max() > 0):
        raise ValueError(
            f"{name}: style_mask must be {(1, *style.shape[1:])} as the style is, and not 0 all over; got "
            f"{tuple(style_mask.shape)}"
        )
    crops = RandomCrops(data, settings.size, zoom=settings.zoom, seed=settings.seed, on_skip=on_skip)
    settings = settings.of_encoder(encoder)
    encoder = _frozen(encoder, device)
    layers, content_layer = settings.style_layers, settings.content_layer
    assert layers is not None
    assert content_layer is not None
    weights = layers if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
    style = style if settings.style_size is None else resize_picture(style, settings.style_size)
    with torch.no_grad():
        found = Features(encoder, list(weights))(style[None].float().to(device))
    styles = {layer: StyleLoss(_counted(y, style_mask)) for layer, y in found.items()}
    scales = {layer: _scale(loss.target, settings.relative) for layer, loss in styles.items()}
    features = Features(encoder, list(dict.fromkeys([*weights, content_layer])))
    contents, smoothness = Features(encoder, [content_layer]), TotalVariation()
    network = _new(lambda: _gray(TransformNet(settings.widths, settings.blocks)), settings.seed, device)

    def losses(x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        x = _laid_out(x, device)
        y = network(x).float()
        ours = _floats(features(y))
        with torch.no_grad():
            target = contents(x)[content_layer].float()
        content = F.mse_loss(ours[content_layer], target) / _scale(target, settings.relative)
        compared = (weights[layer] * loss(ours[layer]) / scales[layer] for layer, loss in styles.items())
        style = sum(compared, x.new_zeros(()))
        parts = _weighted(settings, content, style, smoothness(y))
        return parts, torch.cat([x[0], y[0].detach().clamp(0, 1)], 2)

    given = [style] if style_mask is None else [style, style_mask]
    record = _record("fast", settings, {"data": str(data)}, [*given, *encoder.state_dict().values()])
    batches = lambda step: crops.batches(settings.batch, step, settings.workers)  # noqa: E731
    run(network, out, settings, batches, losses, record, resume=resume, on_step=on_step)
    return network.eval().requires_grad_(False)


def train_adain(
    contents: str | Path,
    styles: str | Path,
    out: str | Path,
    encoder: nn.Module,
    settings: AdaINTraining | None = None,
    *,
    loss_encoder: nn.Module | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> AdaINDecoder:
    """Train a decoder for any style (Huang and Belongie 2017).

    Args:
        contents, styles: folders of pictures or ``samples:``; see :class:`~imgops.data.datasets.RandomCrops`.
        encoder: which the decoder is to mirror: a VGG of ``settings.block`` blocks at least, or another with a layer of
            that block's stride.
        settings: None takes :class:`AdaINTraining`'s defaults.
        loss_encoder: another encoder, that the losses are on: the Gram matrices of the layers that
            :func:`~imgops.style.optimize` compares the style at; the means and standard deviations of the colors; and,
            each channel with mean 0 and variance 1, the layer that the content is found by from noise. None takes
            ``encoder`` and the paper's losses. Default None.
        out, resume, device, on_skip: as of :func:`train_fast`.
        on_step: as of :func:`train_fast`; its picture, [3, H, 3 W], is a content, a style and what becomes of them.

    Returns:
        The decoder, in evaluation mode.

    Raises:
        ValueError, FloatingPointError, OSError: as :func:`train_fast`.
    """
    settings, out, name = settings or AdaINTraining(), Path(out), "train_adain"
    check_out(name, out, resume)
    # another seed, as contents and styles would otherwise be the same crops
    seeds = (2 * settings.seed, 2 * settings.seed + 1)
    places = [
        RandomCrops(data, settings.size, zoom=settings.zoom, textures=textures, seed=seed, on_skip=on_skip)
        for data, textures, seed in ((contents, 0.2, seeds[0]), (styles, 0.7, seeds[1]))
    ]
    encoder = _frozen(encoder, device)
    layers = _decoded_layers(encoder, settings.block)
    deepest = layers[-1]
    only, smoothness = Features(encoder, [deepest]), TotalVariation()
    compare: _PaperLosses | _PerceptualLosses
    if loss_encoder is None:
        compare = _PaperLosses(encoder, layers, settings.relative)
    else:
        loss_encoder = _frozen(loss_encoder, device)
        compare = _PerceptualLosses(loss_encoder)
    # crops that are their own style
    own = max(1, settings.batch // 4)
    network = _new(lambda: _awake(_decoder(encoder, layers, settings.block)), settings.seed, device)

    def losses(pair: tuple[Tensor, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        x, s = (_laid_out(crops, device) for crops in pair)
        if settings.identity_weight:
            s[:own] = x[:own]
        with torch.no_grad():
            wanted = compare.of_style(s)
            seen = wanted[deepest] if deepest in wanted else only(s)[deepest]
            target = adain(only(x)[deepest].float(), seen.float())
        y = network(target, x.shape[2:]).float()
        content, style = compare(y, x, target, wanted)
        parts = _weighted(settings, content, style, smoothness(y))
        if settings.identity_weight:
            difference = F.mse_loss(y[:own], x[:own]) / _scale(x[:own], settings.relative)
            parts["identity"] = settings.identity_weight * difference
        return parts, torch.cat([x[-1], s[-1], y[-1].detach().clamp(0, 1)], 2)

    def batches(step: int) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(crops.batches(settings.batch, step, settings.workers) for crops in places), strict=True)

    record = _record(
        "adain",
        settings,
        {"contents": str(contents), "styles": str(styles)},
        [
            tensor
            for network in (encoder, loss_encoder)
            if network is not None
            for tensor in network.state_dict().values()
        ],
    )
    run(network, out, settings, batches, losses, record, resume=resume, on_step=on_step)
    return network.eval().requires_grad_(False)


def _decoded_layers(encoder: nn.Module, block: int) -> list[str]:
    """The layers that the paper's losses compare, the last of which is decoded: of a VGG the first ReLU of each block,
    of another encoder the last layer of each stride up to that block's.

    Raises:
        ValueError: it has no layer of that stride.
    """
    if isinstance(encoder, VGG):
        return [f"relu{i}_1" for i in range(1, block + 1)]
    found, stride = layers_by_stride(encoder), 2 ** (block - 1)
    if stride not in found:
        raise ValueError(
            f"train_adain: block {block} needs a layer of stride {stride}; {type(encoder).__name__} has "
            f"{', '.join(f'{name} of {key}' for key, name in found.items()) or 'none'}"
        )
    return [name for key, name in found.items() if key <= stride]


def _decoder(encoder: nn.Module, layers: Sequence[str], block: int) -> AdaINDecoder:
    """The decoder of the last of these layers."""
    if isinstance(encoder, VGG):
        return AdaINDecoder(encoder.blocks, widths=encoder.widths[:block])
    like = next(encoder.parameters())
    channels = Features(encoder, layers[-1:])(like.new_zeros(1, 3, 64, 64))[layers[-1]].shape[1]
    # the channels within other encoders are too few to paint with
    widths = [NARROWEST * 2**i for i in range(block - 1)]
    return AdaINDecoder([2] * (block - 1), widths=[*widths, channels], layer=layers[-1])


class _PaperLosses:
    """The losses of Huang and Belongie 2017: of the content at the layer that is decoded, to the target; of the style
    of the means and standard deviations of all layers up to there."""

    def __init__(self, encoder: nn.Module, layers: Sequence[str], relative: bool) -> None:
        self.layers, self.relative = layers, relative
        self.of_style = Features(encoder, self.layers)

    def __call__(self, y: Tensor, x: Tensor, target: Tensor, style: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Content and style loss of pictures y, of the contents x and the styles whose features are given."""
        ours = _floats(self.of_style(y))
        content = F.mse_loss(ours[self.layers[-1]], target) / _scale(target, self.relative)
        compared = (
            F.mse_loss(a, b) / _scale(b, self.relative)
            for layer in self.layers
            for a, b in zip(_statistics(ours[layer]), _statistics(style[layer].float()), strict=True)
        )
        return content, sum(compared, y.new_zeros(()))


class _PerceptualLosses:
    """The losses of :func:`imgops.style.optimize`, in the features of any encoder that has default layers; the content
    of normalized features, as the style changes brightness, contrast and colors. The style's colors, on which features
    depend little, are compared by their means and standard deviations."""

    #: the name of a style's pixels among its features, and the weight of their loss
    pixels, color_weight = "pixels", 5.0

    def __init__(self, encoder: nn.Module) -> None:
        layers = default_layers(encoder)
        if layers is None:
            raise ValueError(f"train_adain: loss_encoder must have layers to compare at; got {type(encoder).__name__}")
        self.content, self.weights = next(iter(layers.content_to_find)), layers.style
        self.style_features, self.of_content = Features(encoder, list(self.weights)), Features(encoder, [self.content])
        self.features = Features(encoder, list(dict.fromkeys([*self.weights, self.content])))

    def of_style(self, s: Tensor) -> dict[str, Tensor]:
        """What the styles s are compared by."""
        return self.style_features(s) | {self.pixels: s}

    def __call__(self, y: Tensor, x: Tensor, target: Tensor, style: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Content and style loss of pictures y, of the contents x and the styles whose features are given."""
        ours = _floats(self.features(y))
        with torch.no_grad():
            wanted = F.instance_norm(self.of_content(x)[self.content].float())
        content = F.mse_loss(F.instance_norm(ours[self.content]), wanted)
        colors = zip(_statistics(y), _statistics(style[self.pixels]), strict=True)
        parts = [self.color_weight * F.mse_loss(a, b) / _scale(b, True) for a, b in colors]
        for layer, weight in self.weights.items():
            gram, goal = (gram_matrix(features.float()) for features in (ours[layer], style[layer]))
            size = goal.square().mean((1, 2)).clamp(min=1e-24)
            parts.append(weight * ((gram - goal).square().mean((1, 2)) / size).mean())
        return content, torch.stack(parts).sum()


def _floats(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features in the losses' precision."""
    return {name: y.float() for name, y in features.items()}


def _new(build: Callable[[], Network], seed: int, device: str | torch.device) -> Network:
    # the caller's generator stays where it is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
    # PyTorch's annotations leave this overload out
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _gray(network: TransformNet) -> TransformNet:
    """The network with a first output around mid-gray, in units of 0 to 255, that Adam would take long to reach."""
    last = network.deconv3.conv2d
    assert last.bias is not None
    with torch.no_grad():
        last.weight.mul_(30)
        last.bias.fill_(127.5)
    return network


def _awake(decoder: AdaINDecoder) -> AdaINDecoder:
    """The decoder with weights that keep the size of what passes, and a first output around mid-gray."""
    convolutions = [layer for layer in decoder if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for conv in convolutions:
            nn.init.kaiming_normal_(conv.weight)
            assert conv.bias is not None
            conv.bias.fill_(0.5 if conv is convolutions[-1] else 0)
        convolutions[-1].weight.mul_(0.1)
    return decoder


def _frozen(encoder: Network, device: str | torch.device) -> Network:
    """A copy of the encoder, where the training is."""
    encoder = copy.deepcopy(encoder).eval().requires_grad_(False).to(device)
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _counted(y: Tensor, mask: Tensor | None) -> Tensor:
    """Features [1, C, H, W] whose Gram matrix is the mean over what a mask [1, H', W'] counts."""
    if mask is None:
        return y
    area = F.adaptive_avg_pool2d(mask[None].to(y), (y.shape[2], y.shape[3]))
    return y * (area / area.mean()).sqrt()


def _laid_out(x: Tensor, device: str | torch.device) -> Tensor:
    return x.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, as AdaIN takes them."""
    variance, mean = torch.var_mean(x, (2, 3))
    return mean, (variance + 1e-5).sqrt()


def _scale(target: Tensor, relative: bool | None) -> Tensor:
    """What a mean squared difference from the target is divided by."""
    return target.square().mean().clamp(min=1e-12) if relative else target.new_ones(())


def _weighted(settings: Training, content: Tensor, style: Tensor, smoothness: Tensor) -> dict[str, Tensor]:
    weights = settings.content_weight, settings.style_weight, settings.tv_weight
    parts = zip(("content", "style", "smoothness"), weights, (content, style, smoothness), strict=True)
    return {name: weight * loss for name, weight, loss in parts if weight}


def _record(method: str, settings: Training, data: Mapping[str, str], tensors: Sequence[Tensor]) -> dict[str, Any]:
    """What a resumed run must have the same, the encoder and the style by their hash."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {"method": method, **settings.fixed(), **data, "hash of encoder and style": digest.hexdigest()[:16]}
