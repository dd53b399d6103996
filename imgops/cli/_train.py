"""What ``imgops train`` says of its options before the work."""

from __future__ import annotations

from ..training.config import RunConfig
from ..training.processes import asked_for, is_first
from ._options import Given
from ._pictures import warn_of_idle


def tell_of_idle(given: Given, chosen: RunConfig, *, resume: bool, dry_run: bool, by_file: bool) -> None:
    """Warn, once in all processes, of given options that do nothing in a run.

    Args:
        given: the options.
        chosen: the settings that they made, not resolved.
        resume: whether a run is continued.
        dry_run: whether nothing is trained.
        by_file: whether a file gave settings.

    Raises:
        TypeError, ValueError: what :meth:`RunConfig.resolve` raises.
    """
    processes = asked_for()
    idle = chosen.resolve(processes).idle()
    if by_file and all(getattr(chosen, name) is not None for name in chosen.from_preset(processes)):
        idle["with --config, whose file has every setting"] = ("preset",)
    if not dry_run:
        idle["without --dry-run"] = ("estimate",)
    if dry_run or resume:
        idle["with --dry-run" if dry_run else "with --resume"] = ("check_data",)
    for why, names in idle.items() if is_first() else ():
        warn_of_idle(given, names, why)
