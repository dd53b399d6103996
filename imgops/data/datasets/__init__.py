"""Datasets: pictures of one size with their classes, and random crops of pictures of any size."""

from .base import ImageDataset
from .crops import RandomCrops
from .folder import ImageFolder, open_dataset
from .sample_set import SAMPLE_SETS, SampleSet
from .sampler import EndlessSampler
from .textures import procedural_texture

__all__ = [
    "EndlessSampler",
    "ImageDataset",
    "ImageFolder",
    "RandomCrops",
    "SAMPLE_SETS",
    "SampleSet",
    "open_dataset",
    "procedural_texture",
]
