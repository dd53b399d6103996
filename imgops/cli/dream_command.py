"""The command ``imgops dream`` with its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ._options import MACHINE, NETWORKS, RESULT, Device, Preprocessing, Preview, Quality, Size

_DREAM, _ZOOM = "Dream", "Zoom"


def dream(
    ctx: typer.Context,
    picture: Annotated[
        str | None,
        typer.Argument(
            help="A picture, a folder of them, a video or GIF, samples:NAME, or noise. "
            "[red]\\[required, unless --list-layers][/]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="PNG, JPEG or TIFF; of a video and with --frames GIF, MP4, MOV, MKV or WebM; or a folder. "
            "[dim]\\[default: PICTURE-dream.png][/]",
            rich_help_panel=RESULT,
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    seed: Annotated[int, typer.Option(help="Of noise and jitter.", rich_help_panel=RESULT)] = 0,
    preview: Preview = None,
    quality: Quality = 95,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            help="What grows: LAYER, LAYER:CHANNEL, either with =WEIGHT; several add up. "
            "[dim]\\[default: by the network][/]",
            rich_help_panel=_DREAM,
            show_default=False,
        ),
    ] = None,
    guide: Annotated[
        str | None, typer.Option(help="A picture whose patterns are dreamt.", rich_help_panel=_DREAM)
    ] = None,
    octaves: Annotated[int, typer.Option(help="Sizes, from small to large.", rich_help_panel=_DREAM)] = 4,
    octave_scale: Annotated[
        float, typer.Option(help="Ratio of each size to the one before.", rich_help_panel=_DREAM)
    ] = 1.4,
    steps: Annotated[int, typer.Option(help="At each size.", rich_help_panel=_DREAM)] = 10,
    step_size: Annotated[
        float | None,
        typer.Option(
            help="How strong a step is. [dim]\\[default: by the normalization][/]",
            rich_help_panel=_DREAM,
            show_default=False,
        ),
    ] = None,
    jitter: Annotated[int, typer.Option(help="Pixels that the picture is moved by.", rich_help_panel=_DREAM)] = 32,
    normalization: Annotated[
        str, typer.Option(help="Of the gradient: laplacian, mean, std or none.", rich_help_panel=_DREAM)
    ] = "laplacian",
    alpha: Annotated[
        float | None,
        typer.Option(help="Stay near the picture, with activations this many times its own.", rich_help_panel=_DREAM),
    ] = None,
    fourier: Annotated[
        bool,
        typer.Option(
            "--fourier", help="Steps in Fourier space, colours decorrelated: for noise.", rich_help_panel=_DREAM
        ),
    ] = False,
    frames: Annotated[int, typer.Option(min=1, help="More than 1: a zoom into the dream.", rich_help_panel=_ZOOM)] = 1,
    zoom: Annotated[float, typer.Option(help="A frame's share that leaves it.", rich_help_panel=_ZOOM)] = 0.05,
    rotate: Annotated[float, typer.Option(help="Degrees a frame, clockwise.", rich_help_panel=_ZOOM)] = 0.0,
    fps: Annotated[float, typer.Option(help="Frames a second.", rich_help_panel=_ZOOM)] = 15.0,
    weights: Annotated[
        str,
        typer.Option(
            help="Network: default, a file, or googlenet, vgg19, inception_v3, ... (downloaded, checked).",
            rich_help_panel=NETWORKS,
        ),
    ] = "default",
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="Print the network's layers and exit.", rich_help_panel=NETWORKS)
    ] = False,
    pooling: Annotated[str | None, typer.Option(help="max, average or l2.", rich_help_panel=NETWORKS)] = None,
    preprocessing: Preprocessing = None,
    tile: Annotated[
        int | None,
        typer.Option(help="Side of the tiles of large pictures, in pixels.", rich_help_panel=MACHINE),
    ] = None,
    device: Device = "auto",
) -> None:
    """Dream a picture, a folder of them, a video or noise: change it so that a layer of a network is more excited.

    Example: imgops dream samples:astronaut -o dream.png --size 256

    This is DeepDream. The settings and the seed are kept in the result's metadata. A video that Ctrl-C stopped goes on
    with the same command.
    """
    from . import dream as work

    if list_layers:
        work.list_layers(weights)
        return
    if picture is None:
        raise ValueError("PICTURE is missing: a file, samples:NAME or noise")
    from ..dream import DreamSettings
    from ._pictures import given_options, warn_of_idle

    if frames == 1:
        warn_of_idle(given_options(ctx), ("zoom", "rotate", "fps"), "without --frames")
    if out is None or not out.lower().endswith((".jpg", ".jpeg")):
        warn_of_idle(given_options(ctx), ("quality",), "as only JPEG has one")
    settings = DreamSettings(
        octaves=octaves,
        octave_scale=octave_scale,
        steps=steps,
        step_size=step_size,
        jitter=jitter,
        normalization=normalization,
        seed=seed,
        tile=tile,
        alpha=alpha,
        parametrisation="fourier" if fourier else "pixels",
    )
    work.run(
        work.Job(
            picture=picture,
            layers=tuple(layer or ()),
            out=out,
            settings=settings,
            size=size,
            guide=guide,
            weights=weights,
            pooling=pooling,
            preprocessing=preprocessing,
            frames=frames,
            zoom=zoom,
            rotate=rotate,
            fps=fps,
            preview=preview,
            quality=quality,
            device=device,
        )
    )
