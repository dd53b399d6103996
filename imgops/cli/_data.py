"""The work of ``imgops data``: a bar while it runs, and what came of it."""

from __future__ import annotations

import os

import typer
from rich.console import Console

from ..data._errors import printable
from ..data.datasets.listing import describe_left_out
from ..data.preparing.prepare import Prepared, beside, prepare_dataset
from ..training._progress import Bar
from ._batch import PARTLY
from ._options import Given
from ._pictures import warn_of_idle
from ._quiet import say, tell_error
from .data import Job

#: number of classes without a picture that the summary names
_SHOWN = 5


def prepare(job: Job, given: Given) -> None:
    """Make the dataset, and say what is in it.

    Raises:
        KeyboardInterrupt: after Ctrl-C; a line says how to go on.
        typer.Exit: some pictures could not be used, with the status 1.
        OSError, ValueError, ImportError: as of :func:`~imgops.data.prepare_dataset`.
    """
    if job.settings.crop != "boxes":
        warn_of_idle(given, ("margin",), "without --crop boxes")
    if job.settings.format == "png":
        warn_of_idle(given, ("quality",), "with --format png")
    try:
        made = _with_bar(job)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on where it was", err=True)
        raise
    say(_summary(made))
    if made.refused:
        count, report = len(made.refused), beside(made.out, "refused")
        tell_error(f"{count:,} picture{'' if count == 1 else 's'} could not be used; {report} says why")
        raise typer.Exit(PARTLY)


def _with_bar(job: Job) -> Prepared:
    console = Console(stderr=True)
    processes = (os.cpu_count() or 1) if job.workers is None else job.workers
    with Bar(f"preparing {job.out}", console, disable=not console.is_terminal, transient=True) as bar:

        def tell(done: int, count: int | None, refused: int) -> None:
            of = "" if count is None else f" of {count:,}"
            state = f"{refused:,} refused" if refused else ""
            bar.show(None if count is None else done / count, f"{done:,}{of}", state)

        return prepare_dataset(job.source, job.out, job.settings, processes=processes, tell=tell)


def _summary(made: Prepared) -> str:
    """What came of it, in one line."""
    if made.again:
        return f"{made.out} is finished already"
    classes = len(made.class_names)
    parts = [f"{made.count:,} picture{'' if made.count == 1 else 's'}"]
    parts += [f"{classes:,} class{'' if classes == 1 else 'es'}"] if classes else []
    lost = ", ".join([*made.lost[:_SHOWN], *([f"... ({len(made.lost):,} in all)"] if len(made.lost) > _SHOWN else [])])
    parts += [f"no picture of {lost}"] if lost else []
    parts += [f"{len(made.refused):,} refused ({beside(made.out, 'refused')})"] if made.refused else []
    alike = {"the same as another": made.duplicates, "that look like another": made.similar}
    found = " and ".join(f"{len(pairs):,} {how}" for how, pairs in alike.items() if pairs)
    parts += [f"{found} ({beside(made.out, 'duplicates')})"] if found else []
    return printable(f"{made.out}: {', '.join(parts)}{describe_left_out(made.left_out)}")
