"""The settings of the method "nnst". Loads no torch, so that the help is quick."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from .._settings import COUNT, SIDE, Bounds, check, setting

#: the group of its options on the help page
NNST = "Method nnst"
#: the fewest pixels of the shorter side at which a round is worth its time
_SHORTEST = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class NNSTSettings:
    """How a picture takes after the nearest parts of a style (Kolkin et al. 2022).

    Args:
        size: longer side of the result in pixels. Default 512.
        smallest: longer side that it begins at, or a little more, doubling. Default 64.
        scale_steps: at each size. Default 60.
        final_steps: more of them at the full size, in each of which every place finds its nearest part anew, for each
            layer by itself. Default 20.
        frame_steps: from a given picture, at the full size alone: of the frames of a video after the first. Default 40.
        content_share: how much the content has to say, and how much the picture so far, in which part of the style is
            the nearest; 1 keeps most of the content. Default 0.75.
        hypercolumn_layers: {layer: weight} of the layers that are compared together; None takes those from the stem to
            the deepest at a sixteenth of the size, of an EfficientNet-Lite, relu1_1 to relu4_1 of a VGG, and of another
            network the style layers that the method "optimize" takes.
        patches: positions of the styles that are compared with, at most, evenly taken. Default 16384.
        rotations: 4 also takes the styles turned by 90, 180 and 270 degrees, 1 does not. Default 1.
        style_scale: size of the styles in sizes of the result. Default 1.
        tile: side of the tiles that the gradient is computed in, in pixels; None takes the picture as one. Default
            None.

    Raises:
        TypeError, ValueError: a value out of range, named.
    """

    size: int = setting(512, allowed=SIDE._replace(low=16))
    smallest: int = setting(64, NNST, "Longer side of the first, smallest size, in pixels.", allowed=SIDE)
    scale_steps: int = setting(60, NNST, "Steps at each size.", allowed=COUNT)
    final_steps: int = setting(
        20, NNST, "Steps after these, which find the nearest parts anew.", allowed=COUNT._replace(low=0)
    )
    frame_steps: int = setting(40, allowed=COUNT)
    content_share: float = setting(
        0.75, NNST, "How much the content says which part of a style is the nearest.", allowed=Bounds(0, 1)
    )
    hypercolumn_layers: Mapping[str, float] | None = setting(
        None, NNST, "Layers compared together, with weights; VGG and EfficientNet-Lite have defaults."
    )
    patches: int = setting(16384, NNST, "Positions of the styles, at most.", allowed=COUNT)
    rotations: int = setting(1, NNST, "4 also turns the styles by 90, 180 and 270 degrees.", allowed=Bounds(1, 4))
    style_scale: float = setting(1.0, allowed=Bounds(0, above=True))
    tile: int | None = setting(None, allowed=COUNT)

    def __post_init__(self) -> None:
        check(self, "style: ")

    def scales(self, ratio: float = 1.0) -> list[tuple[int, int]]:
        """(longer side, steps) of each round, from small to large, of a picture whose longer side is ``ratio`` times
        its shorter one; the last one has the final steps too."""
        least = max(self.smallest, math.ceil(_SHORTEST * ratio))
        sizes = [self.size]
        while sizes[0] // 2 >= least:
            sizes.insert(0, sizes[0] // 2)
        steps = [self.scale_steps] * len(sizes)
        steps[-1] += self.final_steps
        return list(zip(sizes, steps, strict=True))
