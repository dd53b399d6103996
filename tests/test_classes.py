"""Classes by name, from tables and from folders; and runs that repeat another's configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_cli import TINY, error, imgops
from test_training import contents, tiny

from imgops import __version__
from imgops.data import open_dataset
from imgops.training import TrainingConfig, train

ROWS = [["a/0.png", 0], ["b/1.png", 1], ["b/2.png", 2]]


def pictures(folder: Path, *names: str, table: object = None) -> Path:
    for name in names or [name for name, _ in ROWS]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((10, 10), 60).save(folder / name)
    if table is not None:
        (folder / "dataset.json").write_text(json.dumps(table))
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cats", "dogs", "\u00e9l\u00e9phants"], ("cats", "dogs", "\u00e9l\u00e9phants")),
        ({"0": "cats", "2": "hens", "1": "dogs"}, ("cats", "dogs", "hens")),
        ({"cats": 1, "dogs": 0, "hens": 2}, ("dogs", "cats", "hens")),
        (None, ("0", "1", "2")),
    ],
)
def test_a_table_names_its_classes(tmp_path, names, expected):
    data = open_dataset(pictures(tmp_path, table={"labels": ROWS, "names": names}), 8)
    assert data.class_names == expected
    assert data.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "names",
    [
        *(["cats", "dogs"], ["cats", "dogs", "dogs"], ["cats", "dogs", 3], ["cats", "dogs", " "], "cats", 3, [], {}),
        *({"0": "cats", "1": "dogs"}, {"0": "a", "1": "b", "3": "c"}, {"a": 0, "b": 1, "c": 1}),
        {"a": 0, "b": 1, "c": True},
        *(["a", "b", ["c"]], {"0": ["a"], "1": "b", "2": "c"}, ["a", "b", "c", "d"], True),
    ],
)
def test_names_that_do_not_fit_are_refused_with_the_table(tmp_path, names):
    data = pictures(tmp_path / "d", table={"labels": ROWS, "names": names})
    line = error("train", "--data", data, "--out", tmp_path / "o", *TINY)
    assert f'{data}/dataset.json: "names" must give each of the 3 classes a name of its own' in line
    assert len(line) < 400


@pytest.mark.parametrize("top", ["", "photos/", "photos/train/"])
@pytest.mark.parametrize("zipped", [False, True])
def test_subfolders_are_classes(tmp_path, top, zipped):
    names = [f"{top}{name}" for name in ("cats/deep/1.png", "cats/2.png", "dogs/3.png", "10/4.png")]
    data = pictures(tmp_path / "d", *names, table={"labels": None})
    if zipped:
        data = shutil.make_archive(str(tmp_path / "z"), "zip", data)
    found = open_dataset(data, 8, use_labels="folders")
    assert found.class_names == ("10", "cats", "dogs")
    of = {name.removeprefix(top): found.class_names[k] for name, k in zip(found.names, found.labels, strict=True)}
    assert of == {"cats/deep/1.png": "cats", "cats/2.png": "cats", "dogs/3.png": "dogs", "10/4.png": "10"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["0.png", "cats/1.png"],
            "d: each class must be a subfolder of its own for --labels folders; 0.png is",
        ),
        (["cats/1.png", "cats/2.png"], "d/cats: each class must be a subfolder"),
        (["1.png"], "1.png is in none (1 of 1 pictures are not)"),
    ],
)
def test_pictures_in_no_folder_of_a_class(tmp_path, monkeypatch, names, said):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "d", *names)
    assert said in error("train", "--data", "d", "--out", "o", *TINY, "--labels", "folders")


def test_labels_of_the_command_line(tmp_path):
    data = pictures(tmp_path / "d", "cats/1.png", "dogs/2.png", "dogs/3.png", table={"labels": None})
    start = ("train", "--data", data, "--out", tmp_path / "run", *TINY)
    for more, labels in (("--no-labels",), "none"), (("--labels", "none"), "none"), ((), "file"):
        assert json.loads(imgops(*start, *more, "--dry-run")[0])["labels"] == labels
    assert "--no-labels and --labels folders do not go together" in error(*start, "--no-labels", "--labels", "folders")
    assert "labels must be file, folders or none; got 'names'" in error(*start, "--labels", "names")
    free = ("train", "--data", "samples:textures", "--out", tmp_path / "free", *TINY, "--labels", "folders")
    assert "a free set has no folders" in error(*free)
    imgops(*start, "--labels", "folders")
    imgops("generate", tmp_path / "run", "--class", "dogs", "--seeds", "0", "--out", tmp_path / "g")
    assert (tmp_path / "g" / "dogs-seed0000.png").exists()
    assert "one of cats, dogs; got 'hens'" in error("generate", tmp_path / "run", "--class", "hens")


def test_runs_from_before_there_were_folders_go_on(tmp_path):
    assert [tiny(tmp_path, labels=old).labels for old in (True, False)] == ["file", "none"]
    run = tmp_path / "run"
    train(tiny(run, labels=False, kimg=0.008), quiet=True)
    path = run / "checkpoint-0000000008" / "config.json"
    meta = json.loads(path.read_text())
    assert meta["config"]["labels"] == "none"
    path.write_text(json.dumps({**meta, "config": {**meta["config"], "labels": False}}))
    train(tiny(run, labels=False, kimg=0.012), quiet=True, resume=True)
    (run / "config.json").write_text(json.dumps({**json.loads((run / "config.json").read_text()), "labels": False}))
    assert TrainingConfig.read(run / "config.json", {}).resolve().labels == "none"


@pytest.mark.parametrize("of", ["config.json", "checkpoint-0000000008/config.json"])
def test_a_configuration_repeats_a_run(tmp_path, of):
    imgops("train", "--data", "samples:textures", "--out", tmp_path / "a", *TINY, "--seed", "3", "--mirror")
    imgops("train", "--config", tmp_path / "a" / of, "--out", tmp_path / "b")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    made_by = json.loads((tmp_path / "b" / "config.json").read_text())["made_by"]
    assert made_by["imgops"] == __version__
    assert made_by["torch"] == torch.__version__
    assert made_by["backend"] in ("cpu", "reference")
    again = ("train", "--config", tmp_path / "a" / of, "--out", tmp_path / "b")
    assert "already holds a run" in error(*again)
    assert "--config begins a new run" in error(*again, "--resume")


def test_options_come_before_the_configuration(tmp_path):
    config = tiny(tmp_path / "a", kimg=0.004)
    train(config, quiet=True)
    start = ("train", "--config", tmp_path / "a" / "config.json", "--out", tmp_path / "b", "--dry-run")
    read = json.loads(imgops(*start)[0])
    written = json.loads((tmp_path / "a" / "config.json").read_text())
    assert {**read, "made_by": written["made_by"]} == {**written, "out": str(tmp_path / "b")}
    changed = json.loads(imgops(*start, "--batch", "8", "--mbstd-group", "2", "--no-mirror", "--d-lr", "0.1")[0])
    different = {name: value for name, value in changed.items() if value != read[name]}
    assert different == {"batch": 8, "mbstd_group": 2, "d_lr": 0.1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"data": "d", "out": "o", "batsh": 3}', "batsh is no setting"),
        ('{"data": "d", "out": "o", "batch": "8"}', "batch must be a whole number; got '8'"),
        ('{"data": "d", "out": "o", "batch": 8.5}', "batch must be a whole number; got 8.5"),
        ('{"data": "d", "out": "o", "mirror": 1}', "mirror must be true or false; got 1"),
        ('{"data": "d", "out": "o", "beta1": null}', "beta1 must be a number; got None"),
        ('{"data": "d", "out": "o", "g_lr": NaN}', "g_lr must be above 0 and finite; got nan"),
        ('{"data": "d", "out": "o", "resolution": 47}', "resolution must be a side, or height"),
        ('{"out": "o"}', "says nothing of data, and neither does --data"),
        ("[1]", "must be the config.json of a run"),
        ('{"config": 3}', "must be the config.json of a run"),
        ("{", "must be the config.json of a run"),
        ("", "must be the config.json of a run"),
    ],
)
def test_configurations_that_are_none(tmp_path, content, said):
    path = tmp_path / "c.json"
    path.write_text(content)
    line = error("train", "--config", path, "--out", tmp_path / "o")
    assert said in line
    assert str(path) in line


def test_a_configuration_that_is_not_there(tmp_path):
    assert "none.json" in error("train", "--config", tmp_path / "none.json", "--out", tmp_path / "o")
    assert f"{tmp_path}/config.json" in error("train", "--config", tmp_path, "--out", tmp_path / "o")
