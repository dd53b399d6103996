"""Options made of dataclasses: what a command gets, and what its help says."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from imgops._settings import FORMER_NAMES, Bounds, Choice, check, same_as, setting
from imgops.cli._help import Command
from imgops.cli._options import Given, options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    steps: int = setting(dataclasses.MISSING, "Work", "In all.", allowed=Bounds(1, most=9))
    size: int = 512

    def __post_init__(self) -> None:
        check(self, "Base: ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Base):
    steps: int = 3
    widths: tuple[int, ...] = setting((1, 2, 3), "Work", "Of layers.")
    mirror: bool = setting(False, "Work", "Both ways.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    place: Annotated[str, typer.Argument(help="Where.")]
    names: Annotated[list[str], typer.Option("--name", "-n", help="Of all.")] = dataclasses.field(default_factory=list)
    size: int | None = setting(None, "Result", "Of the result.", "the picture's", flag="--side")
    inner: Inner
    rate: float = setting(0.5, "Result", "How fast.")
    count: int = same_as(Inner, "steps", panel="Result", help="Again.")
    time: float | None = setting(None, "Result", "How long.", allowed=Bounds(0, above=True))
    pace: str = setting("fast", "Result", "fast or slow.", allowed=Choice(("fast", "slow")))
    way: str = setting("up", "Result", "Which way.", allowed=Choice(("up", "down")))
    wanted: str = setting(dataclasses.MISSING, "Result", "Asked for.", "unless --name")


def run(*arguments: str) -> Any:
    """What a command gets, or what it prints."""
    taken = []

    @options("Result", "Work")
    def command(job: Job, given: Given) -> None:
        """Do it."""
        taken.append((job, given))

    app = typer.Typer(add_completion=False)
    app.command(cls=Command)(command)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return taken[0] if taken else result.output


def test_nothing_given_is_the_defaults():
    job, given = run("here")
    assert job == Job(place="here", inner=Inner(), wanted=None)
    assert (job.count, given) == (3, {"place": "place"})


def test_each_value_goes_where_its_option_stands():
    job, given = run(
        *("here", "-n", "a", "--name", "b", "--side", "64", "--steps", "7", "--widths", "4,5,6", "--mirror"),
        *("--rate", "2", "--count", "5", "--wanted", "x"),
    )
    assert job == Job(
        place="here",
        names=["a", "b"],
        size=64,
        inner=Inner(steps=7, widths=(4, 5, 6), mirror=True, size=512),
        rate=2.0,
        count=5,
        wanted="x",
    )
    assert (given["size"], given["names"], given["steps"]) == ("--side", "--name", "--steps")
    assert list(given) == ["names", "size", "steps", "widths", "mirror", "rate", "count", "wanted", "place"]


def test_an_option_has_its_former_name_too_which_no_page_shows(monkeypatch):
    monkeypatch.setitem(FORMER_NAMES, "speed", "rate")
    monkeypatch.setitem(FORMER_NAMES, "flip", "mirror")
    job, given = run("here", "--speed", "2", "--flip", "--wanted", "x")
    assert (job.rate, job.inner.mirror, given["rate"], given["mirror"]) == (2.0, True, "--rate", "--mirror")
    assert not run("here", "--mirror", "--no-flip", "--wanted", "x")[0].inner.mirror
    text = run("--help")
    assert "--no-mirror" in text
    assert not any(word in text for word in ("speed", "flip"))


def test_a_range_of_a_base_class_is_checked():
    with pytest.raises(ValueError, match="Base: steps must be at most 9; got 10"):
        run("here", "--steps", "10")
    with pytest.raises(ValueError, match="widths takes three numbers like 32,64,128; got '4,x'"):
        run("here", "--widths", "4,x")


def test_the_help_says_what_the_dataclass_says():
    text = " ".join(run("--help").replace("│", " ").split())
    assert "In all. [default: 3; 1 to 9]" in text
    assert "[default: 1,2,3]" in text
    assert "--no-mirror" in text
    assert "[required, unless --name]" in text
    assert "[default: the picture's]" in text
    assert text.index("Of the result.") < text.index("In all.")
    # a default that is no number leaves the range
    assert "How long. [above 0]" in text
    # what the text names is not said twice
    assert "fast or slow. [default: fast]" in text
    assert "Which way. [default: up; up or down]" in text


def test_a_range_of_the_command_itself_is_checked():
    with pytest.raises(ValueError, match="pace must be fast or slow; got 'x'"):
        run("here", "--pace", "x")
