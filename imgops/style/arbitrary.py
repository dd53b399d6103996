"""The earlier place of these names."""

from .adain import *  # noqa: F403
