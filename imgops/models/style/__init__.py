"""The feed-forward networks of style transfer: AdaIN's decoder, and Johnson's network of one style."""

from .adain_decoder import AdaINDecoder
from .transform_net import TransformNet
from .weights import fast_styles, load_adain_decoder, load_transform_net

__all__ = ["AdaINDecoder", "TransformNet", "fast_styles", "load_adain_decoder", "load_transform_net"]
