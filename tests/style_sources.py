"""Pictures and small networks for the tests of ``imgops style``, and the options that make it quick."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from imgops.data.pictures import write_picture
from imgops.models.encoders.vgg import VGG
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.models.style.transform_net import TransformNet

QUICK = ("--size", "48", "--first-size", "32", "--steps", "2", "--later-steps", "1", "--device", "cpu")


def write_sources(made: Path) -> Path:
    """Pictures, and the weights of small networks: enc, dec, net .safetensors."""
    torch.manual_seed(0)
    for name, size in {"cat": (40, 60), "dog": (60, 40), "sea": (48, 48)}.items():
        write_picture(made / f"{name}.png", torch.rand(3, *size))
    widths = (4, 6, 8, 10, 12)
    fast = TransformNet(widths=(4, 6, 8), blocks=1)
    # in the middle of the range, where the picture shows
    fast.deconv3.conv2d.weight.data *= 50
    fast.deconv3.conv2d.bias.data.fill_(127.0)
    decoder = AdaINDecoder((1, 1, 1), widths=widths[:4])
    for parameter in decoder.parameters():
        # small random weights would let nothing through
        parameter.data *= 2.5
    for name, network in {
        "enc": VGG((1, 1, 1, 2, 1), widths=widths),
        "dec": decoder,
        "net": fast,
    }.items():
        safetensors.torch.save_file(network.state_dict(), made / f"{name}.safetensors")
    return made


def options(folder: Path, method: str = "optimize") -> tuple[object, ...]:
    return (
        *QUICK,
        "--method",
        method,
        "--weights",
        folder / "enc.safetensors",
        "--decoder",
        folder / "dec.safetensors",
    )
