"""The layers that the networks are made of."""

from .activation import BiasAct, FilteredLReLU
from .conv import EqualizedConv2d
from .displacement import DisplacementState, ModulatedDisplacement
from .features import Features
from .linear import EqualizedLinear
from .losses import ContentLoss, PerceptualLoss, TotalVariation
from .mapping import MappingNetwork
from .norm import EFDM, AdaIN, AdaptiveInstanceNorm2d, InstanceNorm2d, MinibatchStdDev, minibatch_stddev, pixel_norm
from .plain_conv import FusedConv2d, FusedConvTranspose2d
from .quantize import VectorQuantizer, nearest_code
from .resample import FIRDownsample2d, FIRUpsample2d, downsample2d, upsample2d
from .style import GramMatrix, SlicedWassersteinLoss, StyleLoss
from .synthesis import ModulatedConv2d, SynthesisLayer, ToRGB

__all__ = [
    "EFDM",
    "AdaIN",
    "AdaptiveInstanceNorm2d",
    "BiasAct",
    "FusedConv2d",
    "FusedConvTranspose2d",
    "ContentLoss",
    "DisplacementState",
    "EqualizedConv2d",
    "EqualizedLinear",
    "FIRDownsample2d",
    "FIRUpsample2d",
    "Features",
    "FilteredLReLU",
    "GramMatrix",
    "InstanceNorm2d",
    "MappingNetwork",
    "MinibatchStdDev",
    "ModulatedConv2d",
    "ModulatedDisplacement",
    "PerceptualLoss",
    "SlicedWassersteinLoss",
    "StyleLoss",
    "SynthesisLayer",
    "ToRGB",
    "TotalVariation",
    "VectorQuantizer",
    "downsample2d",
    "minibatch_stddev",
    "nearest_code",
    "pixel_norm",
    "upsample2d",
]
