"""Training of the networks of feed-forward style transfer from Python: one for a style, and a decoder for any style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.style.adain_decoder import AdaINDecoder
from ..models.style.transform_net import TransformNet
from ..models.style.weights import load_adain_decoder, load_transform_net
from ._file_runs import OnStep, run, state_path
from .training_config import AdaINStyleConfig, FastStyleConfig, of_training
from .training_recipes import AdaINStyle, FastStyle, Given
from .training_settings import AdaINTraining, FastTraining


# the caller's generator stays where it is
@torch.random.fork_rng(devices=[])
def train_fast(
    style: Tensor,
    data: str | Path,
    out: str | Path,
    encoder: nn.Module,
    settings: FastTraining | None = None,
    *,
    style_mask: Tensor | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> TransformNet:
    """Train a network that paints any picture in one style (Johnson et al. 2016).

    Args:
        style: [3, H, W], RGB in [0, 1].
        data: pictures to paint while training, a folder or ``samples:``; see
            :class:`~imgops.data.datasets.RandomCrops`.
        out: the network's file, .safetensors; ``out`` with ``.state`` appended holds what a resumed run needs, and may
            be removed when the network is done.
        encoder: whose features the losses are on; see :func:`~imgops.models.encoders.load_encoder`.
        settings: None takes :class:`FastTraining`'s defaults.
        style_mask: how much each pixel of the style counts, [1, H, W] in [0, 1], such as its alpha; None: all the same.
        resume: go on from ``out``'s state, bit by bit on the CPU as if never stopped.
        device: where to train.
        on_step: called after each step with its number, the number of steps, the weighted losses by name, and, when
            the step is one of ``save_every`` or the last of all, [3, H, 2 W]: a crop and what becomes of it. A true
            answer stops the training.
        on_skip: called with each picture that cannot be read; None warns.

    Returns:
        The network, in evaluation mode.

    Raises:
        ValueError: settings, files or data that cannot be used, named, before the training starts.
        FloatingPointError: the loss is no longer finite.
        OSError: a file cannot be read or written.
    """
    settings, name = settings or FastTraining(), "train_fast"
    if style.ndim != 3 or style.shape[0] != 3:
        raise ValueError(f"{name}: style must be RGB [3, H, W]; got {tuple(style.shape)}")
    if style_mask is not None and (style_mask.shape != (1, *style.shape[1:]) or not style_mask.max() > 0):
        raise ValueError(
            f"{name}: style_mask must be {(1, *style.shape[1:])} as the style is, and not 0 all over; got "
            f"{tuple(style_mask.shape)}"
        )
    names = {"style": Given.NAME, "weights": Given.NAME}
    config = of_training(settings, FastStyleConfig, data=str(data), **names, **_places(out, device))
    given = Given(encoder, style, style_mask, on_skip=on_skip)
    run(config, FastStyle.of(given), resume=resume, on_step=on_step, quiet=True)
    return load_transform_net(out).to(device)


@torch.random.fork_rng(devices=[])
def train_adain(
    contents: str | Path,
    styles: str | Path,
    out: str | Path,
    encoder: nn.Module,
    settings: AdaINTraining | None = None,
    *,
    loss_encoder: nn.Module | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
    on_skip: Callable[[str], None] | None = None,
) -> AdaINDecoder:
    """Train a decoder for any style (Huang and Belongie 2017).

    Args:
        contents, styles: folders of pictures or ``samples:``; see :class:`~imgops.data.datasets.RandomCrops`.
        encoder: which the decoder is to mirror: a VGG of ``settings.block`` blocks at least, or another with a layer of
            that block's stride.
        settings: None takes :class:`AdaINTraining`'s defaults.
        loss_encoder: another encoder, that the losses are on: the Gram matrices of the layers that
            :func:`~imgops.style.optimize` compares the style at; the means and standard deviations of the colors; and,
            each channel with mean 0 and variance 1, the layer that the content is found by from noise. None takes
            ``encoder`` and the paper's losses. Default None.
        out, resume, device, on_skip: as of :func:`train_fast`.
        on_step: as of :func:`train_fast`; its picture, [3, H, 3 W], is a content, a style and what becomes of them.

    Returns:
        The decoder, in evaluation mode.

    Raises:
        ValueError, FloatingPointError, OSError: as :func:`train_fast`.
    """
    settings = settings or AdaINTraining()
    names = {"weights": Given.NAME, "loss_weights": None if loss_encoder is None else Given.NAME}
    more = {**names, "data": str(contents), "styles": str(styles), **_places(out, device)}
    config = of_training(settings, AdaINStyleConfig, **more)
    given = Given(encoder, loss_encoder=loss_encoder, on_skip=on_skip)
    run(config, AdaINStyle.of(given), resume=resume, on_step=on_step, quiet=True)
    return load_adain_decoder(out).to(device)


def _places(out: str | Path, device: str | torch.device) -> dict[str, Any]:
    return {"out": str(state_path(out)), "network": str(out), "device": str(device)}
