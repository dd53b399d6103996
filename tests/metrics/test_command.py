"""``imgops metrics``: sets of pictures and checkpoints, as text and JSON, and mistakes in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from imgops.cli import app

SMALL = ["--weights", "embedded", "--size", "32", "--device", "cpu"]


def metrics(*arguments: object, code: int = 0) -> str:
    """The output of ``imgops metrics``, or the one line that it ends with."""
    result = CliRunner().invoke(app, ["metrics", *map(str, arguments), *SMALL])
    assert result.exit_code == code, result.output
    if code == 0:
        return result.stdout
    lines = [line for line in result.stderr.splitlines() if not line.startswith("imgops: warning: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("IMGOPS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Two folders of 5 pictures: of 40 x 36 px and 16 px."""
    out = tmp_path_factory.mktemp("sets")
    for name, size in ("real", (40, 36)), ("fake", (16, 16)):
        (out / name).mkdir()
        for i in range(5):
            Image.effect_noise(size, 30 + 20 * i).convert("RGB").save(out / name / f"{i}.png")
    return out / "real", out / "fake"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with four classes, of 8 px."""
    out = tmp_path_factory.mktemp("metrics") / "run"
    small = (
        "--resolution 8 --batch 4 --kimg 0.004 --z-dim 8 --w-dim 8 --mapping-layers 1 --channel-base 64 --device cpu"
    )
    result = CliRunner().invoke(app, ["train", "--data", "samples:textures", "--out", str(out), *small.split()])
    assert result.exit_code == 0, result.output
    return out


def test_two_folders(folders, cache):
    real, fake = folders
    lines = metrics(real, fake).splitlines()
    assert [line.split()[0] for line in lines] == ["fd_embedded", "swd_embedded", "real", "fake", "encoder", "size"]
    assert max(map(len, lines)) <= 80
    assert lines[-2:] == ["encoder       embedded, 256 features", "size          16x16 px, seen at 32 px"]
    assert re.search(r"real +5 of |real +…", lines[2])
    told = json.loads(metrics(real, fake, "--json", "--metrics", "swd"))
    assert told["swd_embedded"] == pytest.approx(float(lines[1].split()[1]), rel=1e-4)
    assert told["real"] == {"source": str(real), "pictures": 5}
    assert told["fake"] == {"source": str(fake), "pictures": 5}
    assert told["encoder"] == {"name": "embedded", "features": 256, "size": 32}
    assert (told["width"], told["height"]) == (16, 16)
    assert "fd_embedded" not in told
    some = json.loads(metrics(real, fake, "--json", "--samples", 3))
    assert some["fake"]["pictures"] == 3
    assert some["swd_embedded"] != told["swd_embedded"]
    assert len(list(cache.iterdir())) == 1


def test_a_set_and_itself(folders, cache):
    told = json.loads(metrics(folders[0], folders[0], "--json", "--resolution", "32x24", "--no-cache"))
    assert (told["width"], told["height"], told["swd_embedded"]) == (32, 24, 0.0)
    assert told["fd_embedded"] < 1e-9
    assert not cache.exists()
    # without --resolution, by the shorter side of the first picture
    assert json.loads(metrics(folders[0], folders[0], "--json"))["height"] == 32


def test_a_run(run, folders):
    told = json.loads(metrics("samples:textures", run, "--samples", 9, "--reals", 12, "--json"))
    assert told["fake"] == {"source": str(run / "checkpoint-0000000004"), "pictures": 9}
    assert told["real"]["pictures"] == 12
    assert told["width"] == 8
    other = json.loads(metrics("samples:textures", run, "--samples", 9, "--reals", 12, "--seed", 9, "--json"))
    assert other["swd_embedded"] != told["swd_embedded"]
    again = json.loads(metrics("samples:textures", run, "--samples", 9, "--reals", 12, "--batch", 4, "--json"))
    assert again["swd_embedded"] == pytest.approx(told["swd_embedded"], rel=1e-5)


def test_pictures_beside_files_that_a_run_has_too(folders, tmp_path):
    real, fake = (shutil.copytree(folder, tmp_path / folder.name) for folder in folders)
    (fake / "config.json").write_text('{"camera": "x"}')
    (fake / "0.png").rename(fake / "checkpoint-0.png")
    # a table of classes of which none is used
    (real / "dataset.json").write_text("{}")
    assert json.loads(metrics(real, fake, "--json"))["fake"] == {"source": str(fake), "pictures": 5}


def test_mistakes_are_one_line(folders, run, tmp_path):
    real, fake = folders
    assert "no such folder or zip" in metrics(real, tmp_path / "none", code=2)
    assert "no such folder or zip" in metrics(tmp_path / "none", fake, code=2)
    assert "metrics must be one or several of fd, swd" in metrics(real, fake, "--metrics", "fid", code=2)
    assert "--samples must be 2 or more; got 1" in metrics(real, fake, "--samples", 1, code=2)
    assert "--resolution is 8 for" in metrics(real, run, "--resolution", 16, code=2)
    assert "--resolution must be a side, or height and width" in metrics(real, fake, "--resolution", 70, code=2)
    (tmp_path / "checkpoint-0000000001").mkdir()
    assert "config.json: missing or damaged" in metrics(real, tmp_path, code=2)
    (tmp_path / "tiny").mkdir()
    Image.new("RGB", (5, 9)).save(tmp_path / "tiny" / "a.png")
    assert "a.png: is smaller than 8 pixels" in metrics(real, tmp_path / "tiny", code=2)
    (tmp_path / "tiny" / "a.png").write_bytes(b"none")
    assert "a.png: not a picture" in metrics(real, tmp_path / "tiny", code=2)


def test_what_does_nothing_is_told(folders):
    real, fake = folders
    result = CliRunner().invoke(app, ["metrics", str(real), str(fake), "--seed", "4", "--metrics", "swd", *SMALL])
    assert "warning: --seed does nothing as no checkpoint makes the pictures" in result.stderr
