"""The earlier place of these names."""

from .encoders.tiling import *  # noqa: F403
