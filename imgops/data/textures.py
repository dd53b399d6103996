"""The earlier place of these names."""

from .datasets.textures import *  # noqa: F403
