"""Fused kernels for image synthesis: modulated convolution, upfirdn2d, bias-activation.

Names load on first use, so that ``import imgops`` costs little over ``import torch``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ._backend import use_impl as use_impl
    from .acceleration import accelerate as accelerate
    from .acceleration import accelerated as accelerated
    from .acceleration import restore as restore
    from .ops.adain import adain as adain
    from .ops.adain import adaptive_instance_norm as adaptive_instance_norm
    from .ops.bias_act import bias_act as bias_act
    from .ops.conv2d import conv2d as conv2d
    from .ops.conv_transpose2d import conv_transpose2d as conv_transpose2d
    from .ops.displace import displace as displace
    from .ops.efdm import efdm as efdm
    from .ops.filtered_lrelu import filtered_lrelu as filtered_lrelu
    from .ops.gram_matrix import feature_statistics as feature_statistics
    from .ops.gram_matrix import gram_matrix as gram_matrix
    from .ops.grid_sample import grid_sample as grid_sample
    from .ops.modulated_conv2d import modulated_conv2d as modulated_conv2d
    from .ops.nearest_neighbor import nearest_neighbor as nearest_neighbor
    from .ops.style_loss import style_loss as style_loss
    from .ops.style_loss import wasserstein_loss as wasserstein_loss
    from .ops.upfirdn2d import setup_filter as setup_filter
    from .ops.upfirdn2d import upfirdn2d as upfirdn2d

_HOMES = {
    "accelerate": ".acceleration",
    "accelerated": ".acceleration",
    "adain": ".ops.adain",
    "adaptive_instance_norm": ".ops.adain",
    "bias_act": ".ops.bias_act",
    "conv2d": ".ops.conv2d",
    "conv_transpose2d": ".ops.conv_transpose2d",
    "displace": ".ops.displace",
    "efdm": ".ops.efdm",
    "feature_statistics": ".ops.gram_matrix",
    "filtered_lrelu": ".ops.filtered_lrelu",
    "gram_matrix": ".ops.gram_matrix",
    "grid_sample": ".ops.grid_sample",
    "modulated_conv2d": ".ops.modulated_conv2d",
    "nearest_neighbor": ".ops.nearest_neighbor",
    "restore": ".acceleration",
    "setup_filter": ".ops.upfirdn2d",
    "style_loss": ".ops.style_loss",
    "upfirdn2d": ".ops.upfirdn2d",
    "use_impl": "._backend",
    "wasserstein_loss": ".ops.style_loss",
}

__all__ = ["__version__", *_HOMES]

# in a checkout the Triton kernels stand beside this package; an installed copy has them inside (setup.py maps them)
_checkout = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "kernels").is_dir() and (_checkout / "kernels" / "bias_act.py").is_file():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'imgops' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
