"""The command ``imgops style`` and its trainings, with their options."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class DefaultCommand(TyperGroup):
    """A group whose first command is meant where none is named, and whose help is that command's: ``imgops style A B``
    beside ``imgops style train-fast``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else ["", *(args or ["--help"])])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name or next(iter(self.commands)))


style_app = typer.Typer(
    cls=DefaultCommand,
    help="Give pictures, folders or videos the style of others; train-fast and train-adain train networks for it.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_OUTPUT, _STYLE, _OPTIMIZE, _PARTS, _VIDEO, _MACHINE, _NETWORKS = (
    "Result", "Style", "Method optimize", "Parts and colours", "Video", "Machine", "Networks"
)  # fmt: skip


@style_app.command("transfer")
def transfer(
    content: Annotated[str, typer.Argument(help="A picture, a folder of them, a video or GIF, or samples:NAME.")],
    styles: Annotated[
        list[str],
        typer.Argument(
            help="Pictures whose style it gets, mixed; or a folder: one result for each. Networks for fast."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="PNG, JPEG, TIFF, GIF or video, or a folder. [dim]\\[default: CONTENT-STYLE.png][/]",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Longer side in pixels. [dim]\\[default: the content's, at most 512][/]",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise of --init noise.", rich_help_panel=_OUTPUT)] = 0,
    preview: Annotated[
        str | None, typer.Option(help="A picture file that shows the work as it goes.", rich_help_panel=_OUTPUT)
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG.", rich_help_panel=_OUTPUT)] = 95,
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
        float, typer.Option(help="Size of the styles in sizes of the result, of optimize.", rich_help_panel=_STYLE)
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
    steps: Annotated[int, typer.Option(help="At the first size.", rich_help_panel=_OPTIMIZE)] = 300,
    later_steps: Annotated[int, typer.Option(help="At each larger size.", rich_help_panel=_OPTIMIZE)] = 150,
    first_size: Annotated[int, typer.Option(help="Longer side to begin at.", rich_help_panel=_OPTIMIZE)] = 128,
    content_weight: Annotated[
        float, typer.Option(help="More keeps more of the content.", rich_help_panel=_OPTIMIZE)
    ] = 0.05,
    content_layers: Annotated[
        str | None, typer.Option(help="As relu4_2=1; default for a VGG.", rich_help_panel=_OPTIMIZE)
    ] = None,
    style_layers: Annotated[
        str | None, typer.Option(help="As relu1_1=256,relu2_1=64; default for a VGG.", rich_help_panel=_OPTIMIZE)
    ] = None,
    style_loss: Annotated[str, typer.Option(help="gram or wasserstein.", rich_help_panel=_OPTIMIZE)] = "gram",
    normalization: Annotated[
        str, typer.Option(help="Of the losses: relative, chw, hw, none or gatys.", rich_help_panel=_OPTIMIZE)
    ] = "relative",
    tv_weight: Annotated[float, typer.Option(help="Smoothness.", rich_help_panel=_OPTIMIZE)] = 0.5,
    optimizer: Annotated[str, typer.Option(help="adam or lbfgs.", rich_help_panel=_OPTIMIZE)] = "adam",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate: 0.02 for adam, 1 for lbfgs.", rich_help_panel=_OPTIMIZE)
    ] = None,
    init: Annotated[str, typer.Option(help="content, noise or style.", rich_help_panel=_OPTIMIZE)] = "content",
    average: Annotated[
        float, typer.Option(help="Decay of the average of the iterates; 0: the last.", rich_help_panel=_OPTIMIZE)
    ] = 0.98,
    frame_steps: Annotated[
        int, typer.Option(help="Steps of optimize for each frame after the first.", rich_help_panel=_VIDEO)
    ] = 40,
    weights: Annotated[
        str,
        typer.Option(
            help="Encoder: default, a file, or vgg19, vgg16 (downloaded, checked).", rich_help_panel=_NETWORKS
        ),
    ] = "default",
    decoder: Annotated[
        str, typer.Option(help="Of adain: default, or a file that goes with --weights.", rich_help_panel=_NETWORKS)
    ] = "default",
    pooling: Annotated[str | None, typer.Option(help="max, average or l2.", rich_help_panel=_NETWORKS)] = None,
    padding: Annotated[
        str | None, typer.Option(help="zeros, reflect, replicate or circular.", rich_help_panel=_NETWORKS)
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="As 4GB: optimize works in tiles to stay below; same result.", rich_help_panel=_MACHINE),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.", rich_help_panel=_MACHINE)
    ] = "auto",
) -> None:
    """Give a picture, a folder of them or a video the style of other pictures.

    Example: imgops style samples:chelsea samples:hubble -o cat.png --size 256

    The settings and the seed are kept in the result's metadata. Networks for the methods fast and adain are trained by
    imgops style train-fast and imgops style train-adain; each has its own --help.
    """
    from ..style.optimization import OptimizeSettings
    from ..style.transfer import TransferSettings
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
        content_weight=content_weight,
        tv_weight=tv_weight,
    )
    settings = TransferSettings(
        method=method,
        weights=weights,
        pooling=pooling,
        padding_mode=padding,
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
    run(
        Job(
            content=content,
            styles=tuple(styles),
            out=out,
            settings=settings,
            masks=tuple(mask or ()),
            style_masks=tuple(style_mask or ()),
            preview=preview,
            quality=quality,
        )
    )
