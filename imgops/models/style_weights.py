"""The earlier place of these names."""

from .style.weights import *  # noqa: F403
