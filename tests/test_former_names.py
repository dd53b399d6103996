"""Former names of settings, functions and constants keep working: in Python, on the command line and in files."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from test_cli import imgops as command

import imgops.data
import imgops.dream
from imgops._settings import FORMER_NAMES, present_names
from imgops.cli._video import FrameStore
from imgops.dream import DreamSettings, zoom_frames
from imgops.style import TransferSettings
from imgops.training import TrainingConfig
from imgops.training.checkpoint import read_meta


@pytest.mark.parametrize(
    ("kind", "former", "present", "value"),
    [
        (TransferSettings, "keep_colours", "keep_colors", "luma"),
        (DreamSettings, "parametrisation", "parametrization", "fourier"),
    ],
)
def test_settings(kind, former, present, value):
    settings = kind(**{former: value})
    assert settings == kind(**{present: value}) == dataclasses.replace(kind(), **{former: value})
    assert getattr(settings, former) == getattr(settings, present) == value
    assert set(dataclasses.asdict(settings)) & {former, present} == {present}
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, former, value)
    with pytest.raises(ValueError, match=f"{present} must be"):
        kind(**{former: "grue"})
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        kind(**{f"{former}_": value})


def test_a_setting_given_by_its_place_and_by_name():
    places = [field.default for field in dataclasses.fields(DreamSettings)]
    assert DreamSettings(*places) == DreamSettings()
    with pytest.raises(TypeError, match="multiple values for argument 'parametrization'"):
        DreamSettings(*places, parametrisation="fourier")


def test_a_function():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    settings = DreamSettings(octaves=1, steps=1)
    objectives = [imgops.dream.Objective("1")]

    def last(**named):
        *_, frame = zoom_frames(torch.ones(3, 16, 16) / 2, network, objectives, settings, 2, **named)
        return frame

    assert torch.equal(last(keep_colours=False), last(keep_colors=False))
    assert not torch.equal(last(keep_colours=False), last())


@pytest.mark.parametrize(
    ("package", "former", "present"),
    [
        (imgops.data, "KEEP_COLOURS", "KEEP_COLORS"),
        (imgops.data, "keep_colours", "keep_colors"),
        (imgops.dream, "NORMALISATIONS", "NORMALIZATIONS"),
        (imgops.dream, "PARAMETRISATIONS", "PARAMETRIZATIONS"),
    ],
)
def test_names_of_packages(package, former, present):
    assert getattr(package, former) is getattr(package, present)
    assert {former, present} <= set(package.__all__)


def test_an_option(tmp_path):
    for option in "--keep-colours", "--keep-colors":
        result = tmp_path / f"{option}.png"
        command(
            *("style", "samples:coffee", "hubble", "--method", "fast", "--size", 32, option, "luma", "-o", result),
            *("--device", "cpu"),
        )
    a, b = (imgops.data.read_settings(path) for path in sorted(tmp_path.iterdir()))
    assert a == b
    assert a["keep_colors"] == "luma"
    assert TransferSettings(method="fast", keep_colours=a["keep_colors"])


def test_frames_of_a_video_stopped_before_the_name_changed(tmp_path):
    record = {"size": 8, "settings": {"parametrisation": "pixels"}, "keep_colours": "luma"}
    store = FrameStore(tmp_path / "x.gif", record)
    assert store.open() is None
    store.add(imgops.data.Frame(torch.zeros(3, 8, 8), 1))
    now = {"size": 8, "settings": {"parametrization": "pixels"}, "keep_colors": "luma"}
    kept = FrameStore(tmp_path / "x.gif", now).open()
    assert kept is not None
    assert kept.frames == 1


def test_a_training_recorded_before_the_name_changed(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMER_NAMES, "learning_rate", "g_lr")
    settings = {"data": "samples:textures", "out": "run", "learning_rate": 0.5}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert TrainingConfig.read(tmp_path, {}).g_lr == 0.5
    progress = {"seen": 0, "steps": 0, "c_dim": 0, "class_names": []}
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "config": settings, **progress}))
    assert read_meta(tmp_path)["config"].g_lr == 0.5


def test_each_former_name_is_of_something_and_no_present_name():
    assert not set(FORMER_NAMES) & set(FORMER_NAMES.values())
    used = {*TransferSettings.former_names, *DreamSettings.former_names, *zoom_frames.former_names}
    assert used == set(FORMER_NAMES)
    assert present_names({"keep_colors": None, "keep_colours": "luma"}) == {"keep_colors": "luma"}
