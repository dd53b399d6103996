"""The public surface of imgops: names, parameters with their defaults, commands with their options; one a line.

``python -m tests.public_surface`` writes it anew into ``public_surface.txt``, whose lines none may be lost of
(test_public_surface.py).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer.main

from imgops.cli import app
from imgops.cli.train import TrainCommand, command_of
from imgops.training.recipes import RECIPES
from tests.earlier_places import MOVED

RECORD = Path(__file__).with_name("public_surface.txt")
#: packages whose ``__all__`` is public, and the one whose modules are, with what is defined in them
PACKAGES = ("imgops", "imgops.data", "imgops.dream", "imgops.metrics", "imgops.nn", "imgops.style", "imgops.training")
MODULES = "imgops.models"


def surface() -> Iterator[str]:
    """Every line."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        for public in package.__all__:
            yield from _described(f"{name}.{public}", getattr(package, public))
    for module in _public_modules(MODULES):
        for public in _public_names(module):
            yield from _described(f"{module.__name__}.{public}", getattr(module, public))
    yield from _commands("imgops", typer.main.get_command(app))


def _public_modules(package: str) -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            yield importlib.import_module(info.name)


def _public_names(module: ModuleType) -> list[str]:
    """What is defined in a module, or in those that an earlier place passes names on from; and what it exports."""
    homes = MOVED.get(module.__name__, [module.__name__])
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", None) in homes]
    return [name for name in (*defined, *getattr(module, "__all__", ())) if not name.startswith("_")]


def _described(name: str, value: Any) -> Iterator[str]:
    yield name
    if not callable(value):
        return
    yield from _parameters(name, value)
    if inspect.isclass(value):
        # a class has what its bases give it, as far as they are ours
        ours = [base for base in value.__mro__ if base.__module__.startswith("imgops")]
        for public, member in {name: member for base in reversed(ours) for name, member in vars(base).items()}.items():
            shown = inspect.isfunction(member) or isinstance(member, (property, classmethod))
            if shown and not public.startswith("_"):
                yield f"{name}.{public}"
                if inspect.isfunction(member):
                    yield from _parameters(f"{name}.{public}", member)


def _parameters(name: str, function: Any) -> Iterator[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return
    for place, parameter in enumerate(parameters):
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        # the address of an object, as of a function, is another in each process
        value = re.sub(r" at 0x\w+", "", repr(parameter.default))
        default = "" if parameter.default is parameter.empty else f" = {value}"
        former = getattr(function, "former_names", {})
        for word in (parameter.name, *(old for old, new in former.items() if new == parameter.name)):
            yield f"{name}({place if positional else '*'}: {word}{default})"


def _commands(path: str, command: Any) -> Iterator[str]:
    yield path
    for parameter in command.params:
        for word in (*parameter.opts, *parameter.secondary_opts):
            yield f"{path} {word}"
        if parameter.default is not None and not callable(parameter.default):
            yield f"{path} {parameter.opts[0]} = {parameter.default!r}"
    if isinstance(command, TrainCommand) and command.recipe == RECIPES[0]:
        for recipe in RECIPES[1:]:
            yield from _commands(f"{path} --recipe {recipe}", command_of(recipe))
    for name, other in getattr(command, "commands", {}).items():
        yield from _commands(f"{path} {name}", other)


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in sorted(set(surface()))))
