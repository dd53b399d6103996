"""The earlier place of these names."""

from .style.adain_decoder import *  # noqa: F403
