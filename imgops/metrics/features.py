"""Pooled features of pictures, by which sets of pictures are compared."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._device import choose_device
from ..models.encoders import EfficientNetLite, default_weights, load_encoder
from ..models.encoders.custom import TIMM
from ..models.encoders.efficientnet_lite import SCALES
from ..models.encoders.inception_v3 import InceptionV3
from ..models.encoders.probing import like_network
from ..models.encoders.weights import SHIPPED
from ..nn import Features
from ..nn._checks import check_size

#: the side in pixels to which smaller pictures are enlarged for EfficientNet-Lite: at 32 the features of Lite2 are
#: nearly all zero, and above 64 distances tell damage no better (docs/metrics.md)
SMALLEST = 64
#: sides of what encoders were trained with: the one that ships, Inception v3, those that do not tell
EMBEDDED_SIDE, INCEPTION_SIDE, SIDE = 128, 299, 224
#: the fewest pixels per side that the encoders take
LEAST = 32


class FeatureExtractor:
    """The features of an encoder for pictures, averaged over all positions.

    A picture is laid over white where it is transparent; gray becomes RGB; its shorter side is resized to ``size``, by
    PyTorch's antialiased bicubic filter, and its values are clipped to [0, 1].

    Args:
        weights: as :func:`imgops.models.encoders.load_encoder` takes them; None: EfficientNet-Lite2 where its package
            is installed, else the small encoder that ships with imgops.
        layer: whose features these are; None: what the network itself returns, its last features ([N, C, H, W], or
            [N, D] that a network of yours or of timm has pooled itself).
        size: of the shorter side in pixels, >= 32. None: what the encoder was trained with (EfficientNet-Lite0 to 4:
            224, 240, 260, 280, 300; Inception v3: 299; the encoder that ships: 128; timm's as they tell; others: 224);
            for an EfficientNet-Lite pictures from 64 pixels to that stay as they are, and smaller ones are enlarged to
            64.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ... Default "auto".
        batch: pictures at once, which bounds the memory. Default 32.

    Attributes:
        name: of the encoder, as figures name it: that of its weights, or of their file without the ending.
        features: the number D of features.
        device: where features are computed and returned.

    Raises:
        TypeError, ValueError: a size or batch out of range, an unknown layer, a layer without features.
        OSError, ModuleNotFoundError: what load_encoder raises.

    >>> FeatureExtractor("embedded", device="cpu")(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 256])
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        layer: str | None = None,
        size: int | None = None,
        device: str = "auto",
        batch: int = 32,
    ) -> None:
        chosen = default_weights() if weights is None else str(weights)
        self.batch = check_size("FeatureExtractor", "batch", batch)
        if size is not None:
            check_size("FeatureExtractor", "size", size, LEAST)
        self.name, self.layer, self.size = encoder_name(chosen), layer, size
        self.device = torch.device(choose_device(device))
        # a network draws its first weights, and the random numbers of a training must not depend on that
        with torch.random.fork_rng(devices=[]):
            network = load_encoder(chosen).to(self.device)
        if chosen.startswith(TIMM):
            # such a network ends in a classifier, and returns pooled features without it
            network.reset_classifier(0)  # type: ignore[operator]
        self.network, self._sides = network, _sides(network, self.name)
        self.features = self(torch.zeros(1, 3, LEAST, LEAST, dtype=torch.uint8)).shape[1]

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Features of pictures, uint8 [N, C, H, W] with 1, 3 or 4 channels: float32 [N, D], on ``device``.

        Raises:
            TypeError: pictures that are no uint8 tensor.
            ValueError: another shape.
        """
        if not isinstance(pictures, Tensor) or pictures.dtype != torch.uint8:
            kind = pictures.dtype if isinstance(pictures, Tensor) else type(pictures).__name__
            raise TypeError(f"FeatureExtractor: pictures must be a uint8 tensor; got {kind}")
        if pictures.ndim != 4 or pictures.shape[1] not in (1, 3, 4) or pictures.numel() == 0:
            raise ValueError(
                f"FeatureExtractor: pictures must be [N, C, H, W] with 1, 3 or 4 channels; got {list(pictures.shape)}"
            )
        return torch.cat([self._pooled(part.to(self.device)) for part in pictures.split(self.batch)])

    def side(self, height: int, width: int) -> int:
        """The pixels of the shorter side at which pictures of this height and width are seen."""
        smallest, largest = self._sides
        return self.size or min(max(smallest, min(height, width)), largest)

    def _pooled(self, pictures: Tensor) -> Tensor:
        x = like_network(resized(as_rgb(pictures), self.side(*pictures.shape[2:])), self.network)
        y = self.network(x) if self.layer is None else Features(self.network, [self.layer])(x)[self.layer]
        if not isinstance(y, Tensor) or y.ndim not in (2, 4):
            kind = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"{self.name}: features must be [N, C, H, W] or [N, D]; {self.layer or 'the network'} gives {kind}"
            )
        return y.float().mean((2, 3)) if y.ndim == 4 else y.float()

    def fingerprint(self) -> str:
        """SHA-256 of what the features depend on beside the pictures: weights, structure, layer and size."""
        digest = hashlib.sha256(json.dumps([repr(self.network), self.layer, self.size, self._sides]).encode())
        for name, value in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def encoder_name(weights: str) -> str:
    """The name of an encoder in figures and files: letters, digits, ``.``, ``_`` and ``-``.

    >>> [encoder_name(name) for name in ("default", "timm:resnet50", "nets/vgg19-dcbb9e9d.pth", "my_net.py:make")]
    ['embedded', 'timm-resnet50', 'vgg19-dcbb9e9d', 'my_net.py-make']
    """
    if weights in SHIPPED:
        return "embedded"
    path = Path(weights)
    plain = path.stem if path.suffix.lower() in (".pth", ".pt", ".safetensors", ".bin") else path.name
    return re.sub(r"[^\w.-]+", "-", plain)


def _sides(network: nn.Module, name: str) -> tuple[int, int]:
    """The least and the largest side of pictures that an encoder is shown by default."""
    if isinstance(network, EfficientNetLite):
        return SMALLEST, SCALES[network.variant].side
    if name == "embedded":
        return EMBEDDED_SIDE, EMBEDDED_SIDE
    if isinstance(network, InceptionV3):
        return INCEPTION_SIDE, INCEPTION_SIDE
    # networks of timm tell their size; a transformer takes no other
    side = getattr(network, "pretrained_cfg", {}).get("input_size", (3, SIDE, SIDE))[-1]
    return side, side


def as_rgb(pictures: Tensor) -> Tensor:
    """Pictures uint8 [N, C, H, W] as float32 [N, 3, H, W] in [0, 1]: gray repeated, transparency laid over white."""
    x = pictures.float() / 255
    if x.shape[1] == 4:
        alpha = x[:, 3:]
        x = x[:, :3] * alpha + (1 - alpha)
    return x.expand(-1, 3, -1, -1)


def resized(x: Tensor, size: int) -> Tensor:
    """Pictures [N, C, H, W] with their shorter side at ``size`` pixels, by an antialiased bicubic filter."""
    shorter = min(x.shape[2:])
    sides = [max(size, round(side * size / shorter)) for side in x.shape[2:]]
    if sides == list(x.shape[2:]):
        return x
    return F.interpolate(x, sides, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
