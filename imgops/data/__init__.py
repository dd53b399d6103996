"""Pictures to train on: a folder, a zip, or a ``samples:`` set that needs no download."""

from __future__ import annotations

from ._dataset import ImageDataset as ImageDataset
from ._images import DataError as DataError
from ._sampler import EndlessSampler as EndlessSampler
from .folder import ImageFolder as ImageFolder
from .folder import open_dataset as open_dataset
from .samples import SAMPLE_SETS as SAMPLE_SETS
from .samples import SampleSet as SampleSet

__all__ = ["SAMPLE_SETS", "DataError", "EndlessSampler", "ImageDataset", "ImageFolder", "SampleSet", "open_dataset"]
