"""The earlier place of these names."""

from .encoders.vgg import *  # noqa: F403
