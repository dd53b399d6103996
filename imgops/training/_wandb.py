"""Records and sheets of a run at Weights & Biases, where it is installed and asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from .._install import MissingPackage
from ..data.files import write_file

#: the file in a run's folder that names its run there, so that it is continued, too
ID = "wandb-id.txt"


def load_wandb() -> Any:
    """The module.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        # of what the package itself needs Python's own error tells
        if error.name != "wandb":
            raise
        raise MissingPackage("--wandb: the package wandb", "wandb") from None
    return wandb


class WandB:
    """A run there, a new one or the one that the run's folder names.

    Args:
        project: its name there.
        out: the run's folder.
        settings: what it shows as the run's configuration.

    Raises:
        ValueError: it refuses, or cannot be reached.
    """

    def __init__(self, project: str, out: Path, settings: Mapping[str, Any]) -> None:
        self._wandb = load_wandb()
        path = out / ID
        known = {"id": path.read_text().strip(), "resume": "allow"} if path.exists() else {}
        try:
            self._run = self._wandb.init(
                project=project, name=out.resolve().name, dir=str(out), config=dict(settings), **known
            )
        except Exception as error:
            # its errors, as for want of a login, are plain exceptions
            raise ValueError(f"--wandb {project}: {error}") from error
        # a run that is continued may begin before its last record, where steps of wandb's own would be refused
        self._run.define_metric("*", step_metric="images")
        write_file(path, f"{self._run.id}\n".encode())

    def record(self, measured: Mapping[str, float]) -> None:
        """Add a record."""
        self._run.log(dict(measured))

    def picture(self, name: str, image: Image.Image, images: int) -> None:
        """Add a picture."""
        self._run.log({name: self._wandb.Image(image.convert("RGB")), "images": images})

    def close(self, failed: bool) -> None:
        """End it, and say whether the run failed."""
        self._run.finish(exit_code=int(failed))
