"""A run and its data: neither lies in the other, and a set that changed is told; and what a run says at its start."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import pytest
from PIL import Image
from test_cli import TINY, error, imgops
from test_training import batch_of, tiny, trainer_of

from imgops.training import Trainer, TrainingConfig, load_generator, train
from imgops.training import loop as loops

ROOT = Path(__file__).resolve().parent.parent


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((10, 10), 60).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("data", "out", "said"),
    [
        ("p", "p/run", "out p/run lies inside the data p"),
        ("p", "p", "out p lies inside the data p"),
        ("p", "q/../p/deep/run", "out q/../p/deep/run lies inside the data p"),
        ("p", "link/run", "out link/run lies inside the data p"),
        ("link", "p/run", "out p/run lies inside the data link"),
        ("p/sub", ".", "data p/sub lies inside the run's folder ."),
        ("p", "q", "p/into in the data leads to"),
        ("p", "around/q", "p/around in the data leads to"),
        ("p", "p/0.png", "out must be a folder; p/0.png is a file"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_a_run_is_kept_apart_from_its_data(tmp_path, monkeypatch, data, out, said, more):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "p", "0.png", "1.png", "sub/2.png")
    (tmp_path / "link").symlink_to("p")
    if "into" in said:
        # pictures that an earlier run left
        pictures(tmp_path / "q" / "samples", "0.png")
        (tmp_path / "p" / "into").symlink_to(tmp_path / "q" / "samples")
    else:
        (tmp_path / "q").mkdir()
    if "around" in said:
        pictures(tmp_path / "around", "3.png")
        (tmp_path / "p" / "around").symlink_to(tmp_path / "around")
    assert said in error("train", "--data", data, "--out", out, *TINY, *more)
    assert not list(tmp_path.rglob("reals.png"))


def test_neighbors_that_only_look_alike_are_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "p", "0.png")
    shutil.make_archive("run/p", "zip", "p")
    for data, out in ("p", "p-run"), ("run/p.zip", "run"):
        stdout, _ = imgops("train", "--data", data, "--out", out, *TINY, "--dry-run")
        assert f'"data": "{data}"' in stdout


def test_sheets_of_a_generator_stay_out_of_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "p", "0.png", "1.png")
    imgops("train", "--data", "p", "--out", "run", *TINY)
    for out in "p", "p/sheets":
        assert f"out {out} lies inside the data p" in error("generate", "run", "--out", out, "--seeds", "0")
    assert len(list((tmp_path / "p").iterdir())) == 2
    imgops("generate", "run", "--out", ".", "--seeds", "0")


@pytest.fixture
def run(tmp_path) -> tuple[Path, Path]:
    """(data, run)."""
    data = pictures(tmp_path / "data", "a.png", "b.png", "c.png")
    train(tiny(tmp_path / "run", data=str(data), kimg=0.008), quiet=True)
    return data, tmp_path / "run"


def resumed(data: Path, out: Path, **changes) -> list[str]:
    """The warnings of going on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(tiny(out, data=str(data), kimg=0.016, **changes), quiet=True, resume=True)
    return [str(warning.message) for warning in caught if "data is not what" in str(warning.message)]


def test_a_changed_set_is_told(run):
    data, out = run
    (data / "b.png").unlink()
    pictures(data, "d.png", "sub/e.png")
    (said,) = resumed(data, out)
    assert f"{out}/checkpoint-0000000008" in said
    assert "3 pictures then, 4 now; 2 added (d.png, sub/e.png); 1 removed (b.png)" in said
    # from then on that is what it was trained on
    config = tiny(out, data=str(data), kimg=0.024)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(config, quiet=True, resume=True)


def test_a_set_of_more_classes_is_not_said_to_go_on(tmp_path):
    data, out = pictures(tmp_path / "data", "a/0.png", "b/0.png"), tmp_path / "run"
    train(tiny(out, data=str(data), kimg=0.008, labels="folders"), quiet=True)
    pictures(data, "c/0.png")
    warnings.simplefilter("error")  # pytest puts the filters back
    with pytest.raises(ValueError, match="was trained on 2 classes; the data now has 3"):
        train(tiny(out, data=str(data), kimg=0.016, labels="folders"), quiet=True, resume=True)


@pytest.mark.parametrize("how", ["moved", "zipped", "linked", "the same"])
def test_the_same_pictures_elsewhere_pass_quietly(run, how):
    data, out = run
    elsewhere = data.with_name("elsewhere")
    if how == "moved":
        data.rename(elsewhere)
    elif how == "zipped":
        elsewhere = Path(shutil.make_archive(str(elsewhere), "zip", data))
    elif how == "linked":
        elsewhere.symlink_to(data)
    else:
        elsewhere = data
    assert resumed(elsewhere, out) == []


def test_another_free_set_is_told(tmp_path):
    train(tiny(tmp_path, labels=False, kimg=0.008), quiet=True)
    (said,) = resumed(Path("samples:pictures"), tmp_path, labels=False)
    assert "7 added" in said
    assert "4 removed" in said


def test_a_set_whose_names_are_lost_is_told_by_its_count(run):
    data, out = run
    for path in out.glob("data-*.json"):
        path.unlink()
    pictures(data, "d.png")
    (said,) = resumed(data, out)
    assert "3 pictures then, 4 now; which names differ is not known" in said


def test_checkpoints_that_remember_nothing_resume(run):
    data, out = run
    path = out / "checkpoint-0000000008" / "config.json"
    path.write_text(re.sub(r'"(data|seconds)": (\{.*?\}|[\d.]+),', "", path.read_text(), flags=re.DOTALL, count=2))
    assert load_generator(out)[1].keys().isdisjoint({"data", "seconds"})
    assert resumed(data, out) == []


def test_a_run_says_what_it_is_at_its_start(tmp_path, capsys):
    config = tiny(tmp_path / "run", kimg=0.048, keep=2)
    last = train(config)
    text = capsys.readouterr().err
    opening, _, rest = text.partition("speed")
    trainer = trainer_of(config)
    sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (trainer.G, trainer.D)]
    assert re.search(r"^device    cpu, \d+ threads?; ops by (cpu|reference)", opening, re.MULTILINE)
    assert re.search(r"^data      samples:textures: 32,768 pictures.*brick, gravel, ", opening, re.MULTILINE)
    assert f"networks  8 px, G {sizes[0]:.3g} M, D {sizes[1]:.3g} M parameters" in opening
    ((one, both),) = re.findall(
        r"^disk      ([\d.]+) MB per checkpoint, ([\d.]+) MB for the 2 that", opening, re.MULTILINE
    )
    assert abs(2 * float(one) - float(both)) < 0.02
    # the speed of the first steps comes before the first record
    assert re.match(r" +[\d.]+ images/s after \d+ steps: about .* for [\d,]+ images\n", rest)
    assert last.exists()


def test_the_size_of_a_checkpoint_is_known_before(tmp_path):
    # so large that what is beside the tensors does not show
    trainer = trainer_of(tiny(tmp_path, channel_base=1024, channel_max=64, z_dim=64, w_dim=64))
    trainer.step(*batch_of(trainer))
    saved = sum(path.stat().st_size for path in trainer.save(tmp_path).iterdir())
    assert abs(trainer.checkpoint_bytes() / saved - 1) < 0.05


def slow(monkeypatch, *seconds: float) -> None:
    """Steps of this length by a clock that nothing else moves."""
    now, lengths = [0.0], iter(seconds)
    real_step = Trainer.step

    def step(self, *batch):
        now[0] += next(lengths)
        return real_step(self, *batch)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(loops.time, "monotonic", lambda: now[0])


@pytest.mark.parametrize(
    ("seconds", "kimg", "said", "advice"),
    [
        # 4 images per step
        ((40.0, 20.0), 1000.0, "0.1 images/s after the first step: at most about 2,778 hours for 999,996 images", True),
        ((6.0, 2.0, 2.0), 1000.0, "2 images/s after 3 steps: about 139 hours for 999,988 images", True),
        ((6.0, 2.0, 2.0), 1.0, "2 images/s after 3 steps: about 8 minutes for 988 images", False),
        ((0.1,) * 9, 1.0, "40 images/s after 9 steps: about 24 seconds for 964 images", False),
    ],
)
def test_the_estimate_follows_the_first_steps(tmp_path, monkeypatch, capsys, seconds, kimg, said, advice):
    slow(monkeypatch, *seconds)
    with pytest.raises(StopIteration):
        train(tiny(tmp_path, kimg=kimg, log_kimg=kimg, checkpoint_kimg=kimg, pl_weight=0.0, r1_gamma=0.0))
    text = capsys.readouterr().err
    assert said in text
    assert ("a CPU wants smaller networks: --preset tiny" in text) is advice


def test_a_limited_run_needs_no_advice(tmp_path, monkeypatch, capsys):
    slow(monkeypatch, 40.0, 40.0)
    train(tiny(tmp_path, kimg=1000.0), max_seconds=50.0)
    text = capsys.readouterr().err
    assert "0.1 images/s after the first step\n" in text
    assert "hours" not in text


def test_pages_name_what_a_cpu_trains():

    readme = (ROOT / "README.md").read_text()
    first = next(line for line in readme.splitlines() if line.startswith("imgops train"))
    assert TrainingConfig.for_cpu in first
    assert TrainingConfig.for_cpu in " ".join((ROOT / "docs" / "training.md").read_text().split())
