"""The earlier place of these names."""

from .encoders.inception_v3 import *  # noqa: F403
