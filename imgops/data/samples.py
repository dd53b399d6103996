"""The earlier place of these names."""

from .datasets.sample_set import *  # noqa: F403
from .pictures.samples import *  # noqa: F403
