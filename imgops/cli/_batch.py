"""Many sources at once: what a folder holds, a name for each result, and the others where one fails."""

from __future__ import annotations

import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import typer

from ..data.datasets.listing import describe_left_out
from ..data.pictures import Picture, read_picture, read_settings
from ..data.pictures.formats import picture_suffixes
from ..data.pictures.samples import PREFIX
from ..data.video import VIDEO_ENDINGS, WRITTEN_ENDINGS, is_moving, is_video, read_video_settings
from ..data.video.animation import count_frames
from ._pictures import check_picture_ending, is_folder

#: what a source that cannot be used raises, or a result that cannot be written; ImportError for want of PyAV
_FAILURES = (OSError, ValueError, RuntimeError, MemoryError, ImportError)
#: the exit status where some of several results could not be made
PARTLY = 1


def is_file(source: str) -> bool:
    """Whether a source is the name of a file or folder, not that of a sample."""
    return not source.startswith(PREFIX)


def find_files(source: str, endings: Collection[str] | None = None) -> list[str]:
    """The files of a folder, without those of folders inside, or the source itself. What is left out is said.

    Args:
        source: a file, a folder or a sample.
        endings: of the files that count; None: those of pictures and videos.

    Raises:
        OSError: the folder cannot be read.
        ValueError: it has no such file.
    """
    if not is_file(source) or not Path(source).is_dir():
        return [source]
    wanted = {*picture_suffixes(), *VIDEO_ENDINGS} if endings is None else endings
    found, left_out = [], Counter[str]()
    for path in sorted(Path(source).iterdir()):
        if path.name.startswith("."):
            left_out["hidden"] += 1
        elif path.is_dir():
            left_out["folder"] += 1
        elif path.suffix.lower() in wanted and path.is_file():
            found.append(str(path))
        else:
            left_out[path.suffix.lower() or "no ending"] += 1
    if not found:
        examples = ".png, .jpg, .webp or as other pictures do" if ".png" in wanted else ", ".join(sorted(wanted))
        raise ValueError(
            f"{source}: there is nothing in this folder that ends in {examples}{describe_left_out(left_out)}"
        )
    if left_out:
        warnings.warn(f"{source}: {len(found)} taken{describe_left_out(left_out)}", stacklevel=1)
    return found


def without_results(contents: Sequence[str], results: Callable[[Sequence[str]], Sequence[Path]]) -> list[str]:
    """The contents that are no results of the others, as of an earlier run into the same folder; others are said.

    Args:
        contents: the files of a folder.
        results: where those of such contents go.
    """
    made = {os.path.realpath(path) for path in results(contents)}
    kept = [content for content in contents if os.path.realpath(content) not in made]
    if kept and len(kept) < len(contents):
        warnings.warn(f"{len(contents) - len(kept)} of the files are results of an earlier run, left out", stacklevel=1)
    return kept or list(contents)


def moves(source: str) -> bool:
    """Whether a source is a video, or an animation of several frames; one that cannot be read by its name."""
    try:
        return is_file(source) and is_moving(source)
    except OSError:
        return is_video(source)


def moving_ending(source: str) -> str:
    """The ending of a moving result of a moving source: its own where that is written."""
    suffix = Path(source).suffix.lower()
    return suffix if suffix in WRITTEN_ENDINGS else ".mp4" if suffix in VIDEO_ENDINGS else ".gif"


def read_still(source: str) -> Picture:
    """A picture; of a file with several frames or pages the first, which is said.

    Raises:
        OSError, DataError: as of :func:`~imgops.data.pictures.read_picture`.
    """
    picture = read_picture(source)
    if is_file(source) and (count := count_frames(Path(source))) > 1:
        warnings.warn(f"{source}: the first of {count} frames is taken", stacklevel=1)
    return picture


def result_names(sources: Sequence[Sequence[str]], tails: Sequence[str]) -> list[str]:
    """A name for each result: the stems of its sources and a tail; with the sources' endings where two would be the
    same on a file system that does not tell case, and with a number where that is not enough.

    >>> result_names([["a.png", "s.png"], ["a.JPG", "s.png"], ["b.png", "s.png"]], [".png"] * 3)
    ['a-png-s.png', 'a-JPG-s.png', 'b-s.png']
    """
    files = [[Path(part.removeprefix(PREFIX)) for part in parts] for parts in sources]
    plain = ["-".join(file.stem for file in parts) for parts in files]
    count = Counter((name + tail).lower() for name, tail in zip(plain, tails, strict=True))
    # how many files there are of each stem, among the first ones, the second ones, ...
    same = Counter((i, file.stem.lower()) for i, file in {pair for parts in files for pair in enumerate(parts)})
    taken: set[str] = set()
    names = []
    for parts, name, tail in zip(files, plain, tails, strict=True):
        if count[(name + tail).lower()] > 1:
            alike = [same[i, file.stem.lower()] > 1 for i, file in enumerate(parts)]
            name = "-".join(
                file.name.replace(".", "-") if more else file.stem for file, more in zip(parts, alike, strict=True)
            )
        choices = itertools.chain([name + tail], (f"{name}-{i}{tail}" for i in itertools.count(2)))
        names.append(next(choice for choice in choices if choice.lower() not in taken))
        taken.add(names[-1].lower())
    return names


def result_paths(
    out: str | None, sources: Sequence[Sequence[str]], tails: Sequence[str], here: bool = False
) -> list[Path]:
    """Where the result of each sources goes: that file, into that folder, or under a name here that is not taken; with
    ``here`` one that may be. In a folder a result of an earlier run is written anew; another file of its name is left
    alone.

    Raises:
        ValueError: one file for several results.
    """
    names = result_names(sources, tails)
    if out is None:
        return [Path(name) if here else _unused(Path(name)) for name in names]
    if is_folder(out):
        return [_unused(Path(out) / name, is_result) for name in names]
    if len(names) > 1:
        raise ValueError(f"--out must be a folder for {len(names)} results; got {out}")
    return [Path(out)]


def _unused(path: Path, replaced: Callable[[Path], bool] = lambda path: False) -> Path:
    """The path, or one with a number if a file is there, unless that is ``replaced``, or a video to go on with."""
    free = (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2))
    return next(
        choice
        for choice in itertools.chain([path], free)
        if not choice.exists() or frames_folder(choice).exists() or replaced(choice)
    )


def is_result(path: Path) -> bool:
    """Whether a file was made by a command of imgops, which its metadata tell."""
    try:
        settings = read_video_settings(path) if is_video(path) else read_settings(path)
    except (OSError, ValueError, ImportError):
        return False
    return bool(settings)


def frames_folder(out: Path) -> Path:
    """Where the frames of an unfinished video are kept."""
    return out.with_name(f"{out.name}.frames")


def check_moving(out: Path, source: str) -> bool:
    """Whether the result of a source moves. Of an animation that goes into a picture the first frame is taken.

    Raises:
        ValueError: an ending that is not written, or that of a picture for a video.
    """
    if moves(source):
        if out.suffix.lower() in WRITTEN_ENDINGS:
            return True
        if is_video(source) and not source.lower().endswith(".gif"):
            raise ValueError(f"--out must end in {', '.join(WRITTEN_ENDINGS)} for a video; got {out}")
    check_picture_ending(out)
    return False


def make_each(works: Iterator[tuple[str, Callable[[], None]]], count: int, stopped: Callable[[], bool]) -> None:
    """Do all works, and where one of several fails say why and do the others.

    Args:
        works: what each result is told by, and what makes it.
        count: how many there are.
        stopped: whether Ctrl-C was pressed, which ends it.

    Raises:
        KeyboardInterrupt: it was stopped.
        OSError, ValueError, RuntimeError, MemoryError, ImportError: what the only work raised.
        typer.Exit: some of several failed, with the status 1.
    """
    failed = 0
    for name, work in works:
        try:
            work()
        except _FAILURES as error:
            if count == 1:
                raise
            failed += 1
            reason = str(error).removeprefix(f"{name}: ")
            warnings.warn(f"{name} is left out: {reason}", stacklevel=1)
        if stopped():
            raise KeyboardInterrupt
    if failed:
        typer.echo(f"imgops: error: {failed} of {count} results could not be made", err=True)
        raise typer.Exit(PARTLY)
