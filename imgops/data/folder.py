"""The earlier place of these names."""

from .datasets.folder import *  # noqa: F403
