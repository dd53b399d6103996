"""The earlier place of these names."""

from .style.transform_net import *  # noqa: F403
