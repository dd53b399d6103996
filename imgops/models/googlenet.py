"""The earlier place of these names."""

from .encoders.googlenet import *  # noqa: F403
