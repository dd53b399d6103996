"""What :func:`~imgops.data.prepare_dataset` can be told. Loads no torch, so that the command line lists it quickly."""

from __future__ import annotations

import dataclasses

from ..._settings import COUNT, PICTURES, QUALITY, Bounds, Choice, check, setting

#: groups of options on the help page
SOURCE, PICTURE, RESULT = "Source", "Pictures", "Result"
#: the formats that are written, by the ending of their files, with Pillow's names
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How pictures become a dataset; the help of each field says what it is.

    Raises:
        TypeError, ValueError: one that is out of range, or does not go with another.
    """

    resolution: int | tuple[int, int] | None = setting(
        None,
        PICTURE,
        "Side of the results in pixels, or WIDTHxHEIGHT; they are cropped and resized to it.",
        "as they are",
        allowed=PICTURES,
    )
    crop: str = setting(
        "center",
        PICTURE,
        "What is kept: center; tall, the upper part of upright pictures; boxes, what --boxes says.",
        allowed=Choice(("center", "tall", "boxes")),
    )
    boxes: str | None = setting(
        None, PICTURE, "CSV or JSON with a name, x, y, width and height, in pixels, for each part to keep, as a face."
    )
    margin: float = setting(
        0.3, PICTURE, "How much more than a box is kept on each side, as a share of it.", allowed=Bounds(0, most=100)
    )
    channels: int = setting(3, PICTURE, "1 for gray, 3 for RGB over white, 4 for RGBA.", allowed=Choice((1, 3, 4)))
    format: str = setting("png", RESULT, "png, jpg or webp.", allowed=Choice(tuple(FORMATS)))
    quality: int = setting(QUALITY, RESULT, "Quality of JPEG and WebP.", allowed=Bounds(1, 100))
    shard_size: int | None = setting(
        None, RESULT, "Pictures per shard: OUT becomes a folder of WebDataset shards.", allowed=COUNT
    )
    drop_duplicates: bool = setting(False, RESULT, "Leave out pictures whose pixels another has already.")
    labels: str = setting(
        "file",
        SOURCE,
        "Classes: file takes those that the source has; folders makes one of each subfolder; or none.",
        allowed=Choice(("file", "folders", "none")),
    )
    split: str = setting(
        "train", SOURCE, "Part of CIFAR-10 or MNIST: train, test or all.", allowed=Choice(("train", "test", "all"))
    )
    every: int = setting(1, SOURCE, "Take every so many frames of a video.", allowed=COUNT)
    limit: int | None = setting(None, SOURCE, "Take so many pictures at most.", allowed=COUNT)

    def __post_init__(self) -> None:
        check(self)
        if (self.crop == "boxes") != (self.boxes is not None):
            raise ValueError(
                f"boxes must be given with crop boxes, and only with it; got {self.boxes!r} with crop {self.crop}"
            )
        if self.crop != "center" and self.resolution is None:
            raise ValueError(f"crop must be center where no resolution gives the shape; got {self.crop!r}")
        if self.channels == 4 and self.format == "jpg":
            raise ValueError("format must be png or webp for 4 channels; JPEG has no transparency")
