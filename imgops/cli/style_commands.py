"""The command ``imgops style`` and its trainings, with their options."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ._help import Command, HelpPage
from ._options import MACHINE, NETWORKS, RESULT, Device, Preprocessing, Preview, Quality, Size


class DefaultCommand(HelpPage, TyperGroup):
    """A group whose first command is meant where none is named, and whose help is that command's: ``imgops style A B``
    beside ``imgops style train-fast``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        close = difflib.get_close_matches(args[0], self.commands, 1, 0.8) if args and not named else []
        if close and not Path(args[0]).exists():
            raise ValueError(f"{args[0]}: no such file, and no such command; did you mean {close[0]}?")
        return super().parse_args(ctx, args if named else ["", *(args or ["--help"])])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name or next(iter(self.commands)))


style_app = typer.Typer(
    cls=DefaultCommand,
    help="Give pictures, folders or videos the style of others; train-fast and train-adain train networks for it.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_STYLE, _OPTIMIZE, _PARTS, _VIDEO = "Style", "Method optimize", "Parts and colours", "Video"

#: the options that only some methods look at
_ADAIN = ("alpha", "convention", "decoder")
_ENCODERS = ("weights", "pooling", "padding", "preprocessing", "memory", "style_scale")
_OPTIMIZATION = (
    "steps", "later_steps", "first_size", "content_weight", "content_layers", "style_layers", "style_loss",
    "normalization", "tv_weight", "optimizer", "lr", "init", "average", "frame_steps", "seed", "tile",
)  # fmt: skip
_IDLE = {"optimize": _ADAIN, "adain": _OPTIMIZATION, "fast": (*_ADAIN, *_ENCODERS, *_OPTIMIZATION)}


@style_app.command("transfer", cls=Command)
def transfer(
    ctx: typer.Context,
    content: Annotated[str, typer.Argument(help="A picture, a folder of them, a video or GIF, or samples:NAME.")],
    styles: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures whose style it gets, mixed; or a folder: one result for each. Networks for fast.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="PNG, JPEG or TIFF; of a video GIF, MP4, MOV, MKV or WebM; or a folder. "
            "[dim]\\[default: CONTENT-STYLE.png][/]",
            rich_help_panel=RESULT,
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    seed: Annotated[int, typer.Option(help="Of the noise of --init noise.", rich_help_panel=RESULT)] = 0,
    preview: Preview = None,
    quality: Quality = 95,
    method: Annotated[
        str,
        typer.Option(
            help="optimize: the best, slow. adain: any style at once. fast: a network for each style.",
            rich_help_panel=_STYLE,
        ),
    ] = "optimize",
    alpha: Annotated[
        float, typer.Option(help="How much of the style, 0 to 1, of the method adain.", rich_help_panel=_STYLE)
    ] = 1.0,
    convention: Annotated[
        str, typer.Option(help="Statistics of adain: pytorch or lua.", rich_help_panel=_STYLE)
    ] = "pytorch",
    style_weights: Annotated[
        str | None, typer.Option(help="How much of each style, as 3,1.", rich_help_panel=_STYLE)
    ] = None,
    style_scale: Annotated[
        float, typer.Option(help="Size of the styles in sizes of the result.", rich_help_panel=_STYLE)
    ] = 1.0,
    mask: Annotated[
        list[str] | None,
        typer.Option(help="Where a style goes, white; once for each style. The rest stays.", rich_help_panel=_PARTS),
    ] = None,
    style_mask: Annotated[
        list[str] | None,
        typer.Option(help="The part of a style that counts, white; once for each style.", rich_help_panel=_PARTS),
    ] = None,
    keep_colours: Annotated[
        str | None, typer.Option(help="Keep the content's: luma, coral or histogram.", rich_help_panel=_PARTS)
    ] = None,
    steps: Annotated[int, typer.Option(help="At the first size.", rich_help_panel=_OPTIMIZE)] = 150,
    later_steps: Annotated[int, typer.Option(help="At each larger size.", rich_help_panel=_OPTIMIZE)] = 75,
    first_size: Annotated[int, typer.Option(help="Longer side to begin at.", rich_help_panel=_OPTIMIZE)] = 128,
    content_weight: Annotated[
        float, typer.Option(help="More keeps more of the content.", rich_help_panel=_OPTIMIZE)
    ] = 1.0,
    content_layers: Annotated[
        str | None, typer.Option(help="As relu4_2=1; default for a VGG, by the init.", rich_help_panel=_OPTIMIZE)
    ] = None,
    style_layers: Annotated[
        str | None, typer.Option(help="As relu1_1=256,relu2_1=64; default for a VGG.", rich_help_panel=_OPTIMIZE)
    ] = None,
    style_loss: Annotated[str, typer.Option(help="gram or wasserstein.", rich_help_panel=_OPTIMIZE)] = "gram",
    normalization: Annotated[
        str, typer.Option(help="Of the losses: relative, chw, hw, none or gatys.", rich_help_panel=_OPTIMIZE)
    ] = "relative",
    tv_weight: Annotated[float, typer.Option(help="Smoothness.", rich_help_panel=_OPTIMIZE)] = 5.0,
    optimizer: Annotated[str, typer.Option(help="adam or lbfgs.", rich_help_panel=_OPTIMIZE)] = "adam",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate: 0.02 for adam, 1 for lbfgs.", rich_help_panel=_OPTIMIZE)
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            help="content, noise or style; the last two compare the content at relu2_2.", rich_help_panel=_OPTIMIZE
        ),
    ] = "content",
    average: Annotated[
        float, typer.Option(help="Decay of the average of the iterates; 0: the last.", rich_help_panel=_OPTIMIZE)
    ] = 0.98,
    frame_steps: Annotated[
        int, typer.Option(help="Steps of optimize for each frame after the first.", rich_help_panel=_VIDEO)
    ] = 40,
    weights: Annotated[
        str,
        typer.Option(help="Encoder: default, a file, or vgg19, vgg16 (downloaded, checked).", rich_help_panel=NETWORKS),
    ] = "default",
    decoder: Annotated[
        str, typer.Option(help="Of adain: default, or a file that goes with --weights.", rich_help_panel=NETWORKS)
    ] = "default",
    pooling: Annotated[
        str | None,
        typer.Option(help="max, average or l2. [dim]\\[default: average with optimize][/]", rich_help_panel=NETWORKS),
    ] = None,
    padding: Annotated[
        str | None,
        typer.Option(
            help="At edges: replicate (no frame), reflect, zeros, circular. [dim]\\[default: replicate][/]",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    preprocessing: Preprocessing = None,
    memory: Annotated[
        str | None,
        typer.Option(help="As 4GB: optimize works in tiles to stay below; same result.", rich_help_panel=MACHINE),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(help="Side of the tiles of optimize, in pixels; same result.", rich_help_panel=MACHINE),
    ] = None,
    device: Device = "auto",
) -> None:
    """Give a picture, a folder of them or a video the style of other pictures.

    Example: imgops style samples:chelsea samples:gravel -o cat.png --size 256

    The settings and the seed are kept in the result's metadata. A video that Ctrl-C stopped goes on with the same
    command. Networks for the methods fast and adain are trained by
    the commands below; each has its own --help.
    """
    from ..style.settings import OptimizeSettings
    from ..style.transfer import TransferSettings
    from ._pictures import given_options, warn_of_idle
    from .style import Job, parse_bytes, parse_layers, parse_numbers, run

    optimize = OptimizeSettings(
        first_size=first_size,
        steps=steps,
        later_steps=later_steps,
        frame_steps=frame_steps,
        optimizer=optimizer,
        lr=lr,
        content_layers=parse_layers("--content-layers", content_layers),
        style_layers=parse_layers("--style-layers", style_layers),
        style_loss=style_loss,
        normalization=normalization,
        style_scale=style_scale,
        init=init,
        average=average,
        seed=seed,
        tile=tile,
        content_weight=content_weight,
        tv_weight=tv_weight,
    )
    settings = TransferSettings(
        method=method,
        weights=weights,
        pooling=pooling,
        padding_mode=padding,
        preprocessing=preprocessing,
        decoder=decoder,
        size=size,
        alpha=alpha,
        convention=convention,
        style_weights=parse_numbers("--style-weights", style_weights),
        keep_colours=keep_colours,
        memory=None if memory is None else parse_bytes(memory),
        optimize=optimize,
        device=device,
    )
    given = given_options(ctx)
    names = _networks(styles or [], weights, given) if method == "fast" else styles
    if not names:
        raise ValueError(f"STYLES is missing: {'a network' if method == 'fast' else 'a picture or samples:NAME'}")
    taken = ("weights",) if names == [weights] else ()
    warn_of_idle((name for name in given if name not in taken), _IDLE[method], f"with the method {method}")
    if method == "optimize" and init != "noise":
        warn_of_idle(given, ("seed",), "without --init noise")
    if out is None or not out.lower().endswith((".jpg", ".jpeg")):
        warn_of_idle(given, ("quality",), "as only JPEG has one")
    run(
        Job(
            content=content,
            styles=tuple(names),
            out=out,
            settings=settings,
            masks=tuple(mask or ()),
            style_masks=tuple(style_mask or ()),
            preview=preview,
            quality=quality,
        )
    )


def _networks(styles: list[str], weights: str, given: list[str]) -> list[str]:
    """The networks of the method fast: those named as styles; or a network's file that is given as --weights, where
    there are no styles, or pictures alone."""
    if "weights" not in given:
        return styles
    from ..data.samples import PREFIX
    from ..models.style_weights import load_transform_net
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


_TRAINING, _FILES = "Training", "Files"
_DATA = "A folder of pictures, or samples: for the free pictures and textures that come along."


#: options that both trainings have
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where the training of --out ended.", rich_help_panel=_FILES)
]
_Preview = Annotated[
    str | None, typer.Option(help="A picture file that shows the work as it goes.", rich_help_panel=_FILES)
]
_Side = Annotated[int, typer.Option(help="Side of the crops in pixels.", rich_help_panel=_TRAINING)]
_Batch = Annotated[int, typer.Option(help="Crops a step.", rich_help_panel=_TRAINING)]
_Steps = Annotated[int, typer.Option(help="In all.", rich_help_panel=_TRAINING)]
_Minutes = Annotated[float | None, typer.Option(help="Stop by then, saved.", rich_help_panel=_TRAINING)]
_Lr = Annotated[float, typer.Option(help="Learning rate.", rich_help_panel=_TRAINING)]
_LrEnd = Annotated[float, typer.Option(help="Share of it that is left at the end.", rich_help_panel=_TRAINING)]
_TvWeight = Annotated[float, typer.Option(help="Smoothness.", rich_help_panel=_TRAINING)]
_Seed = Annotated[int, typer.Option(help="Of weights and crops.", rich_help_panel=_TRAINING)]
_SaveEvery = Annotated[int, typer.Option(help="Steps between two saves.", rich_help_panel=_TRAINING)]


@style_app.command("train-fast", cls=Command)
def train_fast(
    style: Annotated[str, typer.Argument(help="The picture whose style the network learns.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The network: NAME.safetensors.", rich_help_panel=_FILES)],
    data: Annotated[str, typer.Option(help=_DATA, rich_help_panel=_FILES)] = "samples:",
    resume: _Resume = False,
    preview: _Preview = None,
    size: _Side = 256,
    style_size: Annotated[
        int | None, typer.Option(help="Longer side that the style is seen at.", rich_help_panel=_TRAINING)
    ] = None,
    batch: _Batch = 4,
    steps: _Steps = 40000,
    minutes: _Minutes = None,
    lr: _Lr = 1e-3,
    lr_end: _LrEnd = 1.0,
    widths: Annotated[
        str, typer.Option(help="Channels of the network's three sizes.", rich_help_panel=_TRAINING)
    ] = "32,64,128",
    blocks: Annotated[int, typer.Option(help="Its residual blocks.", rich_help_panel=_TRAINING)] = 5,
    content_weight: Annotated[
        float | None, typer.Option(help="Default: 1; 1e5 with VGG-16.", rich_help_panel=_TRAINING)
    ] = None,
    style_weight: Annotated[
        float | None, typer.Option(help="Default: 1; 1e10 with VGG-16.", rich_help_panel=_TRAINING)
    ] = None,
    tv_weight: _TvWeight = 0.0,
    seed: _Seed = 0,
    save_every: _SaveEvery = 500,
    weights: Annotated[
        str, typer.Option(help="Encoder: default, a file, or vgg16.", rich_help_panel=NETWORKS)
    ] = "default",
    preprocessing: Preprocessing = None,
    device: Device = "auto",
) -> None:
    """Train a network that paints any picture in one style, in one pass.

    Example: imgops style train-fast samples:coffee --data FOLDER -o coffee.safetensors

    Then: imgops style PICTURE coffee.safetensors --method fast. Ctrl-C saves; --resume continues.
    """
    from ..style.settings import FastTraining
    from .style import parse_numbers
    from .style_training import train_fast as train

    sizes = parse_numbers("--widths", widths) or ()
    if len(sizes) != 3 or any(int(width) != width for width in sizes):
        raise ValueError(f"--widths takes three numbers like 32,64,128; got {widths!r}")
    settings = FastTraining(
        size=size,
        style_size=style_size,
        batch=batch,
        steps=steps,
        minutes=minutes,
        lr=lr,
        lr_end=lr_end,
        widths=(int(sizes[0]), int(sizes[1]), int(sizes[2])),
        blocks=blocks,
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=tv_weight,
        seed=seed,
        save_every=save_every,
    )
    train(style, data, out, weights, preprocessing, settings, resume=resume, device=device, preview=preview)


@style_app.command("train-adain", cls=Command)
def train_adain(
    out: Annotated[str, typer.Option("--out", "-o", help="The decoder: NAME.safetensors.", rich_help_panel=_FILES)],
    contents: Annotated[str, typer.Option(help=_DATA, rich_help_panel=_FILES)] = "samples:",
    styles: Annotated[str, typer.Option(help=_DATA, rich_help_panel=_FILES)] = "samples:",
    resume: _Resume = False,
    preview: _Preview = None,
    size: _Side = 256,
    batch: _Batch = 8,
    steps: _Steps = 160000,
    minutes: _Minutes = None,
    lr: _Lr = 1e-4,
    lr_decay: Annotated[
        float, typer.Option(help="The rate of step i is divided by 1 + this * i.", rich_help_panel=_TRAINING)
    ] = 5e-5,
    lr_end: _LrEnd = 1.0,
    content_weight: Annotated[float, typer.Option(help="Of the content loss.", rich_help_panel=_TRAINING)] = 1.0,
    style_weight: Annotated[float, typer.Option(help="Of the style loss.", rich_help_panel=_TRAINING)] = 10.0,
    identity_weight: Annotated[
        float, typer.Option(help="Of the pixels where a crop is its own style.", rich_help_panel=_TRAINING)
    ] = 0.0,
    block: Annotated[
        int,
        typer.Option(
            help="Of the encoder, whose features are normalised: 4 for relu4_1; 3 keeps more of the content.",
            rich_help_panel=_TRAINING,
        ),
    ] = 4,
    tv_weight: _TvWeight = 0.0,
    seed: _Seed = 0,
    save_every: _SaveEvery = 500,
    weights: Annotated[str, typer.Option(help="Encoder: default, or a file.", rich_help_panel=NETWORKS)] = "default",
    preprocessing: Preprocessing = None,
    device: Device = "auto",
) -> None:
    """Train a decoder that gives any picture the style of any other, in one pass.

    Example: imgops style train-adain --contents PHOTOS --styles PAINTINGS -o decoder.safetensors

    Then: imgops style PICTURE STYLE --method adain --decoder decoder.safetensors. Ctrl-C saves; --resume continues.
    """
    from ..style.settings import AdaINTraining
    from .style_training import train_adain as train

    settings = AdaINTraining(
        size=size,
        batch=batch,
        steps=steps,
        minutes=minutes,
        lr=lr,
        lr_decay=lr_decay,
        lr_end=lr_end,
        content_weight=content_weight,
        style_weight=style_weight,
        identity_weight=identity_weight,
        block=block,
        tv_weight=tv_weight,
        seed=seed,
        save_every=save_every,
    )
    train(contents, styles, out, weights, preprocessing, settings, resume=resume, device=device, preview=preview)
