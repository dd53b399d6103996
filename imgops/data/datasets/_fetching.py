"""The places of shards: patterns become lists, and what comes by URL is fetched once and kept."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from pathlib import Path
from urllib.parse import urlparse

from ..._install import MissingPackage
from .._errors import DataError
from ..files import SCRAP, alone

#: environment variables: where fetched shards are kept; and whether a source may be a shell command
KEPT, PIPE = "IMGOPS_SHARDS", "IMGOPS_PIPE"
#: the schemes that are fetched without it
SCHEMES = ("http", "https", "s3", "gs", "hf", "ais", "file")
_EXTRA = "imgops[shards]"


def is_url(text: str) -> bool:
    """Whether shards at this place have to be fetched."""
    return "://" in text or _scheme(text) == "pipe"


def _scheme(place: str) -> str:
    """The scheme of a URL, as webdataset reads it."""
    return urlparse(place.strip()).scheme.lower()


def expand(text: str) -> list[str]:
    """The places that a pattern names, by webdataset's rules: ``shards-{0000..0009}.tar``, or several with ``::``.

    Raises:
        DataError: the pattern cannot be expanded.
        MissingPackage: it has braces or ``::``, and webdataset is not installed.
    """
    if "{" not in text and "::" not in text:
        return [text]
    try:
        from webdataset.shardlists import expand_urls
    except ModuleNotFoundError:
        raise MissingPackage(f"{text}: the package webdataset, which expands such patterns,", _EXTRA) from None
    try:
        return list(dict.fromkeys(expand_urls(text)))
    except (AssertionError, ValueError) as error:
        # webdataset asserts that the environment has the variables that a pattern names
        raise DataError(f"{text}: this pattern cannot be expanded ({error})") from None


def local(place: str) -> Path:
    """The file of a shard; what is at a URL is fetched unless it was before.

    Raises:
        DataError: it cannot be fetched, or a command would have to run that is not allowed.
        MissingPackage: it is a URL, and webdataset is not installed.
    """
    if not is_url(place):
        return Path(place)
    name = re.sub(r"[^\w.-]+", "_", place.rpartition("/")[2])[-64:]
    path = _kept() / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}-{name}"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_name(f".{path.name}.lock")):
        # another process may have fetched it since
        if path.exists():
            return path
        if _scheme(place) not in SCHEMES and os.environ.get(PIPE) != "1":
            # the source of a run comes from its checkpoint, and loading one must run nothing
            raise DataError(
                f"{place}: pipe: and other schemes than {', '.join(SCHEMES)} may run a command of the shell; set "
                f"{PIPE}=1 to allow that"
            )
        _fetch(place, path)
    return path


def _kept() -> Path:
    if folder := os.environ.get(KEPT):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgops" / "shards"


def _fetch(url: str, path: Path) -> None:
    """Write what is at a URL to a file that is whole or absent."""
    try:
        from webdataset import gopen
    except ModuleNotFoundError:
        raise MissingPackage(f"{url}: the package webdataset, which fetches shards,", _EXTRA) from None
    # machines that share the folder each write a file of their own
    scrap = path.with_name(f"{SCRAP}{platform.node()}-{os.getpid()}-{path.name}")
    try:
        with gopen(url, "rb") as stream, open(scrap, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scrap, path)
    except FileNotFoundError as error:
        if url.startswith("pipe:") or error.filename in (str(scrap), str(path)):
            raise
        raise DataError(f"{url}: cannot be fetched; the program {error.filename} is not installed") from None
    except OSError as error:
        if error.errno is not None:
            raise
        # so webdataset says that its program failed
        status = re.search(r"exit (\d+) ", str(error))
        by = "the command" if url.startswith("pipe:") else "curl"
        how = f"{by} ended with status {status[1]}" if status else str(error)
        raise DataError(f"{url}: cannot be fetched; {how}") from None
    except ValueError as error:
        raise DataError(f"{url}: cannot be fetched; {error}") from None
    finally:
        scrap.unlink(missing_ok=True)
