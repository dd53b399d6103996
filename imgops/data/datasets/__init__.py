"""Datasets: pictures of one size with their classes, and random crops of pictures of any size."""

from .base import ImageDataset
from .crops import RandomCrops
from .folder import ImageFolder, open_dataset
from .picture_files import PictureFiles
from .sample_set import SAMPLE_SETS, SampleSet
from .sampler import EndlessSampler
from .shards import ShardSet
from .textures import procedural_texture

__all__ = [
    "EndlessSampler",
    "ImageDataset",
    "ImageFolder",
    "PictureFiles",
    "RandomCrops",
    "SAMPLE_SETS",
    "SampleSet",
    "ShardSet",
    "open_dataset",
    "procedural_texture",
]
