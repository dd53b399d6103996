"""The cache of what was computed of data, in the user's folder for such."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from .. import __version__
from ..data.files import write_file

#: environment variable: the cache's folder
FOLDER = "IMGOPS_CACHE_DIR"


def cache_folder() -> Path:
    """The folder ``IMGOPS_CACHE_DIR``; else ``imgops`` in ``XDG_CACHE_HOME``, or in ``~/.cache``."""
    if own := os.environ.get(FOLDER):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgops"


def cache_file(folder: Path, *key: Any) -> Path:
    """The file of what depends on the key, any values that JSON takes, and on the version of imgops."""
    digest = hashlib.sha256(json.dumps([__version__, *key]).encode()).hexdigest()
    return folder / f"features-{digest[:32]}.safetensors"


def read_cached(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None where there is none that can be read."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError):
        return None


def write_cached(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file, whole or not at all; a folder that cannot be written to is told by a warning."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, safetensors.torch.save(plain))
    except OSError as error:
        warnings.warn(f"statistics of the data cannot be kept in {path.parent} ({error})", stacklevel=2)
