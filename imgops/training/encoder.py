"""The earlier place of these names."""

from ..style.encoder_training import *  # noqa: F403

if __name__ == "__main__":
    main()  # noqa: F405
