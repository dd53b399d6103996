"""The command ``imgops data``: what it says, and wrong input in one line."""

from __future__ import annotations

import pytest
from test_cli import error, imgops

from imgops.data import open_dataset
from tests.test_preparing import photos
from tests.test_preparing_sources import gif


def test_the_command(tmp_path):
    source = photos(tmp_path / "in")
    (source / "bad.png").write_bytes(b"x")
    (source / "notes.txt").write_text("left out")
    (source / "a" / "again.png").write_bytes((source / "a" / "0.png").read_bytes())
    out = tmp_path / "out.zip"
    arguments = ("data", source, out, "--resolution", "12x8", "--labels", "none", "--workers", 0)
    stdout, stderr = imgops(*arguments, code=1)
    said = f"imgops: error: 1 picture could not be used; {out}-refused.txt says why\n"
    assert stderr == said
    assert stdout == (
        f"{out}: 7 pictures, 1 refused ({out}-refused.txt), "
        f"1 the same as another ({out}-duplicates.txt); left out: .txt (1)\n"
    )
    assert open_dataset(out, (8, 12)).count == 7
    assert imgops(*arguments)[0] == f"{out} is finished already\n"
    assert imgops("data", out, tmp_path / "shards", "--shard-size", 3, "--workers", 0, "-q")[0] == ""
    assert open_dataset(tmp_path / "shards", 8).count == 7
    assert imgops("data", source, tmp_path / "quiet.zip", "-q", "--workers", 0, code=1) == (
        "",
        said.replace("out", "quiet"),
    )


def test_options_that_do_nothing_are_told(tmp_path):
    source, made = photos(tmp_path / "in"), gif(tmp_path / "a.gif")
    more = ("--margin", 1, "--quality", 80, "--every", 2, "--split", "all", "--resolution", 8, "--workers", 0)
    assert imgops("data", source, tmp_path / "out", *more)[1].splitlines() == [
        "imgops: warning: --margin does nothing without --crop boxes",
        "imgops: warning: --quality does nothing with --format png",
        f"imgops: warning: every does nothing with {source}, which is no video",
        f"imgops: warning: split does nothing with {source}, which is neither CIFAR-10 nor MNIST",
    ]
    fitting = ("--every", 2, "--format", "jpg", "--quality", 80, "--resolution", 8, "--workers", 0)
    assert imgops("data", made, tmp_path / "frames", *fitting)[1] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "nowhere: no such folder or zip"),
        (["in", "in/out"], "OUT in/out lies in the source in; choose another place (see imgops data --help)"),
        (["in", "in"], "OUT in lies in the source in; choose another place (see imgops data --help)"),
        (["in", "."], ".: OUT must be the name of a folder or zip"),
        (["in", ".."], "..: OUT must be the name of a folder or zip"),
        (["in", "out.tar"], "out.tar: OUT is a folder or NAME.zip, or with --shard-size a folder of shards"),
        (
            ["in", "out.zip", "--shard-size", "5"],
            "out.zip: --shard-size makes a folder of shards; OUT must be",
        ),
        (["in", "in.txt"], "in.txt is there already, and was not made of this with these settings"),
        (["in", "out", "--resolution", "wide"], "--resolution takes a side in pixels like 64, or WIDTHxHEIGHT like"),
        (["in", "out", "--resolution", "33"], "--resolution must be a side, or height and width, of 4 to 4096 pixels"),
        (["in", "out", "--crop", "faces"], "--crop must be center, tall or boxes; got 'faces'"),
        (["in", "out", "--crop", "boxes"], "--boxes must be given with crop boxes, and only"),
        (["in", "out", "--crop", "tall"], "--crop must be center where no resolution gives"),
        (["in", "out", "--crop", "boxes", "--boxes", "no.csv", "--resolution", "8"], "no.csv: cannot be read"),
        (["in", "out", "--channels", "4", "--format", "jpg"], "--format must be png or webp for 4 channels"),
        (["in", "out", "--labels", "tags"], "--labels must be file, folders or none; got 'tags'"),
        (["in", "out", "--every", "0"], "--every must be 1 or more; got 0"),
        (["in.txt", "out"], "in.txt: neither a folder nor a zip"),
        (["samples:textures", "out"], "samples:textures: crops of a free set have the size of --resolution"),
        (["samples:nothing", "out", "--resolution", "8"], "samples:nothing: no such sample set"),
        (["a.gif", "out", "--labels", "folders"], "a.gif: this source has no folders"),
        (["broken", "out", "--resolution", "8"], "no picture can be used; all 1 are refused, out-refused.txt says why"),
        (["in"], "OUT is missing: the dataset: a folder, or NAME.zip (see imgops data --help)"),
    ],
)
def test_wrong_input_ends_in_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "in", 1)
    (tmp_path / "in.txt").write_text("x")
    gif(tmp_path / "a.gif")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"x")
    said = error("data", *arguments, *(["--workers", 0] if len(arguments) > 1 else []))
    assert said.startswith(f"imgops: error: {message}")
    assert "\n" not in said
    assert not (tmp_path / "out").exists()
