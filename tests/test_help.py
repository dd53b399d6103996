"""The help pages as a person sees them, errors that point to them, ``--quiet``, completion, and the demo's plot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from imgops.cli import app
from imgops.cli._demo import _draw_losses
from imgops.training.recipes import RECIPES


def commands(group=None, path=()) -> list[tuple[str, ...]]:
    """The words of every command, groups included."""
    group = group or get_command(app)
    found = [path]
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]
    return found


COMMANDS = [*commands(), *(("train", "--recipe", recipe) for recipe in RECIPES[1:])]


def page(*words: str, width: int = 80) -> str:
    return CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": str(width), "TERM": "dumb"}).stdout


def options(text: str) -> dict[str, str]:
    """{option: what the page says of it}."""
    rows: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if row := re.match(r"│ ((?:-\w, )?--[\w-]+)?(.*)│$", line):
            name = row[1].rpartition(" ")[2] if row[1] else name
            rows[name] = rows.get(name, "") + " " + row[2].strip()
    return rows


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_pages_fit_and_give_no_type_to_flags(words, width):
    text = page(*words, width=width)
    named = words[: words.index("--recipe")] if "--recipe" in words else words
    assert f"Usage: {' '.join(['imgops', *named])} [OPTIONS]" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    assert "bool" not in text.lower()
    # no name is cut, and what it does has most of the line
    assert "…" not in text
    rows = [line for line in text.splitlines() if re.match(r"│ (-\w, )?--", line)]
    assert rows
    for row in rows:
        start = re.match(r"│ (-\w, )?--[\w-]+( [A-Z]+)?", row).end()
        assert row[start] == " "
        assert start <= width // 2
    # Options is a short panel here: what every command has
    assert "-h, --help" in text


def test_required_options_are_marked():
    for words, name in (("train",), "--data"), (("train",), "--out"), (("style", "train-fast"), "--out"):
        assert "[required" in options(page(*words))[name], name
    assert options(page("train"))["--batch"].count("required") == 0
    for words, argument in (("generate",), "CHECKPOINT"), (("style",), "CONTENT"), (("dream",), "PICTURE"):
        assert re.search(rf"{argument} .*\[required", " ".join(page(*words, width=200).split())), argument


def test_commands_of_style_are_in_a_panel():
    text = page("style")
    panel = text[text.index("─ Commands ─") :]
    for name in "train-fast", "train-adain":
        assert f"│ {name} " in panel
    assert "Usage: imgops style [OPTIONS] CONTENT " in text


def test_the_first_page_has_what_every_command_takes_and_the_exit_status():
    text = " ".join(page().split())
    for option in "-q, --quiet", "-V, --version", "--install-completion", "--show-completion", "--debug":
        assert option in text
    assert "exit status is 0" in text
    assert "2 after an error" in text
    assert "130" in text
    assert CliRunner().invoke(app, ["-V"]).stdout.startswith("imgops ")


def error(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_wrong_option_points_to_the_page_of_its_command(words):
    assert error(*words, "--nosuch").endswith(f"(see {' '.join(['imgops', *words])} --help)")


def test_errors_of_options_point_to_the_page_and_those_of_files_do_not(tmp_path):
    assert error("train").endswith("(see imgops train --help)")
    assert error("generate").endswith("(see imgops generate --help)")
    assert error("paint").endswith("(see imgops --help)")
    assert error("style", "train-fast", "x", "-o", tmp_path / "n.safetensors", "--widths", "1").endswith(
        "(see imgops style train-fast --help)"
    )
    assert "--help" not in error("generate", tmp_path / "none")


def test_quiet_leaves_errors_and_what_was_asked_for(tmp_path):
    tiny = ["--data", "samples:textures", "--resolution", 8, "--batch", 4, "--kimg", 0.004, "--z-dim", 8, "--w-dim", 8]
    tiny += ["--mapping-layers", 1, "--channel-base", 64, "--channel-max", 8, "--device", "cpu", "--no-check-data"]
    for arguments in (
        ["-q", "train", "--out", tmp_path / "run", *tiny],
        ["generate", tmp_path / "run", "--seeds", 0, "--out", tmp_path / "made", "--quiet"],
        ["dream", "noise", "--size", 32, "--octaves", 1, "--steps", 1, "--zoom", 0.1, "-o", tmp_path / "d.png", "-q"],
    ):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert (result.exit_code, result.output) == (0, ""), arguments
    assert (tmp_path / "made" / "grid.png").is_file()
    assert (tmp_path / "d.png").is_file()
    # the next command is not quiet
    assert (
        "--zoom does nothing"
        in CliRunner()
        .invoke(
            app,
            [
                "dream",
                "noise",
                "--size",
                "32",
                "--octaves",
                "1",
                "--steps",
                "1",
                "--zoom",
                "0.1",
                "-o",
                str(tmp_path / "d.png"),
            ],
        )
        .stderr
    )
    assert error("-q", "generate", tmp_path / "none").startswith("imgops: error: ")
    assert json.loads(CliRunner().invoke(app, ["info", "-q", "--json"]).stdout)["versions"]


@pytest.mark.parametrize(("line", "expected"), [("imgops tr", "train"), ("imgops train --resol", "--resolution")])
def test_shells_complete(line, expected):
    asked = {"_IMGOPS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    command = [sys.executable, "-m", "imgops"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split() == [expected]


@pytest.mark.parametrize(("count", "marked"), [(1, True), (3, True), (200, False)])
def test_a_plot_of_few_records_shows_them(tmp_path, monkeypatch, count, marked):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "close", lambda figure: None)
    # R1 has not run yet
    records = [{"images": 1000 * i, "loss_g": 0.7, "loss_d": 1.3} for i in range(count)]
    (tmp_path / "stats.jsonl").write_text("\n".join(map(json.dumps, records)))
    _draw_losses(tmp_path / "stats.jsonl", tmp_path / "losses.png")
    upper, lower = plt.gcf().axes
    assert [line.get_marker() for line in upper.lines] == ["o" if marked else "None"] * 2
    assert not lower.lines
    assert lower.get_legend() is None
    monkeypatch.undo()
    plt.close("all")


def test_a_bar_never_passes_its_total():
    from imgops.training._progress import Bar

    bar = Bar("x", Console(quiet=True), disable=False)
    for share, expected in (0.5, 0.5), (7.0, 1.0), (-1.0, 0.0):
        bar.show(share)
        assert (bar.tasks[0].completed, bar.tasks[0].total) == (expected, 1.0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("style", "", "samples:gravel"), "CONTENT"),
        (("style", "samples:chelsea", ""), "STYLES"),
        (("style", "samples:chelsea", "samples:gravel", "-o", ""), "--out"),
        (("style", "samples:chelsea", "samples:gravel", "--weights", ""), "--weights"),
        (("style", "samples:chelsea", "samples:gravel", "--mask", ""), "--mask"),
        (("style", "train-adain", "--out", ""), "--out"),
        (("dream", ""), "PICTURE"),
        (("dream", "noise", "--layer", ""), "--layer"),
        (("train", "--config", ""), "--config"),
        (("train", "--data", ""), "--data"),
        (("generate", ""), "CHECKPOINT"),
        (("demo", "--out", ""), "--out"),
    ],
)
def test_a_value_that_is_empty_is_refused_by_name(arguments, name):
    """As of a variable of a shell that is not set, which would else mean the folder that one is in."""
    assert error(*arguments).startswith(f"imgops: error: {name} must not be empty; got '' (see imgops ")


def test_quiet_holds_for_what_ctrl_c_prints(tmp_path):
    """A run's first Ctrl-C says that it is finishing, unless --quiet was given."""
    for quiet in ["--quiet"], []:
        program = (
            "import os, signal, sys\n"
            "from imgops.cli._quiet import keep_quiet\n"
            "from imgops._interrupts import interruptible\n"
            f"with keep_quiet({bool(quiet)}), interruptible(told='finishing'):\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stderr == ("" if quiet else "finishing")
