"""The earlier place of these names."""

from ..style.encoder_data import *  # noqa: F403
from ..style.encoder_recipe import *  # noqa: F403
from ..style.encoder_training import *  # noqa: F403

if __name__ == "__main__":
    main()  # noqa: F405
