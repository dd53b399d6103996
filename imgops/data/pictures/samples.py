"""The free pictures that come with scikit-image, which need no download.

| picture | source | license |
| --- | --- | --- |
| ``skimage.data.astronaut`` | NASA, Eileen Collins | public domain |
| ``skimage.data.brick`` | CC0Textures, Bricks25 | CC0 |
| ``skimage.data.camera`` | Lav Varshney | CC0 |
| ``skimage.data.chelsea`` | Stefan van der Walt | CC0 |
| ``skimage.data.coffee`` | Rachel Michetti, courtesy of Pikolo Espresso Bar | CC0 |
| ``skimage.data.grass`` | linolafett, DeviantArt, Grass-01 | CC0 |
| ``skimage.data.gravel`` | CC0Textures, Gravel04 | CC0 |
| ``skimage.data.hubble_deep_field`` | NASA, Hubble eXtreme Deep Field | public domain |
| ``skimage.data.retina`` | Mikael Häggström, Wikimedia Commons | CC0 |
| ``skimage.data.rocket`` | SpaceX | public domain |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

#: prefix of a source that names a free picture or a set of them, not a file
PREFIX = "samples:"
#: the function of ``skimage.data`` for each name that may follow ``samples:``
SAMPLES = {
    "astronaut": "astronaut",
    "brick": "brick",
    "camera": "camera",
    "chelsea": "chelsea",
    "coffee": "coffee",
    "grass": "grass",
    "gravel": "gravel",
    "hubble": "hubble_deep_field",
    "retina": "retina",
    "rocket": "rocket",
}


def load_sample(function: str) -> Tensor:
    """The picture of a function of ``skimage.data``, uint8 [3, H, W], RGB.

    Raises:
        ImportError: scikit-image is not installed.
    """
    return torch.from_numpy(np.array(open_sample(function).convert("RGB"))).permute(2, 0, 1).contiguous()


def open_sample(function: str) -> Image.Image:
    """The picture of a function of ``skimage.data`` in its own mode; raises ImportError without scikit-image."""
    try:
        import skimage.data as pictures
    except ImportError:
        raise ImportError("the samples: sets need scikit-image; install it by: pip install scikit-image") from None
    pixels: Any = getattr(pictures, function)()
    return Image.fromarray(pixels)
