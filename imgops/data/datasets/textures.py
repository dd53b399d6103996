"""Procedural textures: pictures without an author, as many as there are seeds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

Field = NDArray[np.float64]


def procedural_texture(seed: int, size: int = 256) -> Tensor:
    """A texture in random colors: stripes, bricks, dots, cells, clouds, waves, strokes or rings.

    Args:
        seed: >= 0; each gives another texture, the same on every machine.
        size: side in pixels, >= 16. Default 256.

    Returns:
        uint8 [3, size, size], RGB.

    Raises:
        ValueError: a negative seed or too small a size.

    >>> procedural_texture(3, 64).shape
    torch.Size([3, 64, 64])
    """
    if seed < 0 or size < 16:
        raise ValueError(f"procedural_texture: seed must be >= 0 and size >= 16; got {seed} and {size}")
    rng = np.random.default_rng((7, seed))
    kind = _KINDS[seed % len(_KINDS)]
    field = kind(rng, size)
    low, high = np.quantile(field, [0.01, 0.99])
    field = np.clip((field - low) / max(high - low, 1e-9), 0, 1)
    # a palette of colors along the field, with hard or soft borders between them
    colors = rng.uniform(0, 255, (rng.integers(2, 6), 3))
    at = field * (len(colors) - 1)
    if rng.random() < 0.4:
        at = np.round(at)
    below = np.minimum(at.astype(int), len(colors) - 2)
    share = (at - below)[..., None]
    pixels = colors[below] * (1 - share) + colors[below + 1] * share
    pixels += rng.normal(0, rng.uniform(0, 12), field.shape)[..., None]
    return torch.from_numpy(np.clip(pixels, 0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def _turned(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Coordinates in pixels, turned by a random angle and bent by a slow wave."""
    y, x = np.mgrid[:size, :size].astype(float)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bend, length = rng.uniform(0, 6), rng.uniform(40, 120)
    return u + bend * np.sin(2 * np.pi * v / length), v + bend * np.sin(2 * np.pi * u / length)


def _stripes(rng: np.random.Generator, size: int) -> Field:
    u, _ = _turned(rng, size)
    wave = np.sin(2 * np.pi * u / rng.uniform(5, 40))
    return np.abs(wave) ** rng.uniform(0.3, 3) * np.sign(wave)


def _bricks(rng: np.random.Generator, size: int) -> Field:
    u, v = _turned(rng, size)
    height = rng.uniform(8, 28)
    width, joint = height * rng.uniform(1, 3.5), rng.uniform(1, 3)
    row = np.floor(v / height)
    u = u + row % 2 * width * rng.choice([0, 0.5])
    column = np.floor(u / width)
    shade = rng.normal(0, 0.2, 4096)[((row * 61 + column * 17).astype(int)) % 4096]
    inside = (u - column * width > joint) & (v - row * height > joint)
    return np.where(inside, 1 + shade, 0)


def _dots(rng: np.random.Generator, size: int) -> Field:
    u, v = _turned(rng, size)
    pitch = rng.uniform(8, 36)
    row = np.floor(v / pitch)
    u = u + row % 2 * pitch / 2
    distance = np.hypot(u - (np.floor(u / pitch) + 0.5) * pitch, v - (row + 0.5) * pitch)
    return -np.tanh((distance - pitch * rng.uniform(0.2, 0.45)) / rng.uniform(0.5, 3))


def _cells(rng: np.random.Generator, size: int) -> Field:
    count = int(rng.integers(20, 250))
    points = rng.uniform(0, size, (count, 2))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    nearest = np.full((2, size, size), np.inf, np.float32)
    which = np.zeros((size, size), int)
    stretch = rng.uniform(0.4, 1)
    for i, (py, px) in enumerate(points):
        distance = np.hypot(y - py, (x - px) * stretch)
        closer = distance < nearest[0]
        nearest[1] = np.where(closer, nearest[0], np.minimum(nearest[1], distance))
        nearest[0] = np.where(closer, distance, nearest[0])
        which[closer] = i
    fields = (nearest[0], np.minimum(nearest[1] - nearest[0], 6), rng.random(count)[which])
    return np.asarray(fields[rng.integers(3)], float)


def _clouds(rng: np.random.Generator, size: int) -> Field:
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 5)
    u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    frequency = np.maximum(np.hypot(u, v * stretch), 1 / size)
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * frequency ** -rng.uniform(0.6, 2.2)
    field: Field = np.fft.irfft2(spectrum, (size, size))
    return np.abs(field) if rng.random() < 0.4 else field


def _waves(rng: np.random.Generator, size: int) -> Field:
    y, x = np.mgrid[:size, :size].astype(float)
    field = np.zeros((size, size))
    length = rng.uniform(8, 40)
    for _ in range(rng.integers(2, 7)):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        field += np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / (length * rng.uniform(0.7, 1.4)) + phase)
    return field


def _strokes(rng: np.random.Generator, size: int) -> Field:
    image = Image.new("L", (size, size), int(rng.integers(256)))
    draw = ImageDraw.Draw(image)
    angle, spread, length, width = rng.uniform(0, np.pi), rng.uniform(0.05, 1.5), rng.uniform(8, 50), rng.uniform(1, 7)
    for _ in range(int(6 * size * size / (length * width * 4))):
        x, y = rng.uniform(-length, size + length, 2)
        turned = angle + rng.normal(0, spread)
        dx, dy = np.cos(turned) * length / 2, np.sin(turned) * length / 2
        draw.line((x - dx, y - dy, x + dx, y + dy), int(rng.integers(256)), max(1, round(width)))
    return np.asarray(image, float)


def _rings(rng: np.random.Generator, size: int) -> Field:
    u, v = _turned(rng, size)
    pitch = rng.uniform(30, 90)
    u, v = u - np.round(u / pitch) * pitch, v - np.round(v / pitch) * pitch
    turns = rng.integers(0, 4)
    return np.sin(2 * np.pi * np.hypot(u, v) / rng.uniform(6, 20) + turns * np.arctan2(v, u))


_KINDS = (_stripes, _bricks, _dots, _cells, _clouds, _waves, _strokes, _rings)
