"""The earlier place of these names."""

from .pictures.colors import *  # noqa: F403
