"""Pictures: one at a time, and to train on, from a folder, a zip, or a ``samples:`` set that needs no download."""

from __future__ import annotations

from ._dataset import ImageDataset as ImageDataset
from ._images import DataError as DataError
from ._sampler import EndlessSampler as EndlessSampler
from .folder import ImageFolder as ImageFolder
from .folder import open_dataset as open_dataset
from .pictures import Picture as Picture
from .pictures import read_picture as read_picture
from .pictures import read_settings as read_settings
from .pictures import resize_picture as resize_picture
from .pictures import write_picture as write_picture
from .samples import SAMPLE_SETS as SAMPLE_SETS
from .samples import SampleSet as SampleSet

__all__ = [
    "SAMPLE_SETS",
    "DataError",
    "EndlessSampler",
    "ImageDataset",
    "ImageFolder",
    "Picture",
    "SampleSet",
    "open_dataset",
    "read_picture",
    "read_settings",
    "resize_picture",
    "write_picture",
]
