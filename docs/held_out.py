"""Losses of the feed-forward networks that ship on pictures that they never saw, beside those of other weight files.

``python docs/held_out.py PICTURES [--encoder FILE --decoder FILE] [--fast FILE]``, where docs/training_pictures.py
filled the folder PICTURES, prints a table: the losses that ``imgops style`` minimizes, measured with EfficientNet-Lite2
at 256 pixels, the mean of 20 pairs. The decoder gives each of 5 contents each of 4 styles; the network of one style
gets the quarters of the contents.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from imgops.data.pictures import read_picture, resize_picture
from imgops.models.encoders import load_encoder
from imgops.models.style import load_adain_decoder, load_transform_net
from imgops.style import OptimizeSettings, stylize_adain, stylize_fast
from imgops.style.objective import Objective

SIDE = 256
JUDGE = "efficientnet-lite2"


def square(path: Path | str) -> Tensor:
    """The middle square of a picture, [3, SIDE, SIDE]."""
    pixels = read_picture(path).pixels
    side = min(pixels.shape[1:])
    top, left = ((length - side) // 2 for length in pixels.shape[1:])
    return resize_picture(pixels[:, top : top + side, left : left + side], SIDE)


def quarters(path: Path) -> list[Tensor]:
    """The quarters of a picture's middle square, each [3, SIDE, SIDE]."""
    pixels = read_picture(path).pixels
    half = min(pixels.shape[1:]) // 2
    top, left = ((length - 2 * half) // 2 for length in pixels.shape[1:])
    corners = [(top + i * half, left + j * half) for i in range(2) for j in range(2)]
    return [resize_picture(pixels[:, y : y + half, x : x + half], SIDE) for y, x in corners]


def losses(results: Iterable[tuple[Tensor, Tensor, Tensor]]) -> tuple[float, float]:
    """Mean content and style loss of (content, style, result)."""
    judge = load_encoder(JUDGE, frame=False)
    found = []
    for content, style, result in results:
        objective = Objective(judge, OptimizeSettings(size=SIDE, content_weight=1.0), content)
        objective.set_styles([style], [1.0])
        parts, _ = objective.gradient(result.clamp(0, 1))
        found.append((parts["content"], parts["style"]))
    mean = torch.tensor(found, dtype=torch.float64).mean(0)
    return float(mean[0]), float(mean[1])


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description="Losses of the networks that ship, on pictures that they never saw.")
    parser.add_argument("pictures", type=Path, help="folder that docs/training_pictures.py filled")
    parser.add_argument("--encoder", default="embedded", help="encoder of --decoder")
    parser.add_argument("--decoder", help="another decoder of AdaIN")
    parser.add_argument("--fast", help="another network of the style hubble")
    given = parser.parse_args()
    contents = sorted((given.pictures / "test-contents").iterdir())
    styles = [square(path) for path in sorted((given.pictures / "test-styles").iterdir())]
    pairs = [(square(content), style) for content in contents for style in styles]
    parts = [part for content in contents for part in quarters(content)]
    hubble = square("samples:hubble")

    def adain(encoder: str, decoder: str) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        networks = load_encoder(encoder, frame=False), load_adain_decoder(decoder)
        return ((content, style, stylize_adain(content, [style], *networks)) for content, style in pairs)

    def fast(weights: str) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        network = load_transform_net(weights)
        return ((part, hubble, stylize_fast(part, network)) for part in parts)

    rows: list[tuple[str, Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]]]] = [
        ("the content itself, pairs of adain", lambda: ((content, style, content) for content, style in pairs)),
        ("adain", lambda: adain("embedded", "default")),
        ("the content itself, pairs of fast", lambda: ((part, hubble, part) for part in parts)),
        ("fast", lambda: fast("hubble")),
    ]
    if given.decoder:
        rows.append((f"adain, {given.decoder}", lambda: adain(given.encoder, given.decoder)))
    if given.fast:
        rows.append((f"fast, {given.fast}", lambda: fast(given.fast)))
    print("| | content loss | style loss |\n| --- | ---: | ---: |")
    for name, results in rows:
        print("| {} | {:.3f} | {:.3f} |".format(name, *losses(results())), flush=True)


if __name__ == "__main__":
    main()
