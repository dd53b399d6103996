"""``imgops style``: pictures, folders and videos in the style of others, by any of the four methods."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Annotated

import typer

from .._settings import MACHINE, NETWORKS, RESULT, Choice, same_as, setting
from ..style.nnst_settings import NNST
from ..style.presets import PRESETS, with_preset
from ..style.settings import OPTIMIZE, PARTS, STYLE, VIDEO, TransferSettings
from ..training.config import RunConfig
from ._options import JPEG, Given, Preview, options

#: the settings that only some methods look at
_ADAIN = ("alpha", "convention", "decoder", "statistics")
_ENCODERS = ("weights", "pooling", "padding_mode", "preprocessing", "memory", "style_scale")
_NNST = (
    "smallest", "scale_steps", "final_steps", "content_share", "hypercolumn_layers", "patches", "rotations",
)  # fmt: skip
#: what optimize has in common with nnst, and what it has not
_DESCENT = ("frame_steps", "tile")
_OPTIMIZATION = (
    "steps", "later_steps", "first_size", "content_weight", "content_layers", "style_layers", "style_loss",
    "normalization", "tv_weight", "smoothing", "optimizer", "lr", "init", "average", "seed",
)  # fmt: skip
IDLE = {
    "optimize": (*_ADAIN, *_NNST),
    "nnst": (*_ADAIN, *_OPTIMIZATION),
    "adain": (*_OPTIMIZATION, *_DESCENT, *_NNST),
    "fast": (*_ADAIN, *_ENCODERS, *_OPTIMIZATION, *_DESCENT, *_NNST, "preset"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to make of what, as the command line says it."""

    content: Annotated[str, typer.Argument(help="A picture, a folder of them, a video or GIF, or samples:NAME.")]
    styles: Annotated[
        list[str],
        typer.Argument(
            help="Pictures whose styles are mixed; or a folder, for a result in each; networks with --method fast.",
            show_default=False,
        ),
    ] = dataclasses.field(default_factory=list)
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="PNG, JPEG or TIFF; of a video GIF, MP4, MOV, MKV or WebM; or a folder.",
            rich_help_panel=RESULT,
            show_default="CONTENT-STYLE.png",
        ),
    ] = None
    masks: Annotated[
        list[str],
        typer.Option(
            "--mask", help="A picture: white goes to a style, black stays; one per style.", rich_help_panel=PARTS
        ),
    ] = dataclasses.field(default_factory=list)
    style_masks: Annotated[
        list[str],
        typer.Option(
            "--style-mask", help="A picture: white is what counts of a style; one per style.", rich_help_panel=PARTS
        ),
    ] = dataclasses.field(default_factory=list)
    preset: str | None = setting(
        None,
        STYLE,
        "A look: faithful keeps the content, painterly paints it with parts of the style, bold lets go of it; options "
        "that you give take precedence.",
        allowed=Choice(tuple(PRESETS)),
    )
    settings: TransferSettings
    preview: Preview = None
    quality: int = setting(*JPEG)
    device: str = same_as(RunConfig, "device", panel=MACHINE)


@options(RESULT, STYLE, PARTS, OPTIMIZE, NNST, VIDEO, NETWORKS, MACHINE)
def transfer(job: Job, given: Given) -> None:
    """Give a picture, a folder of them or a video the style of other pictures.

    Example: imgops style samples:chelsea samples:gravel -o cat.png --size 256

    The settings and the seed are kept in the result's metadata. A video that Ctrl-C stopped goes on with the same
    command. The commands below train networks for the methods fast and adain; each has its own --help.
    """
    from ._pictures import warn_of_idle, warn_of_quality
    from ._style import run

    if job.preset is not None:
        job = dataclasses.replace(job, settings=with_preset(job.settings, job.preset, given))
    method, weights = job.settings.method, job.settings.weights
    names = _networks(job.styles, weights, given) if method == "fast" else job.styles
    if not names:
        raise ValueError(f"STYLES is missing: {'a network' if method == 'fast' else 'a picture or samples:NAME'}")
    idle = [name for name in IDLE[method] if name != "weights" or names != [weights]]
    warn_of_idle(given, idle, f"with the method {method}")
    chance = job.settings.optimize.init == "noise" or job.settings.optimize.style_loss == "sliced"
    if method == "optimize" and not chance:
        warn_of_idle(given, ("seed",), "without --init noise or --style-loss sliced")
    warn_of_quality(given, job.out)
    run(dataclasses.replace(job, styles=names))


def _networks(styles: list[str], weights: str, given: Given) -> list[str]:
    """The networks of the method fast: those named as styles; or a network's file that is given as --weights, where
    there are no styles, or pictures alone."""
    if "weights" not in given:
        return styles
    from ..data.pictures.samples import PREFIX
    from ..models.style.weights import load_transform_net
    from ..style.transfer import names_picture

    if not all(name.startswith(PREFIX) or names_picture(name) for name in styles):
        return styles
    try:
        load_transform_net(weights)
    except ValueError:
        # an encoder's; what is said of the pictures helps
        if styles:
            return styles
        raise
    if styles:
        warnings.warn(
            f"{', '.join(styles)} is not looked at: with the method fast the network of --weights is the style",
            stacklevel=1,
        )
    return [weights]
