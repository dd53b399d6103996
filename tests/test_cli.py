"""The command line: end to end on a tiny run, help, and every error in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from imgops import _backend
from imgops.cli import app
from imgops.cli._demo import op_pairs
from imgops.cli._generate import parse_seeds
from imgops.cli._timing import compare

TINY = [
    *("--resolution", "8", "--batch", "4", "--kimg", "0.008", "--log-kimg", "0.004", "--device", "cpu"),
    *("--z-dim", "8", "--w-dim", "8", "--mapping-layers", "2", "--channel-base", "64", "--channel-max", "8"),
]


def imgops(*arguments: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a command that ends with ``code``."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def error(*arguments: object) -> str:
    """The one line that a command ends with, less warnings."""
    stdout, stderr = imgops(*arguments, code=2)
    lines = [line for line in stderr.splitlines() if not line.startswith("imgops: warning: ")]
    assert stdout == ""
    assert len(lines) == 1
    assert lines[0].startswith("imgops: error: ")
    return lines[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    imgops("train", "--data", "samples:textures", "--out", out, *TINY)
    return out


def test_train_and_resume(run):
    assert (run / "checkpoint-0000000008").is_dir()
    _, stderr = imgops("train", "--out", run, "--resume", "--kimg", "0.016")
    assert "16 of 16 images" in stderr
    assert f"saved {run}/checkpoint-0000000016" in stderr
    assert json.loads((run / "config.json").read_text())["batch"] == 4


def test_generate(run, tmp_path):
    stdout, _ = imgops("generate", run, "--seeds", "0-2,9", "--trunc", "0.7", "--out", tmp_path, "--class", "gravel")
    assert stdout == f"4 pictures and grid.png in {tmp_path}\n"
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "gravel-seed0000.png",
        "gravel-seed0001.png",
        "gravel-seed0002.png",
        "gravel-seed0009.png",
        "grid.png",
    ]
    assert Image.open(tmp_path / names[0]).size == (8, 8)
    assert Image.open(tmp_path / "grid.png").size == (32, 8)
    first = (tmp_path / names[3]).read_bytes()
    # a seed is the same picture whatever it is made with, and by the class's number
    imgops("generate", run / "checkpoint-0000000008", "--seeds", "9", "--trunc", "0.7", "--out", tmp_path, "--class", 1)
    assert (tmp_path / names[3]).stat().st_size > 0
    imgops("generate", run, "--seeds", "4,9", "--trunc", "0.7", "--out", tmp_path, "--class", 1, "--batch", 1)
    assert (tmp_path / names[3]).read_bytes() == first


def test_generate_every_class(run, tmp_path):
    imgops("generate", run, "--seeds", "0-1", "--out", tmp_path)
    assert len(list(tmp_path.iterdir())) == 4 * 2 + 1
    assert Image.open(tmp_path / "grid.png").height == 4 * 8


def test_dry_run(tmp_path):
    start = ("train", "--data", "samples:textures", "--out", tmp_path / "x", "--resolution", 32)
    stdout, stderr = imgops(*start, "--dry-run", "--no-estimate")
    config = json.loads(stdout)
    assert config["resolution"] == 32
    assert config["r1_gamma"] == 0.0002 * 32**2 / 32
    assert "classes: brick, gravel, retina, wood" in stderr
    assert not (tmp_path / "x").exists()


def test_info_json():
    facts = json.loads(imgops("info", "--json")[0])
    assert facts["versions"]["torch"] == torch.__version__
    assert set(facts["ops"]) == set(_backend.OPS)
    for places in facts["ops"].values():
        for place in places.values():
            assert set(place["backends"]) == set(_backend.BACKENDS)
            assert place["backends"][place["chosen"]]["available"]
            for status in place["backends"].values():
                assert status["available"] or (status["reason"] and status["remedy"])
    assert isinstance(facts["host"]["available"], bool)
    assert facts["threads"] >= 1


def test_info_where_a_backend_that_is_not_here_is_asked_for(monkeypatch):
    monkeypatch.setattr(_backend, "_environment", "cuda")
    monkeypatch.setitem(_backend.load(), ("cuda", "cuda"), _backend.Status(False, "no [/bracket]", "none [with T = x]"))
    facts = json.loads(imgops("info", "--json")[0])
    assert facts["ops"]["bias_act"]["cpu"]["chosen"] is None
    assert imgops("info")


def test_info_cuts_no_name_on_a_narrow_terminal():
    assert "…" not in CliRunner().invoke(app, ["info"], env={"COLUMNS": "60"}).stdout


def test_info_for_people():
    text, _ = imgops("info")
    for word in (*_backend.OPS, *_backend.BACKENDS, torch.__version__, "reference", "remedy"):
        assert word in text


def test_help_is_quick_and_grouped():
    for command in [], ["train"], ["generate"], ["info"], ["demo"]:
        assert "Usage: imgops" in imgops(*command, "--help")[0]
    text, _ = imgops("train", "--help")
    for panel in "Data", "Run", "Reports", "Networks", "Optimization":
        assert f"─ {panel} ─" in text
    code = "import sys; import imgops.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_module_and_version():
    result = subprocess.run([sys.executable, "-m", "imgops", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("imgops ")


def test_errors_of_the_invocation(tmp_path):
    assert "--out is missing" in error("train")
    assert "--data is missing" in error("train", "--out", tmp_path)
    assert "No such command 'paint'" in error("paint")
    assert "--batch" in error("train", "--batch", "many")
    assert "--nonsense" in error("info", "--nonsense")
    assert "CHECKPOINT" in error("generate").upper()


def test_errors_of_training(tmp_path, run):
    def of(*arguments: object) -> str:
        return error("train", "--out", tmp_path / "new", *arguments)

    assert "missing: no such folder or zip" in of("--data", tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "no pictures in it" in of("--data", tmp_path / "empty")
    assert "there are samples:textures" in of("--data", "samples:nothing")
    assert "resolution must be a side, or height" in of("--data", "samples:textures", "--resolution", 33)
    assert "architecture" in of("--data", "samples:textures", "--g-architecture", "cubist")
    assert "already holds a run" in error("train", "--data", "samples:textures", "--out", run)
    assert "batch cannot change" in error("train", "--out", run, "--resume", "--batch", 8)
    assert "neither a checkpoint nor the folder of a run" in of("--resume")


def test_truncated_picture_is_named_before_training(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in "a.png", "b.png":
        Image.effect_noise((32, 32), 50).save(data / name)
    (data / "b.png").write_bytes((data / "b.png").read_bytes()[:300])
    assert f"{data}/b.png: damaged or truncated picture" in error(
        "train", "--data", data, "--out", tmp_path / "o", *TINY
    )


def test_errors_of_generate(tmp_path, run):
    assert "--seeds takes numbers and ranges" in error("generate", run, "--seeds", "5-2", "--out", tmp_path)
    assert "one of brick, gravel, retina, wood; got 'moss'" in error(
        "generate", run, "--class", "moss", "--out", tmp_path
    )
    assert "must be 0 to 3" in error("generate", run, "--class", "4", "--out", tmp_path)
    assert "neither a checkpoint" in error("generate", tmp_path / "none")
    assert "noise" in error("generate", run, "--noise", "loud", "--out", tmp_path)


def test_debug_shows_the_traceback(tmp_path):
    result = CliRunner().invoke(app, ["train", "--data", str(tmp_path / "no"), "--out", str(tmp_path), "--debug"])
    assert result.exit_code != 0
    assert isinstance(result.exception, ValueError)


def test_parse_seeds():
    assert parse_seeds("0-3,7, 9-9") == [0, 1, 2, 3, 7, 9]


def test_both_sides_of_the_speed_table_agree():
    pairs = op_pairs(torch.device("cpu"))
    assert [what.split()[0].rstrip(",") for what, _, _ in pairs] == ["upfirdn2d", "bias_act", "modulated_conv2d"]
    for what, fused, eager in pairs:
        assert torch.allclose(fused(), eager(), atol=1e-4), what


def test_compare_times_in_turns():
    calls = []
    first, second = compare(lambda: calls.append("a"), lambda: calls.append("b"), 0.0)
    assert calls == ["a", "b"] * 2
    assert first >= 0
    assert second >= 0


def test_demo(tmp_path):
    out = tmp_path / "demo"
    stdout, _ = imgops("demo", "--out", out, "--minutes", "0.2")
    for name in "samples.png", "losses.png":
        assert Image.open(out / name).width > 300
        assert str(out / name) in stdout.replace("\n", "")
    table = (out / "speed.md").read_text()
    assert all(op in table for op in ("bias_act", "modulated_conv2d", "upfirdn2d"))
    assert "training step with R1" in table
    assert list((out / "run-1").glob("checkpoint-*"))
