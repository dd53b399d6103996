"""Checkpoints: folders of safetensors and JSON that are whole or absent, and never run code when loaded."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .._settings import present_names
from ..data.files import SCRAP, naming, write_file
from .config import FIRST, RECIPE
from .recipes import config_class, recipe_class
from .recipes._generator import GeneratorRecipe

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{10})")
_BEST_NAME = re.compile(r"best-(\d{10})")
#: what every config.json of a checkpoint says, beside the settings
ALWAYS = {"seen", "steps", "c_dim", "class_names"}
#: files of a checkpoint: what it is of, and what it is the best by
CONFIG, BEST = "config.json", "best.json"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit; the message is one line that names the file."""


def _sync_folder(path: Path) -> None:
    # a new name in a folder reaches the disk only once the folder is synced; Windows has no such call
    if os.name != "nt":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(out: Path) -> None:
    """Remove what was left behind by a kill in the middle of a save or a removal."""
    for path in out.glob(f"{SCRAP}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """A folder to write, which takes its place when the block ends; where that fails nothing of it stays."""
    scrap = final.with_name(f"{SCRAP}{final.name}")
    with naming(final):
        try:
            scrap.mkdir(parents=True)
            yield scrap
            _sync_folder(scrap)
            os.replace(scrap, final)
        except BaseException:
            # on a full disk what was written of it takes the room that others need
            shutil.rmtree(scrap, ignore_errors=True)
            raise
    _sync_folder(final.parent)


def save(out: Path, seen: int, tensors: dict[str, dict[str, Tensor]], meta: dict[str, Any], keep: int) -> Path:
    """Write ``out/checkpoint-<seen>`` completely or not at all, then remove all but the newest ``keep``.

    Args:
        out: the run's folder.
        seen: real images shown so far; names the checkpoint and orders it.
        tensors: for each file ``<name>.safetensors``, its tensors.
        meta: what goes into config.json.
        keep: how many checkpoints stay.

    Returns:
        The checkpoint's folder. It is written beside its place, synced to the disk and then renamed.

    Raises:
        OSError: it cannot be written, for want of space or of a right; nothing of it stays.
    """
    final = checkpoint_path(out, seen)
    if final.exists():
        return final
    sweep(out)
    with _whole(final) as scrap:
        for name, table in tensors.items():
            # tensors are cloned, because safetensors refuses tensors that share memory
            plain = {key: t.detach().cpu().clone(memory_format=torch.contiguous_format) for key, t in table.items()}
            write_file(scrap / f"{name}.safetensors", safetensors.torch.save(plain))
        write_file(scrap / CONFIG, json.dumps({"format": FORMAT, "seen": seen, **meta}, indent=2).encode())
    for old in checkpoints(out)[:-keep]:
        # rename first, so that a kill leaves no partial checkpoint under its name
        os.replace(old, out / f"{SCRAP}{old.name}")
    sweep(out)
    return final


def keep_best(checkpoint: Path, figure: str, value: float, of: str = "") -> Path:
    """Copy a checkpoint to ``best-<images>`` beside it, whole or not at all, in place of the best so far.

    Args:
        checkpoint: in the run's folder.
        figure: the name of what it is best by, smaller being better.
        value: of the figure.
        of: what it was measured on; figures of other things do not compare.
    """
    out = checkpoint.parent
    final = out / checkpoint.name.replace("checkpoint", "best", 1)
    sweep(out)
    if not final.exists():
        with _whole(final) as scrap:
            for path in checkpoint.iterdir():
                write_file(scrap / path.name, path.read_bytes())
            write_file(scrap / BEST, json.dumps({"figure": figure, "value": value, "of": of}).encode())
    for other in bests(out):
        if other != final:
            os.replace(other, out / f"{SCRAP}{other.name}")
    sweep(out)
    return final


def is_best(out: Path, figure: str, value: float, of: str = "") -> bool:
    """Whether no checkpoint that is kept as the best has as small a figure of that name, measured on the same."""
    found = map(_best_by, bests(out))
    return not any(name == figure and kept <= value and on in (of, None) for name, kept, on in found)


def _best_by(best: Path) -> tuple[str, float, str | None]:
    """The figure that it is the best by, its value, and what that was measured on, None where an earlier version has
    not said; an infinite one of no name where it is damaged."""
    try:
        kept = json.loads((best / BEST).read_text())
        return str(kept["figure"]), float(kept["value"]), kept.get("of")
    except (OSError, ValueError, KeyError, TypeError):
        return "", math.inf, None


def bests(out: Path) -> list[Path]:
    """The checkpoints that are kept as the best: one, or two after a kill while one took the other's place."""
    return sorted(p for p in out.glob("best-*") if _BEST_NAME.fullmatch(p.name) and p.is_dir())


def checkpoint_path(out: Path, seen: int) -> Path:
    """Where the checkpoint after that many images is, or would be."""
    return out / f"checkpoint-{seen:010d}"


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(p for p in out.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir())


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The checkpoint at ``path``, or the newest checkpoint if ``path`` is the folder of a run.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    # a run's folder may hold its network, too
    found = checkpoints(path) if path.is_dir() else []
    if not found and (path / CONFIG).is_file() and any(path.glob("*.safetensors")):
        return path
    if not found:
        raise CheckpointError(f"{path}: neither a checkpoint nor the folder of a run with one")
    return found[-1]


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """Read config.json of a checkpoint, with its ``config`` as the settings of its recipe.

    Raises:
        CheckpointError: it is missing or damaged, or another version of imgops wrote it.
    """
    path = checkpoint / CONFIG
    try:
        meta = json.loads(path.read_text(), object_hook=present_names)
        if meta["format"] != FORMAT:
            raise CheckpointError(f"{path}: has format {meta['format']}; this version of imgops reads format {FORMAT}")
        if missing := ALWAYS - meta.keys():
            raise CheckpointError(f"{path}: damaged, it lacks {min(missing)}")
        values = dict(meta["config"])
        settings = config_class(values.pop(RECIPE, FIRST))
        unknown = set(values) - {field.name for field in dataclasses.fields(settings)}
        if unknown:
            raise CheckpointError(f"{path}: has a setting that this version of imgops does not know: {min(unknown)}")
        return {**meta, "config": settings.recorded(values)}
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({type(error).__name__}: {error})") from None


def read_tensors(checkpoint: Path, name: str, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of ``<name>.safetensors``.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = checkpoint / f"{name}.safetensors"
    try:
        return safetensors.torch.load_file(path, device=device)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error})") from None


def load_into(module: torch.nn.Module, checkpoint: Path, name: str) -> None:
    """Load ``<name>.safetensors`` into a network; every name and shape must match.

    Raises:
        CheckpointError: the file is missing or damaged, or is not of this network.
    """
    tensors = read_tensors(checkpoint, name)
    own = module.state_dict()
    wrong = [
        k for k in sorted({*own, *tensors}) if k not in own or k not in tensors or own[k].shape != tensors[k].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint / name}.safetensors: does not fit the network of its {CONFIG} at {wrong[0]}"
        )
    module.load_state_dict(tensors)


def network_file(checkpoint: Path) -> Path:
    """The file of the network that a run made.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    return checkpoint / f"{recipe_class(read_meta(checkpoint)['config'].recipe).result}.safetensors"


def load_generator(path: str | os.PathLike[str], device: str = "cpu") -> tuple[Any, dict[str, Any]]:
    """The generator that a run made, from a checkpoint or a run's newest, ready to use, and what config.json says.

    Args:
        path: a checkpoint, or the folder of a run.
        device: where to put it.

    Returns:
        (of StyleGAN2 G_ema, the averaged :class:`imgops.models.stylegan2.Generator`, in eval mode; {"config": the
        recipe's settings, "seen": int, "class_names": list of str, "c_dim": int, ...}).

    Raises:
        CheckpointError: nothing usable there, or what makes no pictures of random numbers; names the file.
    """
    checkpoint = find_checkpoint(path)
    meta = read_meta(checkpoint)
    recipe = recipe_class(meta["config"].recipe)
    if not issubclass(recipe, GeneratorRecipe):
        raise CheckpointError(f"{checkpoint}: is of the recipe {meta['config'].recipe}, which makes no generator")
    network = recipe.finished(meta["config"], meta["c_dim"])
    load_into(network, checkpoint, recipe.result)
    return network.to(device).eval().requires_grad_(False), meta
