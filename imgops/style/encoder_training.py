"""Training of the encoder that ships with the package: ``python -m imgops.style.encoder_training``.

Exemplar classes (Dosovitskiy et al. 2014): a class is one place of a free picture or one procedural texture, seen
through random crops, turns, sizes, colors and blur. What tells the classes apart under all of that is their texture
and structure, which is what style transfer needs from an encoder. The convolutions are trained with batch
normalization, which is then folded into them, and each channel is scaled to a mean activation of 1 (Gatys et al. 2015).
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..data.datasets.sample_set import SAMPLE_SETS
from ..data.datasets.textures import procedural_texture
from ..data.pictures.samples import load_sample
from ..models.encoders.vgg import VGG
from ..nn import Features
from ..ops.gram_matrix import gram_matrix

#: the network: convolutions and channels of each block
BLOCKS, WIDTHS = (2, 2, 2, 2, 2), (24, 48, 96, 192, 256)
#: side in pixels of a crop as the network sees it, and of the place in a picture that makes a class
CROP, PLACE = 48, 160
#: numbers of procedural textures to train on and to test on; the seeds of the test textures follow the others
TEXTURES, TEST_TEXTURES = 256, 128
#: share of the height of every picture, at the bottom, that is kept for tests
HELD_OUT = 0.3
#: a place whose pixels have a smaller standard deviation shows too little to be a class
FLAT = 0.05


class Source(NamedTuple):
    """A picture and its halves, quarters, ...: float [3, H, W] in [0, 1]; and the part that crops are taken from."""

    pyramid: list[Tensor]
    #: left, top, right, bottom in pixels
    part: tuple[int, int, int, int]


def _source(pixels: Tensor, part: tuple[int, int, int, int] | None = None) -> Source:
    pyramid = [pixels.float() / 255]
    while len(pyramid) < 3 and min(pyramid[-1].shape[1:]) >= 2 * CROP:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return Source(pyramid, part or (0, 0, pixels.shape[2], pixels.shape[1]))


def sources() -> tuple[list[Source], list[Source]]:
    """The sources to train on, and those to test on: other parts of the pictures and other textures."""
    train, test = [], []
    functions = sorted({picture.function for pictures in SAMPLE_SETS.values() for picture in pictures} | {"grass"})
    for function in functions:
        pixels = load_sample(function)
        _, h, w = pixels.shape
        bottom = int(h * (1 - HELD_OUT))
        for left in range(0, w - PLACE // 2, PLACE):
            right = min(left + PLACE, w)
            places = [(left, top, right, min(top + PLACE, bottom)) for top in range(0, bottom - PLACE // 2, PLACE)]
            train += [_source(pixels, place) for place in places if _is_seen(pixels, place)]
            test += [_source(pixels, place) for place in [(left, bottom, right, h)] if _is_seen(pixels, place)]
    train += [_source(procedural_texture(i)) for i in range(TEXTURES)]
    test += [_source(procedural_texture(TEXTURES + i)) for i in range(TEST_TEXTURES)]
    return train, test


def _is_seen(pixels: Tensor, place: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = place
    return float(pixels[:, top:bottom, left:right].float().std((1, 2)).mean()) / 255 > FLAT


def crops(source: Source, n: int, rng: np.random.Generator, strong: bool = True) -> Tensor:
    """Random crops of a source, [n, 3, CROP, CROP] in [0, 1]: turned, scaled, mirrored, stretched; and, if
    ``strong``, in other colors, blurred and with noise."""
    left, top, right, bottom = source.part
    # pixels of the source per pixel of the crop
    scale = np.exp(rng.uniform(np.log(0.7), np.log(1.7), n)) if strong else np.exp(rng.uniform(-0.2, 0.4, n))
    scale = np.minimum(scale, min(right - left, bottom - top) / CROP * 1.2)
    level = min(int(np.log2(max(1.0, float(np.median(scale))))), len(source.pyramid) - 1)
    image = source.pyramid[level]
    angle = rng.uniform(-0.5, 0.5, n) if strong else rng.uniform(-0.2, 0.2, n)
    stretch = np.exp(rng.uniform(-0.2, 0.2, n)) if strong else np.ones(n)
    half = CROP / 2 * scale
    cx = rng.uniform(np.minimum(left + half, (left + right) / 2), np.maximum(right - half, (left + right) / 2))
    cy = rng.uniform(np.minimum(top + half, (top + bottom) / 2), np.maximum(bottom - half, (top + bottom) / 2))
    _, h, w = source.pyramid[0].shape
    mirror = rng.choice([-1.0, 1.0], n) if strong else np.ones(n)
    cos, sin = np.cos(angle), np.sin(angle)
    rows = np.stack(
        [
            np.stack([mirror * cos * half * stretch / w * 2, -sin * half / w * 2, cx / w * 2 - 1], 1),
            np.stack([mirror * sin * half * stretch / h * 2, cos * half / h * 2, cy / h * 2 - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(torch.from_numpy(rows).float(), [n, 3, CROP, CROP], align_corners=False)
    x = F.grid_sample(image.expand(n, -1, -1, -1), grid, padding_mode="reflection", align_corners=False)
    return _recolored(x, rng) if strong else x


def _recolored(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Random changes of contrast and brightness, channels mixed, some pictures gray, some blurred, with noise added."""
    n = len(x)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, *shape))).float()

    mix = torch.eye(3) * 0.8 + draw(-0.2, 0.3, 3, 3)
    gray = (draw(0, 1, 1, 1) < 0.15).float()
    mix = gray / 3 + (1 - gray) * mix
    mean = x.mean((2, 3), keepdim=True)
    x = torch.einsum("nij,njhw->nihw", mix, x - mean) * draw(0.6, 1.5, 1, 1, 1)
    x = x + mean + draw(-0.15, 0.15, 3, 1, 1)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    x = torch.where(draw(0, 1, 1, 1, 1) < 0.25, blurred, x)
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32)) * draw(0, 0.05, 1, 1, 1)
    return (x + noise).clamp(0, 1)


def trainable(network: VGG) -> nn.Sequential:
    """The network with batch normalization after every convolution."""
    layers: list[tuple[str, nn.Module]] = []
    for name, layer in network.named_children():
        layers.append((name, layer))
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            layers.append((name.replace("conv", "norm"), nn.BatchNorm2d(layer.out_channels)))
    result = nn.Sequential()
    for name, layer in layers:
        result.add_module(name, layer)
    return result


class Classifier(nn.Module):
    """Class logits from the mean of each of the three deepest blocks, so that each has to tell classes apart."""

    heads_at = ("relu3_2", "relu4_2", "relu5_2")

    def __init__(self, body: nn.Sequential, classes: int) -> None:
        super().__init__()
        self.features = Features(body, self.heads_at)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in WIDTHS[2:])

    def forward(self, x: Tensor) -> list[Tensor]:
        found = self.features(x).values()
        return [head(y.mean((2, 3))) for head, y in zip(self.heads, found, strict=True)]


def folded(body: nn.Sequential, batches: Iterator[Tensor]) -> VGG:
    """The trained convolutions with their normalization folded in, scaled to a mean activation of 1 per channel."""
    network = new_network()
    body = body.eval()
    layers = dict(body.named_children())
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d):
            conv, norm = layers[name], layers[name.replace("conv", "norm")]
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            layer.load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())
    network.eval().requires_grad_(False)
    names = [name for name, _ in network.named_children() if name.startswith("relu")]
    x = torch.cat(list(batches))
    means = [y.mean((0, 2, 3)).clamp(min=1e-3) for y in Features(network, names)(x).values()]
    before = torch.ones(3)
    for name, mean in zip(names, means, strict=True):
        conv = network.get_submodule(name.replace("relu", "conv"))
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        conv.weight.mul_(before[:, None, None] / mean[:, None, None, None])
        conv.bias.div_(mean)
        before = mean
    return network


def new_network() -> VGG:
    """The network that ships with the package, untrained."""
    return VGG(BLOCKS, widths=WIDTHS, preprocessing="imagenet")


def random_network(train_on: list[Source], rng: np.random.Generator) -> VGG:
    """The same network with random weights from torch's generator, normalized and scaled as the trained one is."""
    body = trainable(new_network())
    with torch.no_grad():
        body.train()(torch.cat([crops(source, 2, rng) for source in train_on]))
    return folded(body, (crops(source, 2, rng) for source in train_on))


@torch.no_grad()
def retrieval_accuracy(network: nn.Module, test: list[Source], layer: str, views: int = 6) -> float:
    """The share of random crops, ``views`` of each source of ``test``, whose nearest other crop is of the same source;
    crops are compared by the directions of their Gram matrices."""
    rng = np.random.default_rng(1)
    features = Features(network, [layer])
    grams = torch.cat([gram_matrix(features(crops(s, views, rng, strong=False))[layer]).flatten(1) for s in test])
    grams = F.normalize(grams - grams.mean(0), dim=1)
    near = (grams @ grams.T).fill_diagonal_(-2).argmax(1)
    return float((near // views == torch.arange(len(grams)) // views).float().mean())


def train(out: Path, log: Path, steps: int, batch: int, seed: int) -> None:
    """Train, fold, test against the same network with random weights, and write the weights and the log."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train_on, test_on = sources()
    body = trainable(new_network())
    model = Classifier(body, len(train_on))
    # PyTorch's type annotations lack this overload
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    views, began = 2, time.monotonic()
    rows: list[dict[str, object]] = []
    losses, right = [], []
    for step in range(1, steps + 1):
        classes = rng.choice(len(train_on), batch // views, replace=False)
        x = torch.cat([crops(train_on[k], views, rng) for k in classes])
        labels = torch.from_numpy(classes).repeat_interleave(views)
        logits = compiled(x.contiguous(memory_format=torch.channels_last))
        loss = sum(F.cross_entropy(y, labels, label_smoothing=0.1) for y in logits)
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        right.append(float((logits[-1].argmax(1) == labels).float().mean()))
        if step % 100 == 0 or step == steps:
            rows.append(
                {
                    "step": step,
                    "loss": f"{np.mean(losses):.4f}",
                    "accuracy": f"{np.mean(right):.4f}",
                    "seconds": f"{time.monotonic() - began:.0f}",
                }
            )
            print(", ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            losses, right = [], []
    network = folded(body, (crops(train_on[k], 2, rng) for k in range(len(train_on))))
    random = random_network(train_on, rng)
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        scores = [retrieval_accuracy(n, test_on, layer) for n in (network, random)]
        print(f"retrieval by {layer}: {scores[0]:.3f}, with random weights {scores[1]:.3f}", flush=True)
        rows.append({"step": layer, "accuracy": f"{scores[0]:.4f}", "random": f"{scores[1]:.4f}"})
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", "loss", "accuracy", "seconds", "random"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    log.write_text(text.getvalue())
    safetensors.torch.save_file({k: v.half().contiguous() for k, v in network.state_dict().items()}, out)


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description="Train the encoder that ships with imgops.")
    parser.add_argument("--out", type=Path, default=Path("imgops/models/encoders/default_encoder.safetensors"))
    parser.add_argument("--log", type=Path, default=Path("docs/encoder-training.csv"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
