"""Collects the free pictures that the shipped networks are trained and compared on.

``python docs/training_pictures.py FOLDER`` downloads the Debian packages of docs/training-pictures.csv, which names the
license of each picture, with apt-get; it needs Debian or a system that has its packages. The pictures become files of
FOLDER/contents, FOLDER/styles, FOLDER/patterns (gray textures) and FOLDER/stamps (objects before a transparent ground),
of FOLDER/test-contents and FOLDER/test-styles, on which nothing is trained, and of FOLDER/gallery, which
docs/gallery.py uses besides.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

LIST = Path(__file__).parent / "training-pictures.csv"
#: the longer side in pixels that a picture is reduced to
SIDE = 1024


class Listed(NamedTuple):
    """A line of the list."""

    use: str
    package: str
    path: str
    license: str


def listed() -> list[Listed]:
    """All lines of the list."""
    with LIST.open(newline="", encoding="utf-8") as lines:
        return [Listed(**row) for row in csv.DictReader(lines)]


def unpack(package: str, folder: Path) -> Path:
    """Download a Debian package and unpack it; returns where to."""
    root = folder / package
    root.mkdir()
    subprocess.run(["apt-get", "download", "-q", package], cwd=root, check=True)
    (file,) = root.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", file.name, "."], cwd=root, check=True)
    return root


def collect(out: Path) -> None:
    """Write every picture of the list, reduced to :data:`SIDE`, as PNG."""
    # some wallpapers have more pixels than Pillow takes for harmless
    Image.MAX_IMAGE_PIXELS = None
    pictures = listed()
    with tempfile.TemporaryDirectory() as folder:
        roots = {package: unpack(package, Path(folder)) for package in sorted({p.package for p in pictures})}
        for picture in pictures:
            path = roots[picture.package] / picture.path
            # Plasma's wallpapers are files of equal names in folders of their own
            name = path.parts[-4] if "contents" in path.parts else path.stem
            image = ImageOps.exif_transpose(Image.open(path))
            image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
            if image.mode == "RGBA":
                # drawings lie on a page that is empty around them
                image = image.crop(image.getchannel("A").getbbox())
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            (out / picture.use).mkdir(parents=True, exist_ok=True)
            image.save(out / picture.use / f"{name}.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/training_pictures.py FOLDER")
    collect(Path(sys.argv[1]))
