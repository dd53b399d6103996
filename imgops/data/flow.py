"""The earlier place of these names."""

from .video.flow import *  # noqa: F403
