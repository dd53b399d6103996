"""How this copy was installed, and the commands that install a missing part. Nothing here needs another package."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: {module: its package}, where the names differ
PACKAGES = {"PIL": "Pillow", "skimage": "scikit-image"}


def reinstall_command() -> str:
    """The command that builds the extensions anew, from what this copy was installed from."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "setup.py").is_file():
        return f"pip install --no-build-isolation -e {shlex.quote(str(checkout))}"
    source = _source()
    if source is not None and source.exists() and source.suffix != ".whl":
        return f"pip install --no-build-isolation {shlex.quote(str(source))}"
    return "pip install --no-build-isolation PATH (PATH: a checkout or an sdist of imgops; a wheel is not built again)"


def _source() -> Path | None:
    """The folder or file that pip installed from, as pip recorded it; None without a record."""
    # slow to import, and every start of the command line loads this module
    from importlib import metadata

    try:
        text = metadata.distribution("imgops").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlsplit(json.loads(text)["url"]) if text else None
    return Path(unquote(url.path)) if url is not None and url.scheme == "file" else None


class MissingPackage(ModuleNotFoundError):
    """A package that is needed for what was asked is not installed.

    Args:
        what: the start of the message, up to the package or what needs it: "the package x", "y: needs x, which".
        package: what pip installs.
    """

    def __init__(self, what: str, package: str) -> None:
        # extras are quoted, as shells read brackets
        super().__init__(f"{what} is not installed; install it with: pip install {shlex.quote(package)}")
        self.package = package


def missing_package(error: ModuleNotFoundError) -> MissingPackage:
    """The error about a package that is missing with its name and what installs it, of Python's own error too."""
    if isinstance(error, MissingPackage):
        return error
    module = (error.name or str(error)).partition(".")[0]
    package = PACKAGES.get(module, module)
    return MissingPackage(f"the package {package}", package)
