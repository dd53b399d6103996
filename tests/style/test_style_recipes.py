"""The trainings of networks for style transfer as recipes of the engine: commands, processes, what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from imgops.data.pictures.samples import SAMPLES
from imgops.models.encoders.vgg import VGG
from imgops.models.style.weights import load_adain_decoder, load_transform_net
from imgops.style import train_adain, train_fast, training_recipes
from imgops.style.training_config import AdaINStyleConfig, FastStyleConfig, of_training
from imgops.style.training_settings import AdaINTraining, FastTraining
from imgops.training import CheckpointError, load_generator
from imgops.training import checkpoint as files
from imgops.training.config import RunConfig
from imgops.training.processes import Processes
from imgops.training.recipes import RECIPES, config_class, recipe_class
from tests.test_cli import error, imgops

SMALL = ("--data", "samples:", "--preset", "tiny", "--resolution", "32", "--kimg", "0.008", "--device", "cpu")
OFTEN = ("--log-kimg", "0.002", "--checkpoint-kimg", "0.002", "--keep", "9")
OF_RECIPE = {
    "style-fast": ("--style", "samples:hubble", "--widths", "4,6,8"),
    "style-adain": ("--block", "2", "--identity-weight", "0.5"),
}
NETWORKS = sorted(OF_RECIPE)


def command(recipe: str, out: object, *more: object) -> list[object]:
    return ["train", "--recipe", recipe, *SMALL, *OFTEN, *OF_RECIPE[recipe], "--out", out, *more]


def sources_of(recipe: str) -> list[str]:
    return ["content"] if recipe == "style-fast" else ["content", "style"]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    newest = files.find_checkpoint(out)
    found = {f"state.{k}": t for k, t in files.read_tensors(newest, "state").items()}
    recipe = files.read_meta(newest)["config"].recipe
    load = load_transform_net if recipe == "style-fast" else load_adain_decoder
    # in the order of the parameters
    return found | {f"network.{k}": t for k, t in load(newest / "network.safetensors").state_dict().items()}


@pytest.mark.parametrize("recipe", NETWORKS)
def test_a_recipe_trains_goes_on_exactly_and_its_network_is_used(tmp_path, recipe):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, said = imgops(*command(recipe, whole))
    assert "trained on 8 images" in said
    imgops(*command(recipe, parts, "--kimg", "0.004"))
    # the recipe is that of the run
    imgops("train", "--out", parts, "--resume", "--kimg", "0.008")
    wanted, found = tensors(whole), tensors(parts)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert (whole / "network.safetensors").read_bytes() == (parts / "network.safetensors").read_bytes()
    # the free pictures, of a decoder as contents and as styles
    assert files.read_meta(files.find_checkpoint(whole))["data"]["count"] == len(SAMPLES) * len(sources_of(recipe))
    records = [json.loads(line) for line in (whole / "stats.jsonl").read_text().splitlines()]
    assert [record["images"] for record in records] == [2, 4, 6, 8]
    assert all({"loss_total", "loss_content", "loss_style"} <= record.keys() for record in records)
    # eight columns, a row for each kind of crop and one for the results
    rows = 2 if recipe == "style-fast" else 3
    sheet = Image.open(whole / "samples" / "0000000008.png")
    assert sheet.height == rows * 32
    assert "<title>whole</title>" in (whole / "report.html").read_text()
    load = load_transform_net if recipe == "style-fast" else load_adain_decoder
    network = load(whole / "network.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, found[f"network.{name}"]), name


@pytest.mark.parametrize("recipe", NETWORKS)
def test_a_dry_run_measures_and_writes_nothing(tmp_path, recipe):
    out, said = imgops(*command(recipe, tmp_path / "run", "--dry-run"))
    assert json.loads(out)["recipe"] == recipe
    assert re.search(r"^memory +\d", said, re.MULTILINE)
    assert re.search(r"^speed +\d", said, re.MULTILINE)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", NETWORKS)
def test_two_processes_agree_with_one(tmp_path, recipe):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = []
    for processes in 1, 2:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"] if processes == 2 else []
        arguments = command(recipe, tmp_path / str(processes), "--batch", "4", "--kimg", "0.012")
        line = [sys.executable, *launcher, "-m", "imgops", *map(str, arguments)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("of 2 processes" in done.stderr) == (processes == 2)
        found.append(tensors(tmp_path / str(processes)))
        records = (tmp_path / str(processes) / "stats.jsonl").read_text().splitlines()
        found.append([{k: v for k, v in json.loads(line).items() if "second" not in k} for line in records])
    one, records, two, others = found
    assert one.keys() == two.keys()
    rate = config_class(recipe)("samples:", "out", **({"style": "x"} if recipe == "style-fast" else {})).lr
    compared = 0
    for i, name in enumerate(name for name in one if name.startswith("network.") and name != "network.layer_name"):
        # what a normalization takes out again has no gradient but rounding, of which Adam makes whole steps
        if float(one[f"state.optimizer.{i}.exp_avg_sq"].max()) > 1e-10:
            # of one step that Adam makes of a gradient, whatever its size, rounding moves a part
            assert float((one[name] - two[name]).abs().mean()) < 0.1 * rate, name
            compared += 1
    assert compared > 5
    for a, b in zip(records, others, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_of_a_recipe_has_its_options(recipe):
    page = " ".join(imgops("train", "--recipe", recipe, "--help")[0].split())
    assert f"[default: {recipe}]" in page.replace("│ ", "")
    for name, of in (("--style ", "style-fast"), ("--styles ", "style-adain"), ("--pl-weight ", "stylegan2")):
        assert (name in page) == (recipe == of), name
    assert page == " ".join(imgops("train", f"--recipe={recipe}", "--help")[0].split())


def test_the_page_of_a_run_has_the_options_of_its_recipe(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"recipe": "style-fast"}')
    assert "--style " in imgops("train", "--out", run, "--resume", "--help")[0]
    assert "--style " in imgops("train", "--config", run / "config.json", "--help")[0]
    assert "--style " not in imgops("train", "--out", run, "--help")[0]


def test_what_does_not_fit_is_one_line(tmp_path):
    out = tmp_path / "run"
    assert error("train", "--recipe", "style-fast", "--data", "samples:", "--out", out) == (
        "imgops: error: --style is missing: the picture whose style the network learns "
        "(see imgops train --recipe style-fast --help)"
    )
    assert "no such option" in error(*command("style-fast", out, "--z-dim", "4")).lower()
    assert "--network must end in .safetensors; got x.pth" in error(*command("style-fast", out, "--network", "x.pth"))
    for side, said in ("8", "16 or more; got 8"), ("32x64", "a whole number; got '32x64'"):
        assert f"--resolution must be {said}" in error(*command("style-fast", out, "--resolution", side))
    weights = "--content-weight and --style-weight cannot both be 0"
    assert weights in error(*command("style-fast", out, "--content-weight", "0", "--style-weight", "0"))
    assert "--recipe must be stylegan2" in error("train", "--recipe", "cubism", "--out", out)
    assert "nowhere: no such folder" in error(*command("style-adain", out, "--styles", tmp_path / "nowhere"))
    assert not out.exists()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (40, 40)).save(pictures / "a.png")
    inside = error(*command("style-fast", pictures / "run", "--data", pictures))
    assert "lies inside the data" in inside
    imgops(*command("style-fast", out))
    assert f"{out}: is a run of the recipe style-fast; --recipe stylegan2 cannot go on" in error(
        "train", "--recipe", "stylegan2", "--out", out, "--resume"
    )
    assert "lr cannot change when a run is continued" in error("train", "--out", out, "--resume", "--lr", "0.5")
    assert "is of the recipe style-fast, which makes no generator" in error("generate", out)
    other = error("train", "--out", out, "--resume", "--style", "samples:coffee", "--kimg", "1")
    assert "the encoder or the style is another one" in other
    with pytest.raises(CheckpointError, match="makes no generator"):
        load_generator(out)
    with pytest.raises(ValueError, match="micro_batch must be the whole share of a process, 4"):
        FastStyleConfig(data="samples:", out="x", style="y", batch=4, micro_batch=2).resolve()


@pytest.mark.parametrize(("recipe", "name"), [("style-fast", "style"), ("style-adain", "weights")])
def test_a_run_that_began_in_python_says_what_is_missing(tmp_path, recipe, name):
    settings = {"widths": (4, 6, 8)} if recipe == "style-fast" else {"block": 2}
    given = {"size": 16, "batch": 1, "steps": 1, **settings}
    out, encoder = tmp_path / "a.safetensors", VGG((1, 1, 1, 1), widths=(4, 5, 6, 7))
    if recipe == "style-fast":
        train_fast(torch.rand(3, 20, 20), "samples:", out, encoder, FastTraining(**given))
    else:
        train_adain("samples:", "samples:", out, encoder, AdaINTraining(**given))
    for more in (
        ("--out", f"{out}.state", "--resume", "--kimg", "1"),
        (*("--config", f"{out}.state/config.json", "--out", tmp_path / "again"),),
    ):
        line = error("train", *more)
        assert f"--{name} must be given: this run began in Python" in line


def test_a_network_of_another_run_stays(tmp_path):
    """Neither --config nor --network writes over a file; a finished run brings its own back."""
    run, network = tmp_path / "run", tmp_path / "nets" / "a.safetensors"
    imgops(*command("style-fast", run, "--network", network))
    trained = network.read_bytes()
    assert "network must be a new file" in error(*command("style-fast", tmp_path / "other", "--network", network))
    imgops("train", "--config", run / "config.json", "--out", tmp_path / "again", "--seed", "5")
    assert network.read_bytes() == trained
    assert (tmp_path / "again" / "network.safetensors").read_bytes() != trained
    network.unlink()
    imgops("train", "--out", run, "--resume")
    assert network.read_bytes() == trained
    moved = tmp_path / "moved.safetensors"
    imgops("train", "--out", run, "--resume", "--network", moved)
    assert moved.read_bytes() == trained


def test_preprocessing_is_of_the_encoder_that_is_decoded(tmp_path, monkeypatch):
    asked = []
    load = training_recipes.load_encoder

    def told(weights, *, preprocessing, frame):
        asked.append((weights, preprocessing))
        return load(weights, preprocessing=preprocessing, frame=frame)

    monkeypatch.setattr(training_recipes, "load_encoder", told)
    config = AdaINStyleConfig(
        data="samples:", out=str(tmp_path / "run"), preset="tiny", preprocessing="caffe", loss_weights="embedded"
    )
    recipe_class("style-adain")(config.resolve(), None, (), Processes())
    assert asked == [("default", "caffe"), ("embedded", None)]


def test_a_limit_in_time_leaves_a_preview(tmp_path):
    out, preview = tmp_path / "a.safetensors", tmp_path / "now.png"
    more = ("--size", "32", "--widths", "4,6,8", "--blocks", "1", "--batch", "1", "--save-every", "100000")
    limit = ("--minutes", "0.1", "--device", "cpu", "--preview", preview, "-o", out)
    text, _ = imgops("style", "train-fast", "samples:hubble", *more, *limit)
    assert "--resume goes on" in text
    assert out.exists()
    assert Image.open(preview).size == (64, 32)


def test_a_file_of_a_run_names_no_function(tmp_path):
    path = tmp_path / "config.json"
    values = {"recipe": "style-adain", "data": "samples:", "out": "run", "weights": "os:abort", "loss_weights": "a:b"}
    path.write_text(json.dumps(values))
    with pytest.warns(UserWarning, match="is a function, which only the command line may name") as warned:
        config = AdaINStyleConfig.read(path, {})
    assert (config.weights, config.loss_weights) == ("default", None)
    assert {str(w.message).split()[0] for w in warned} == {"weights", "loss_weights"}


@pytest.mark.parametrize(
    ("training", "config"), [(FastTraining(), FastStyleConfig), (AdaINTraining(), AdaINStyleConfig)]
)
def test_settings_of_both_ways_are_the_same(training, config):
    """Those of the functions of Python, and those of the recipe where nothing is given."""
    more = {"style": "x"} if config is FastStyleConfig else {}
    plain = config(data="samples:", out="run", **more).resolve()
    same = of_training(training, config, data="samples:", out="run", **more).resolve()
    for field in dataclasses.fields(config):
        if field.name not in ("checkpoint_kimg", "grid_kimg"):
            assert getattr(plain, field.name) == getattr(same, field.name), field.name
    # every setting of the training has gone somewhere
    renamed = {"size": "resolution", "steps": "kimg", "save_every": "checkpoint_kimg"}
    for field in dataclasses.fields(training):
        assert hasattr(plain, renamed.get(field.name, field.name)), field.name
    assert [plain.rate(i) for i in (0, 100)] == [training.rate(i) for i in (0, 100)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_tried_out(recipe):
    """Each has the preset tiny, a page, and settings that say nothing twice."""
    settings = config_class(recipe)
    assert settings.recipe == recipe
    assert settings.about.startswith(("Train a ", "Train an "))
    assert "Example: imgops train" in settings.about
    needed = dict.fromkeys(settings.required(), "samples:textures")
    config = settings(**needed, preset="tiny").resolve()
    assert all(getattr(config, name) is not None for name in ("kimg", "batch", "resolution"))
    assert issubclass(settings, RunConfig)
    assert recipe_class(recipe).result
