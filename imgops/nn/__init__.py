"""The layers that the networks are made of."""

from .conv import EqualizedConv2d
from .displacement import DisplacementState, ModulatedDisplacement
from .linear import EqualizedLinear
from .norm import MinibatchStdDev, pixel_norm
from .resample import downsample2d, upsample2d
from .synthesis import SynthesisLayer, ToRGB

__all__ = [
    "DisplacementState",
    "EqualizedConv2d",
    "EqualizedLinear",
    "MinibatchStdDev",
    "ModulatedDisplacement",
    "SynthesisLayer",
    "ToRGB",
    "downsample2d",
    "pixel_norm",
    "upsample2d",
]
