"""The progress bar of all commands: on a narrow terminal the remaining time stays, and the rest is shortened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

#: longest name of the work that is shown, and the fewest characters to which a text may be shortened
NAME, LEAST = 24, 12


class _Field(ProgressColumn):
    """A field of the task, as it is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def render(self, task: Task) -> Text:
        return Text(task.fields[self.name])


class _Left(TimeRemainingColumn):
    """The time that is left: the field ``left`` if it is set, else an estimate from recent progress."""

    def render(self, task: Task) -> Text:
        text = Text(task.fields["left"]) if task.fields["left"] else super().render(task)
        return text.append(" left") if text else text


class Bar(Progress):
    """A bar of one task, ``what ... done ... bar ... elapsed ... left ... state``, as much of it as fits on a line.

    Args:
        what: what is worked on.
        console: where it is shown.
        disable: show nothing.
        transient: leave nothing when it is over.
    """

    def __init__(self, what: str, console: Console, *, disable: bool, transient: bool = False) -> None:
        self._what, self._done, self._state = _Field("what"), _Field("done"), _Field("state")
        self._bar, self._elapsed, self._left = BarColumn(bar_width=24), TimeElapsedColumn(), _Left()
        # the base class makes the first line before it sets its own console
        self._console = console
        columns = self._what, self._done, self._bar, self._elapsed, self._left, self._state
        super().__init__(*columns, console=console, disable=disable, transient=transient)
        name = what if len(what) <= NAME else f"{what[: NAME - 1]}…"
        self._task = self.add_task("", total=None, what=name, done="", left="", state="")

    def show(self, share: float | None, done: str = "", state: str = "", left: str = "") -> None:
        """Show the share that is done (None: unknown) and texts on the bar."""
        known: dict[str, Any] = {} if share is None else {"completed": min(max(share, 0.0), 1.0), "total": 1.0}
        self.update(self._task, **known, done=done, state=state, left=left)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """The bar as one line of the columns that fit, the most important first; text columns may be shortened."""
        shown = [task for task in tasks if task.visible]
        cells: dict[ProgressColumn, list[Any]] = {
            column: [column(task) for task in shown] for column in self.columns if isinstance(column, ProgressColumn)
        }
        room, widths = self._console.width, dict[ProgressColumn, int]()
        for column in (self._left, self._done, self._state, self._what, self._bar, self._elapsed):
            free = room - bool(widths)
            if column is self._state:
                cells[column] = [_whole_parts(cell, free) for cell in cells[column]]
            wanted = max((self._console.measure(cell).maximum for cell in cells[column]), default=0)
            if 0 < wanted <= free or (column in (self._done, self._state) and wanted and free >= LEAST):
                widths[column] = min(wanted, free)
                room = free - widths[column]
        columns = [column for column in cells if column in widths]
        table = Table.grid(
            *(Column(width=widths[column], no_wrap=True, overflow="ellipsis") for column in columns), padding=(0, 1)
        )
        for row in zip(*(cells[column] for column in columns), strict=True):
            table.add_row(*row)
        return table


def _whole_parts(state: Text, width: int) -> Text:
    """As many parts of a state, divided by two spaces, as fit, but at least the first."""
    text = state.plain
    while len(text) > width and "  " in text:
        text = text.rpartition("  ")[0]
    return Text(text)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as ``1:02:03``; negative times are shown as zero."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def about(seconds: float) -> str:
    """A time in words: ``40 seconds``, ``12 minutes``, ``373 hours``."""
    for size, unit in (1, "seconds"), (60, "minutes"):
        if seconds < 90 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:,.{0 if seconds > 36000 else 1}f} hours"
