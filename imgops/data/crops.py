"""The earlier place of these names."""

from .datasets.crops import *  # noqa: F403
