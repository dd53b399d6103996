"""Many sources at once: the files of a folder, a name for each result, and going on where one of them fails."""

from __future__ import annotations

import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import typer

from ..data.datasets.listing import describe_left_out
from ..data.pictures import read_settings
from ..data.pictures.formats import picture_suffixes
from ..data.pictures.samples import PREFIX
from ..data.video import VIDEO_ENDINGS, WRITTEN_ENDINGS, is_moving, is_video, read_video_settings
from ._pictures import check_picture_ending, is_folder
from ._quiet import tell_error

#: what is raised for a source that cannot be used or a result that cannot be written; ImportError where PyAV is missing
_FAILURES = (OSError, ValueError, RuntimeError, MemoryError, ImportError)
#: the exit status where some of several results could not be made
PARTLY = 1


def is_file(source: str) -> bool:
    """Whether a source is the name of a file or folder, not that of a sample."""
    return not source.startswith(PREFIX)


def find_files(source: str, endings: Collection[str] | None = None) -> list[str]:
    """The files of a folder, without those of folders inside; or the source itself. A warning tells what is left out.

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
    """The contents without results of the others, such as those of an earlier run into the same folder, of which a
    warning tells.

    Args:
        contents: the files of a folder.
        results: gives the files that the results of such contents are written to.
    """
    made = {os.path.realpath(path) for path in results(contents)}
    kept = [content for content in contents if os.path.realpath(content) not in made]
    if kept and len(kept) < len(contents):
        warnings.warn(f"{len(contents) - len(kept)} of the files are results of an earlier run, left out", stacklevel=1)
    return kept or list(contents)


def moves(source: str) -> bool:
    """Whether a source is a video or an animation of several frames; of a file that cannot be read the name decides."""
    try:
        return is_file(source) and is_moving(source)
    except OSError:
        return is_video(source)


def moving_ending(source: str) -> str:
    """The ending that the result of a moving source gets: the source's own where such files can be written."""
    suffix = Path(source).suffix.lower()
    return suffix if suffix in WRITTEN_ENDINGS else ".mp4" if suffix in VIDEO_ENDINGS else ".gif"


def result_names(sources: Sequence[Sequence[str]], tails: Sequence[str]) -> list[str]:
    """A name for each result: the stems of its sources and a tail. Names that differ in case alone get the sources'
    endings too, as some file systems do not tell case, and numbers where that is not enough.

    >>> result_names([["a.png", "s.png"], ["a.JPG", "s.png"], ["b.png", "s.png"]], [".png"] * 3)
    ['a-png-s.png', 'a-JPG-s.png', 'b-s.png']
    """
    files = [[Path(part.removeprefix(PREFIX)) for part in parts] for parts in sources]
    plain = ["-".join(file.stem for file in parts) for parts in files]
    count = Counter((name + tail).lower() for name, tail in zip(plain, tails, strict=True))
    # how often each stem occurs among the first sources, the second ones, and so on
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
    """The file of each result: ``out`` itself, a file in the folder ``out``, or one in this folder.

    A file that is there keeps its name, and the result gets a number, unless it is the result of an earlier run in the
    folder ``out``, which is replaced. With ``here`` files in this folder may be there.

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
    """The path, with a number if a file is there that is neither ``replaced`` nor a video that the job goes on with."""
    free = (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2))
    return next(
        choice
        for choice in itertools.chain([path], free)
        if not choice.exists() or frames_folder(choice).exists() or replaced(choice)
    )


def is_result(path: Path) -> bool:
    """Whether the metadata of a file tell that a command of imgops made it."""
    try:
        settings = read_video_settings(path) if is_video(path) else read_settings(path)
    except (OSError, ValueError, ImportError):
        return False
    return bool(settings)


def frames_folder(out: Path) -> Path:
    """Where the frames of an unfinished video are kept."""
    return out.with_name(f"{out.name}.frames")


def check_moving(out: Path, source: str) -> bool:
    """Whether the result of a source moves. An animation may also become a picture, of its first frame.

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
    """Do all works. Where one of several fails, a warning says why, and the others follow.

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
        tell_error(f"{failed} of {count} results could not be made")
        raise typer.Exit(PARTLY)
