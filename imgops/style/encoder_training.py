"""Training of the encoder that ships with the package: ``python -m imgops.style.encoder_training PICTURES``.

It is distilled (Hinton et al. 2015): a small VGG learns to predict, by a linear map from the last ReLU of each of its
blocks, the features of EfficientNet-Lite2 at five depths, and from the mean of its last the classes that it sees. Both
see the same strongly changed crops, and blends of two (Beyer et al. 2022, "Knowledge distillation: a good teacher is
patient and consistent"). The convolutions are trained with batch normalization, which is then folded into them, and
each channel is scaled to a mean activation of 1 (Gatys et al. 2015). docs/training_pictures.py collects the pictures.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..data.datasets.listing import list_folder
from ..data.datasets.sample_set import SAMPLE_SETS
from ..data.datasets.textures import procedural_texture
from ..data.pictures import read_picture, resize_picture
from ..data.pictures.samples import load_sample
from ..models.encoders.classes import class_names
from ..models.encoders.vgg import VGG
from ..models.encoders.weights import load_encoder
from ..nn import Features
from ..ops.gram_matrix import gram_matrix

#: the network: convolutions and channels of each block
BLOCKS, WIDTHS = (2, 2, 2, 2, 2), (24, 48, 96, 192, 256)
#: whose features it learns to predict, and each predicted layer with the layer that it is predicted from
TEACHER = "efficientnet-lite2"
LAYERS = {"conv_stem": "relu2_2", "blocks_2": "relu3_2", "blocks_5": "relu4_2", "blocks_8": "relu5_2"} | {
    "blocks_12": "relu5_2"
}
#: side in pixels of a crop to train on
VIEW = 128
#: side in pixels of a crop to test with, and of the place in a picture that the crops of one class are taken from
CROP, PLACE = 48, 160
#: numbers of procedural textures to train on and to test on; the seeds of the test textures follow the others
TEXTURES, TEST_TEXTURES = 256, 128
#: share of the height of every sample, at the bottom, that is kept for tests
HELD_OUT = 0.3
#: a place whose pixels have a smaller standard deviation shows too little to be a class
FLAT = 0.05
#: the folders of docs/training_pictures.py that are trained on
FOLDERS = {"contents": ("contents",), "styles": ("styles", "patterns"), "stamps": ("stamps",)}
#: how much of a batch these get, and samples and textures
SHARES = {"contents": 0.3, "styles": 0.2, "stamps": 0.2, "samples": 0.15, "textures": 0.15}
#: the share of crops that another one is blended with
BLENDED = 0.3
#: the optimizer's highest rate
RATE = 2e-3


class Source(NamedTuple):
    """A picture and its halves, quarters, ...: float [3, H, W] in [0, 1]; and the part that crops are taken from."""

    pyramid: list[Tensor]
    #: left, top, right, bottom in pixels
    part: tuple[int, int, int, int]


def _source(pixels: Tensor, part: tuple[int, int, int, int] | None = None, side: int = CROP) -> Source:
    pyramid = [pixels.float() / 255]
    while len(pyramid) < 4 and min(pyramid[-1].shape[1:]) >= 2 * side:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return Source(pyramid, part or (0, 0, pixels.shape[2], pixels.shape[1]))


def sources(pictures: Path) -> dict[str, list[Source]]:
    """What is trained on, by the key of :data:`SHARES`.

    Args:
        pictures: the folder that docs/training_pictures.py fills.

    Raises:
        OSError: one of its folders is missing.
    """
    found = {}
    for share, folders in FOLDERS.items():
        paths = [pictures / folder / name for folder in folders for name in list_folder(pictures / folder).pictures()]
        paths.sort(key=lambda path: path.name)
        found[share] = [_source(_before_texture(path, i), side=VIEW) for i, path in enumerate(paths)]
    samples = [load_sample(function) for function in _samples()]
    tops = [(0, 0, pixels.shape[2], int(pixels.shape[1] * (1 - HELD_OUT))) for pixels in samples]
    found["samples"] = [_source(pixels, top, VIEW) for pixels, top in zip(samples, tops, strict=True)]
    found["textures"] = [_source(procedural_texture(i), side=VIEW) for i in range(TEXTURES)]
    return found


def held_out_sources() -> list[Source]:
    """What is tested on: the parts of the samples, and the textures, that are not trained on."""
    found = []
    for function in _samples():
        pixels = load_sample(function)
        _, h, w = pixels.shape
        places = [(left, int(h * (1 - HELD_OUT)), min(left + PLACE, w), h) for left in range(0, w - PLACE // 2, PLACE)]
        found += [_source(pixels, place) for place in places if _is_seen(pixels, place)]
    return found + [_source(procedural_texture(TEXTURES + i)) for i in range(TEST_TEXTURES)]


def _samples() -> list[str]:
    """The functions of scikit-image whose pictures are used."""
    return sorted({picture.function for pictures in SAMPLE_SETS.values() for picture in pictures} | {"grass"})


def _before_texture(path: Path, number: int) -> Tensor:
    """A picture's pixels, uint8 [3, H, W]; what is transparent shows a procedural texture."""
    picture = read_picture(path)
    pixels = picture.pixels
    if picture.alpha is not None:
        ground = resize_picture(procedural_texture(number).float() / 255, max(pixels.shape[1:]))
        ground = ground[:, : pixels.shape[1], : pixels.shape[2]]
        pixels = torch.lerp(ground, pixels, picture.alpha)
    return (pixels.clamp(0, 1) * 255).round().byte()


def _is_seen(pixels: Tensor, place: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = place
    return float(pixels[:, top:bottom, left:right].float().std((1, 2)).mean()) / 255 > FLAT


def crops(source: Source, n: int, rng: np.random.Generator, side: int = CROP, strong: bool = True) -> Tensor:
    """Random crops of a source, [n, 3, side, side] in [0, 1]: turned, scaled, mirrored, stretched; and, if ``strong``,
    of any size up to the whole of it, in other colors, blurred and with noise."""
    left, top, right, bottom = source.part
    # pixels of the source per pixel of the crop
    most = min(right - left, bottom - top) / side
    scale = np.exp(rng.uniform(np.log(0.7), np.log(max(1.7, most)), n)) if strong else np.exp(rng.uniform(-0.2, 0.4, n))
    scale = np.minimum(scale, most * 1.2)
    level = min(int(np.log2(max(1.0, float(np.median(scale))))), len(source.pyramid) - 1)
    image = source.pyramid[level]
    angle = rng.uniform(-0.5, 0.5, n) if strong else rng.uniform(-0.2, 0.2, n)
    stretch = np.exp(rng.uniform(-0.2, 0.2, n)) if strong else np.ones(n)
    half = side / 2 * scale
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
    grid = F.affine_grid(torch.from_numpy(rows).float(), [n, 3, side, side], align_corners=False)
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


class Teacher:
    """The features of :data:`LAYERS`, each channel with mean 0 and variance 1 over the pictures given, and the
    logarithms of the probabilities of ImageNet's classes."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        network = load_encoder(TEACHER, classifier=True)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features = Features(network, [*LAYERS, "classifier"])
        found = [self.features(x) for x in batches]
        #: mean and standard deviation of each channel, by layer
        self.statistics = {}
        for name in LAYERS:
            y = torch.cat([features[name].transpose(0, 1).flatten(1) for features in found], 1)
            self.statistics[name] = (y.mean(1)[:, None, None], y.std(1).clamp(min=1e-3)[:, None, None])

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        found = self.features(x)
        logits = found.pop("classifier")
        scaled = {name: (y - self.statistics[name][0]) / self.statistics[name][1] for name, y in found.items()}
        return scaled, logits.log_softmax(1)


class Student(nn.Module):
    """The network that is trained, and the linear maps to what it learns to predict, which are then left out."""

    def __init__(self, body: nn.Sequential, teacher: Teacher, classes: int) -> None:
        super().__init__()
        self.features = Features(body, list(dict.fromkeys(LAYERS.values())))
        inputs = {f"relu{block}_{BLOCKS[block - 1]}": width for block, width in enumerate(WIDTHS, 1)}
        outputs = {name: len(mean) for name, (mean, _) in teacher.statistics.items()}
        self.maps = nn.ModuleDict({name: nn.Conv2d(inputs[LAYERS[name]], n, 1) for name, n in outputs.items()})
        self.classify = nn.Linear(WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        found = self.features(x)
        logits = self.classify(found[LAYERS["blocks_12"]].float().mean((2, 3)))
        return {name: layer(found[LAYERS[name]]).float() for name, layer in self.maps.items()}, logits.log_softmax(1)


def views(found: dict[str, list[Source]], n: int, rng: np.random.Generator) -> Tensor:
    """A batch of crops [n, 3, VIEW, VIEW] from random sources, some blended with another of the batch."""
    shares = [name for name in SHARES if found[name]]
    weights = np.array([SHARES[name] for name in shares])
    chosen = rng.choice(len(shares), n, p=weights / weights.sum())
    places = [found[shares[i]] for i in chosen]
    x = torch.cat([crops(place[rng.integers(len(place))], 1, rng, VIEW) for place in places])
    share = np.where(rng.uniform(size=n) < BLENDED, rng.uniform(0, 0.5, n), 0)
    x = torch.lerp(x, x.roll(1, 0), torch.from_numpy(share).float()[:, None, None, None])
    return x.contiguous(memory_format=torch.channels_last)


def differences(ours: tuple[dict[str, Tensor], Tensor], theirs: tuple[dict[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """For each layer the share of the teacher's variance that is not predicted, and the divergence of the classes."""
    found = {name: F.mse_loss(ours[0][name], y) for name, y in theirs[0].items()}
    return found | {"classes": F.kl_div(ours[1], theirs[1], log_target=True, reduction="batchmean")}


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


def random_network(train_on: Sequence[Source], rng: np.random.Generator) -> VGG:
    """The same network with random weights from torch's generator, normalized and scaled as the trained one is."""
    body = trainable(new_network())
    with torch.no_grad():
        body.train()(torch.cat([crops(source, 2, rng) for source in train_on]))
    return folded(body, (crops(source, 2, rng) for source in train_on))


@torch.no_grad()
def retrieval_accuracy(network: nn.Module, test: Sequence[Source], layer: str, views: int = 6) -> float:
    """The share of random crops, ``views`` of each source of ``test``, whose nearest other crop is of the same source;
    crops are compared by the directions of their Gram matrices."""
    rng = np.random.default_rng(1)
    features = Features(network, [layer])
    grams = torch.cat([gram_matrix(features(crops(s, views, rng, strong=False))[layer]).flatten(1) for s in test])
    grams = F.normalize(grams - grams.mean(0), dim=1)
    near = (grams @ grams.T).fill_diagonal_(-2).argmax(1)
    return float((near // views == torch.arange(len(grams)) // views).float().mean())


def train(pictures: Path, out: Path, log: Path, steps: int, batch: int, seed: int) -> None:
    """Train, fold, test against the same network with random weights, and write the weights and the log."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    found, test_on = sources(pictures), held_out_sources()
    teacher = Teacher(views(found, batch, rng) for _ in range(8))
    body = trainable(new_network())
    model = Student(body, teacher, len(class_names()))
    # PyTorch's type annotations lack this overload
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    began, rows, losses = time.monotonic(), list[dict[str, str]](), list[dict[str, float]]()
    for step in range(1, steps + 1):
        x = views(found, batch, rng)
        wanted = teacher(x)
        with torch.autocast("cpu", torch.bfloat16):
            given = model(x)
        parts = differences(given, wanted)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimizer.step()
        schedule.step()
        losses.append({name: float(loss.detach()) for name, loss in parts.items()})
        if step % 100 == 0 or step == steps:
            means = {name: f"{np.mean([loss[name] for loss in losses]):.4f}" for name in parts}
            rows.append({"step": str(step), **means, "seconds": f"{time.monotonic() - began:.0f}"})
            print(", ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            losses = []
    network = folded(body, (views(found, batch, rng) for _ in range(512 // batch)))
    rows += _tested(network, [source for share in found.values() for source in share], test_on, rng)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *LAYERS, "classes", "seconds", "retrieval", "random"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    log.write_text(text.getvalue())
    safetensors.torch.save_file({k: v.half().contiguous() for k, v in network.state_dict().items()}, out)


def _tested(
    network: VGG, train_on: Sequence[Source], test_on: list[Source], rng: np.random.Generator
) -> list[dict[str, str]]:
    """Lines of the log: how often retrieval is right by each layer, and with random weights."""
    random, rows = random_network(train_on, rng), list[dict[str, str]]()
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        scores = [retrieval_accuracy(n, test_on, layer) for n in (network, random)]
        print(f"retrieval by {layer}: {scores[0]:.3f}, with random weights {scores[1]:.3f}", flush=True)
        rows.append({"step": layer, "retrieval": f"{scores[0]:.4f}", "random": f"{scores[1]:.4f}"})
    return rows


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description="Train the encoder that ships with imgops.")
    parser.add_argument("pictures", type=Path, help="folder that docs/training_pictures.py filled")
    parser.add_argument("--out", type=Path, default=Path("imgops/models/encoders/default_encoder.safetensors"))
    parser.add_argument("--log", type=Path, default=Path("docs/encoder-training.csv"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
