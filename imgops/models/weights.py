"""The earlier place of these names."""

from .encoders.weights import *  # noqa: F403
from .weight_files import *  # noqa: F403
