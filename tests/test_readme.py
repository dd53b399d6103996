"""The README and docs/ hold what they promise: their code runs, their commands work, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks import performance
from benchmarks.report import README_ROWS, markdown
from imgops.cli import app
from imgops.cli.train import command_of
from imgops.style import OptimizeSettings
from imgops.style.objective import layers_of
from imgops.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", ".github/pull_request_template.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

#: appended to a command that trains; what comes last counts
TINY = {
    "train": "--resolution 8 --batch 4 --kimg 0.008 --z-dim 8 --w-dim 8 --mapping-layers 2 --channel-base 64 "
    "--device cpu",
    "resume": "--kimg 0.016",
    "style": "--size 32 --first-size 32 --steps 1 --device cpu",
    "data": "--workers 0",
    "dream": "--size 64 --octaves 1 --steps 1 --device cpu",
}
#: the commands whose options pages speak of
COMMANDS = (
    *([], ["data"], ["train"], ["generate"], ["metrics"], ["ema"], ["dream"], ["accelerate"]),
    *(["style"], ["style", "train-fast"], ["style", "train-adain"]),
    *(["train", "--recipe", recipe] for recipe in RECIPES),
)

#: pages, how many examples they have, and how many shapes these show
EXAMPLES = [
    ("README.md", 4, 3),
    ("docs/ops.md", 16, 17),
    ("docs/accelerate.md", 1, 1),
    ("docs/commands.md", 1, 2),
    ("docs/metrics.md", 1, 0),
]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def imgops_commands(text: str) -> list[str]:
    """The lines of a page's bash blocks that run imgops."""
    return [line for block in blocks(text, "bash") for line in block.splitlines() if line.startswith("imgops")]


@pytest.mark.parametrize(("page", "examples", "shapes_shown"), EXAMPLES)
def test_examples_run(page, examples, shapes_shown):
    code = blocks((ROOT / page).read_text(), "python")
    assert len(code) == examples, "the page's first number in EXAMPLES"
    names: dict[str, object] = {}
    shapes = []
    for block in code:
        exec(compile(block, page, "exec"), names)
        name = ""
        for line in block.splitlines():
            assigned, promised = re.match(r"(\w+) = ", line), re.search(r"# (\[\d[\d, ]*\])", line)
            name = assigned[1] if assigned else name
            if promised:
                shapes.append((str(list(names[name].shape)), promised[1]))
    assert len(shapes) == shapes_shown, "the page's second number in EXAMPLES"
    assert [actual for actual, _ in shapes] == [promised for _, promised in shapes]


def test_commands_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.effect_noise((20, 16), 60).save(tmp_path / "photos" / f"{i}.png")
    commands = imgops_commands((ROOT / "docs" / "commands.md").read_text())
    # those of the README are among them
    assert set(imgops_commands(README)) <= set(commands)
    assert len(imgops_commands(README)) == 4
    assert [command.split()[1] for command in commands] == [
        *("info", "data", "train", "train", "generate", "style", "style", "dream")
    ]
    for command in commands:
        kind = "resume" if "--resume" in command else command.split()[1]
        result = CliRunner().invoke(app, shlex.split(command)[1:] + TINY.get(kind, "").split())
        assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "photos" / "checkpoint-0000000016").is_dir()
    assert len(list((tmp_path / "pictures").glob("seed*.png"))) == 16
    assert {path.name for path in tmp_path.glob("*.png")} == {"cat.png", "cat-adain.png", "dream.png"}


def test_the_examples_of_the_pictures_run():
    codes = blocks((ROOT / "docs" / "pictures.md").read_text(), "python")
    assert len(codes) == 2
    names: dict[str, object] = {}
    for code in codes:
        exec(compile(code, "pictures.md", "exec"), names)
    assert names["picture"].shape == (3, 64, 96)
    network = names["make"]()
    content, style = layers_of(network, OptimizeSettings())
    assert (content, style) == ({"3": 1.0}, {"1": 1.0, "3": 1.0})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_names_lead_somewhere(page):
    text = page.read_text()
    # a lambda of C++ and a launch of Triton look like links
    prose = re.sub(r"```(?:cpp|py)\n.*?```", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    # files of the repository that a page names in backquotes
    for name in re.findall(r"`((?:imgops|csrc|kernels|tests|docs)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    quoted = "\n".join(re.findall(r"`[^`\n]+`", text) + blocks(text, "bash"))
    for target in re.findall(r"(?:^|`|cpu )make ([a-z][a-z-]*)", quoted, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_options_exist(page):
    helps = "".join(CliRunner().invoke(app, [*c, "--help"], env={"COLUMNS": "300"}).stdout for c in COMMANDS)
    # not those of other programs
    text = re.sub(r"(pip install|python -m\s+benchmarks|pytest\s|#SBATCH)[^`\n]*", "", page.read_text())
    # what stands between torchrun and imgops are torchrun's, which has the others in a text, too
    text = re.sub(r"torchrun(?: \\\n|.)*?(?=-m imgops)", "", text)
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) - {"--logdir", "--max-restarts"}:
        assert option in helps, option


@pytest.mark.parametrize(
    ("page", "commands"),
    [
        ("training", [["train", "--recipe", recipe] for recipe in RECIPES]),
        ("training", [["data"], ["generate"]]),
        ("metrics", [["metrics"], ["ema"]]),
    ],
)
def test_every_option_is_in_its_page(page, commands):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for command in commands:
        parameters = (
            command_of(command[-1]).params if command[0] == "train" else get_command(app).commands[command[0]].params
        )
        for flags in ([*p.opts, *p.secondary_opts] for p in parameters if p.param_type_name == "option"):
            assert any(re.search(rf"{flag}(?![\w-])", text) for flag in flags if flag.startswith("--")), flags


def test_speed_tables_are_the_record():
    record = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    assert markdown(record) in performance.PAGE.read_text()
    assert performance.readme(README) == README
    table = markdown(record, README_ROWS)
    assert table in README
    # each chosen row is one of the record; the processor has a name
    assert table.count("\n| ") == len(README_ROWS) + 1
    assert record["machine"]["device"] in table


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_picture_is_light_and_contrasty(gallery):
    first = re.search(r"!\[[^]]*\]\(([^)]+)\)", README)[1]
    luma = np.asarray(Image.open(ROOT / first).convert("L")) / 255
    height, width = gallery.SIZE + gallery.LINE + gallery.GAP, gallery.SIZE + gallery.GAP
    # beside a content and a style
    cells = [
        luma[top + gallery.LINE : top + height - gallery.GAP, left : left + gallery.SIZE]
        for top in range(0, luma.shape[0], height)
        for left in range(2 * width, luma.shape[1], width)
    ]
    # what is white is no picture, beside one or below it
    shown = [cell[cell.min(1) < 0.9] for cell in cells if cell.min() < 0.9]
    assert len(shown) >= 8
    for cell in shown:
        assert 0.25 <= cell.mean() <= 0.75
        assert cell.std() >= 0.12


@pytest.mark.parametrize(
    ("lowest", "highest"), [(0.0, 0.3), (0.8, 1.0), (0.45, 0.55), (0.0, 0.0)], ids=["dark", "bright", "flat", "black"]
)
def test_the_gallery_refuses_pictures_of_which_little_is_seen(gallery, lowest, highest):
    noise = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    gallery.check_light("noise", noise[:1].expand(3, -1, -1))
    with pytest.raises(ValueError, match=r"noise: mean luma must be 0\.25 to 0\.75"):
        gallery.check_light("noise", lowest + (highest - lowest) * noise)
