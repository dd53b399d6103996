"""Encoders, whose features style transfer and dreams compare: networks for classification, with their classifiers or
without."""

from .classes import class_names, find_class
from .efficientnet_lite import EfficientNetLite
from .googlenet import GoogLeNet
from .inception_v3 import InceptionV3
from .vgg import VGG
from .weights import default_weights, load_encoder

__all__ = [
    "VGG",
    "EfficientNetLite",
    "GoogLeNet",
    "InceptionV3",
    "class_names",
    "default_weights",
    "find_class",
    "load_encoder",
]
