"""Sheets of samples as one picture, rows labeled."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..data.pictures import png_info

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: pictures in a row of a sheet, and rows where there are no classes
COLUMNS, ROWS = 8, 4
#: number of rows of a sheet if there are more classes than that
CLASSES = 16


def grid_classes(c_dim: int) -> list[int]:
    """The class of each row of a sheet: each class once, the first few of many; [] without classes."""
    return list(range(min(c_dim, CLASSES)))


def to_uint8(images: Tensor) -> Tensor:
    """Images with values about in [-1, 1] as uint8 in [0, 255], on the CPU."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu()


def to_pil(image: Tensor) -> Image.Image:
    """uint8 [C, H, W] with 1, 3 or 4 channels as a Pillow image."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array, _MODES[array.shape[2]])


def image_grid(
    images: Tensor, columns: int, labels: Sequence[str] = (), headings: Sequence[tuple[int, str]] = (), zoom: int = 1
) -> Image.Image:
    """Images side by side, row by row, with an optional label left of each row and headings above.

    Args:
        images: uint8 [rows * columns, C, H, W].
        columns: images in a row.
        labels: one per row; None draws no margin.
        headings: (column, text) pairs, written above the column where each part begins; a gap separates the parts.
        zoom: whole factor by which each pixel is enlarged.

    Returns:
        A Pillow image, gray only where the images are.
    """
    n, channels, height, width = images.shape
    rows, height, width = n // columns, height * zoom, width * zoom
    tiles = images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    points = max(11, min(height // 4, 28))
    font = ImageFont.load_default(points)
    line = round(points * 1.6)
    margin = round(max((font.getlength(text) for text in labels), default=-line) + line)
    top = line if headings else 0
    starts = [column for column, _ in headings if column > 0]
    gap = width // 4
    size = (margin + columns * width + len(starts) * gap, top + rows * height)
    plain = "L" if channels == 1 else "RGB"
    sheet = Image.new(plain, size, "white")
    draw = ImageDraw.Draw(sheet)

    def left(column: int) -> int:
        return margin + column * width + gap * sum(start <= column for start in starts)

    for i, tile in enumerate(tiles):
        picture = to_pil(tile)
        row, column = divmod(i, columns)
        sheet.paste(picture, (left(column), top + row * height), picture if channels == 4 else None)
    for row, text in enumerate(labels):
        draw.text((line // 2, top + (row + 0.5) * height), text, fill="black", font=font, anchor="lm")
    for column, text in headings:
        draw.text((left(column), top // 2), text, fill="black", font=font, anchor="lm")
    return sheet


def png_bytes(image: Image.Image, settings: Mapping[str, Any] | None = None) -> bytes:
    """The image as the bytes of a PNG file, with the settings that :func:`imgops.data.read_settings` gives back."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=png_info(settings))
    return buffer.getvalue()


def seeded_latents(seeds: Sequence[int], z_dim: int) -> Tensor:
    """z [len(seeds), z_dim]: each row standard normal, from its own seed alone, the same on every device."""
    rows = [np.random.default_rng(seed).standard_normal(z_dim, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def seeded_noise(shapes: Sequence[Sequence[int]], seeds: Sequence[int], device: torch.device) -> list[Tensor]:
    """Standard normal tensors [len(seeds), *shape], one for each shape: each row from its own seed alone.

    A seed's numbers are those that layers draw one after another from torch's generator with that seed.
    """
    noise = [torch.empty(len(seeds), *shape, device=device) for shape in shapes]
    for i, seed in enumerate(seeds):
        generator = torch.Generator(device).manual_seed(seed)
        for layer in noise:
            torch.randn(layer.shape[1:], generator=generator, out=layer[i])
    return noise


def seeded_classes(seeds: Sequence[int], count: int, labels: Tensor | None = None) -> list[int]:
    """A class for each seed, from that seed alone: as frequent as in the data.

    Args:
        seeds: one per sample.
        count: of the classes.
        labels: int64 [pictures], the classes of the data; None: all classes are as frequent.
    """
    drawn_from = np.arange(count) if labels is None else labels.numpy()
    # the second number keeps the class apart from the latent of the seed
    return [int(drawn_from[np.random.default_rng((seed, 1)).integers(len(drawn_from))]) for seed in seeds]


class Between(NamedTuple):
    """A sample on the way from one seed's to another's, along a great circle: of share 0 the first, of 1 the second."""

    seed: int
    other: int
    share: float


def spherical(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """The rows of a at share 0, those of b at share 1, and what lies between along great circles.

    Of standard normal rows what lies between is of their length, too, as it is not on the straight line (White 2016,
    "Sampling generative networks").

    Args:
        a, b: [N, ...].
        share: float64 [N], from 0 to 1.
    """
    angle = F.cosine_similarity(a.double().flatten(1), b.double().flatten(1)).clamp(-1, 1).acos()
    share = share.to(a.device)
    # between rows along one line there is no arc
    straight = angle.sin() < 1e-6
    weights = [torch.where(straight, s, (s * angle).sin() / angle.sin()).to(a.dtype) for s in (1 - share, share)]
    first, second = (w.view(-1, *[1] * (a.ndim - 1)) for w in weights)
    return first * a + second * b


def _drawn(draw: Callable[[Sequence[int]], list[Tensor]], seeds: Sequence[int | Between]) -> list[Tensor]:
    """What is drawn of seeds, and what lies between."""
    ways = [seed if isinstance(seed, Between) else Between(seed, seed, 0.0) for seed in seeds]
    own = draw([way.seed for way in ways])
    if not any(way.share for way in ways):
        return own
    share = torch.tensor([way.share for way in ways], dtype=torch.float64)
    return [spherical(a, b, share) for a, b in zip(own, draw([way.other for way in ways]), strict=True)]


@torch.no_grad()
def seeded_samples(
    generator: Any,
    seeds: Sequence[int | Between],
    label: int | Sequence[int] | None = None,
    truncation: float = 1.0,
    noise_mode: str = "random",
    batch: int = 1,
) -> Tensor:
    """Samples as uint8 [len(seeds), C, R, R], each determined by its own seed; torch's random state is left unchanged.

    Args:
        generator: in eval mode; of latents and labels, or with a ``mapping`` of them to w and a ``synthesis``.
        seeds: one per sample, for its latent and, with noise_mode "random", for its noise; or a sample between two.
        label: the class of all, or of each sample; None for a generator without.
        truncation: psi; 1 truncates nothing.
        noise_mode: "random", "const" or "none".
        batch: samples at once; on which depends, at most, how the result is rounded.
    """
    device = next(generator.parameters()).device
    (z,) = _drawn(lambda some: [seeded_latents(some, generator.z_dim)], seeds)
    z = z.to(device)
    c = torch.zeros(len(seeds), generator.c_dim, device=device)
    if label is not None:
        c[torch.arange(len(seeds)), torch.as_tensor(label)] = 1
    images = []
    for i in range(0, len(seeds), batch):
        part = slice(i, i + batch)
        images.append(to_uint8(_made(generator, z[part], c[part], seeds[part], truncation, noise_mode)))
    return torch.cat(images)


def _made(
    generator: Any, z: Tensor, c: Tensor, seeds: Sequence[int | Between], truncation: float, noise_mode: str
) -> Tensor:
    """The images of latents and labels."""
    if not hasattr(generator, "mapping"):
        if truncation != 1:
            raise ValueError(f"truncation must be 1, as {type(generator).__module__.split('.')[-2]} has no w to move")
        return generator(z, c)  # type: ignore[no-any-return]
    w = generator.mapping(z, c, truncation_psi=truncation)
    shapes = generator.synthesis.noise_shapes
    if not shapes:
        return generator.synthesis(w)  # type: ignore[no-any-return]
    noise = _drawn(lambda some: seeded_noise(shapes, some, z.device), seeds) if noise_mode == "random" else None
    return generator.synthesis(w, noise_mode, noise)  # type: ignore[no-any-return]
