"""The earlier place of these names."""

from ...nn.mapping import *  # noqa: F403
