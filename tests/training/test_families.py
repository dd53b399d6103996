"""What goes for every recipe whose networks make pictures from random numbers: steps, resuming, pictures, commands."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from imgops import use_impl
from imgops._settings import resolution_text
from imgops.cli import app
from imgops.data import open_dataset
from imgops.training import Trainer, find_checkpoint, load_generator, train
from imgops.training import checkpoint as files
from imgops.training.config import GeneratorConfig
from imgops.training.recipes import RECIPES, config_class, recipe_class
from tests.training.test_compile import TRACES, Refusing, tracing  # noqa: F401
from tests.training.test_processes import TORCHRUN

#: the minibatch standard deviation of parts of a batch
GROUPS = {"mbstd_group": 2}
#: of each family, the smallest networks
FAMILIES: dict[str, dict[str, Any]] = {
    "stylegan2": {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "noise_strength": 0.5, **GROUPS},
    "stylegan3-t": {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "num_layers": 4, **GROUPS},
    "stylegan3-r": {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "num_layers": 4, **GROUPS},
    "stylegan1": {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "grow_kimg": 0.006, **GROUPS},
    "progan": {"z_dim": 8, "channel_base": 128, "channel_max": 8, "grow_kimg": 0.006, **GROUPS},
    "dcgan": {"z_dim": 8, "base_channels": 4},
    "r3gan": {"z_dim": 8, "channel_base": 128, "channel_max": 8, "blocks": 1},
    "autoencoder": {"z_dim": 8, "base_channels": 4},
    "vae": {"z_dim": 8, "base_channels": 4},
    "vqvae": {"base_channels": 4, "num_codes": 8, "code_dim": 4, "prior_channels": 8, "two_levels": True},
}
CLASSES = 4
#: those whose phases are like another's, by which
LIKE = {"stylegan3-r": "stylegan3-t", "progan": "stylegan1", "autoencoder": "vae"}


def settings(recipe: str, out: object, **changes: Any) -> GeneratorConfig:
    """A run of 16 px and 4 images per step."""
    small = {"data": "samples:textures", "out": str(out), "resolution": 16, "preset": "tiny", "batch": 4}
    often = {"kimg": 0.024, "log_kimg": 0.008, "grid_kimg": 1.0, "checkpoint_kimg": 0.008, "device": "cpu"}
    made: Any = config_class(recipe)(**{**small, **often, **FAMILIES[recipe], **changes})
    return made.resolve()


def trainer_of(config: GeneratorConfig) -> Trainer:
    data = open_dataset(config.data, config.resolution)
    return Trainer(config, data.labels, data.class_names)


def contents(run: object) -> dict[str, Tensor]:
    last = find_checkpoint(run)
    names = sorted(path.stem for path in last.glob("*.safetensors"))
    return {f"{name}.{key}": t for name in names for key, t in files.read_tensors(last, name).items()}


def imgops(*arguments: object) -> str:
    """The output of a command."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_family_is_here():
    assert FAMILIES.keys() == {name for name in RECIPES if issubclass(config_class(name), GeneratorConfig)}


@pytest.mark.parametrize("recipe", FAMILIES)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, recipe):
    train(settings(recipe, tmp_path / "whole"), quiet=True)
    train(settings(recipe, tmp_path / "parts", kimg=0.012), quiet=True)
    torch.randn(100)
    train(settings(recipe, tmp_path / "parts"), quiet=True, resume=True)
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


@pytest.mark.parametrize("recipe", FAMILIES)
def test_settings_refuse_the_shapes_that_networks_cannot_have_and_no_others(recipe, tmp_path):
    config, made_of = settings(recipe, tmp_path), recipe_class(recipe)
    builds = [getattr(made_of, name) for name in ("finished", "discriminator") if hasattr(made_of, name)]
    wide = [(8, 16), (9, 16), (12, 28), (12, 100), (16, 24), (20, 28), (32, 16), (48, 32), (64, 8)]
    outcomes = set()
    for resolution in [*wide, 8, 9, 12, 28, 30, 36, 40, 60]:
        changed = dataclasses.replace(config, resolution=resolution)
        try:
            with torch.device("meta"):
                for build in builds:
                    build(changed, 0)
        except ValueError:
            outcomes.add("refused")
            with pytest.raises(ValueError, match=rf"^resolution must .*; got {resolution_text(resolution)}( |$)"):
                changed.resolve()
        else:
            outcomes.add("built")
            changed.resolve()
    assert len(outcomes) == 2


def gradients_of(trainer: Trainer) -> list[Tensor]:
    """The gradients of each update of a step, of rates that change next to nothing."""
    found: list[Tensor] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        own = (p.grad for group in optimizer.param_groups for p in group["params"])
        found.append(torch.cat([gradient.flatten() for gradient in own if gradient is not None]))

    for optimizer in trainer.recipe.optimizers.values():
        optimizer.register_step_pre_hook(note)
    data, n = open_dataset(trainer.config.data, trainer.config.resolution), trainer.config.batch
    with use_impl("reference"):
        trainer.step(torch.stack([data[i][0] for i in range(n)]), torch.tensor([data[i][1] for i in range(n)]))
    return found


@pytest.mark.parametrize("recipe", [recipe for recipe in FAMILIES if recipe != "dcgan"])
def test_parts_of_a_batch_make_the_step_of_the_whole(tmp_path, recipe):
    """Batch norm, as of DCGAN, is of what is computed at once."""
    fields = {field.name for field in dataclasses.fields(config_class(recipe))}
    slow = {name: 1e-12 for name in ("g_lr", "d_lr", "lr", "lr_end") if name in fields}
    plain = {name: value for name, value in {"augment": "none", "pl_weight": 0.0}.items() if name in fields}
    whole, parts = (trainer_of(settings(recipe, tmp_path, micro_batch=size, **slow, **plain)) for size in (4, 2))
    for name, network in whole.recipe.networks.items():
        parts.recipe.networks[name].load_state_dict(network.state_dict())
    wanted, found = gradients_of(whole), gradients_of(parts)
    assert len(wanted) == len(found) > 0
    for a, b in zip(wanted, found, strict=True):
        assert float(a.norm()) > 0
        assert float((a - b).norm()) < 1e-4 * float(a.norm())
    result = whole.recipe.result
    for a, b in zip(whole.recipe.networks[result].buffers(), parts.recipe.networks[result].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("recipe", FAMILIES)
def test_no_step_waits_for_the_device(tmp_path, recipe):
    trainer = trainer_of(settings(recipe, tmp_path))
    batch = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), torch.arange(4)
    # of networks that grow one resolution fades in
    trainer.seen = 8
    with Refusing() as watched:
        trainer.step(*batch)
    assert "_fused_adam_" in watched.seen


@TRACES
@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [name for name in FAMILIES if name not in LIKE and hasattr(config_class(name), "compile")]
)
@pytest.mark.usefixtures("tracing")
def test_a_compiled_step_is_the_uncompiled_one(tmp_path, recipe):
    """Each phase is one graph; networks that grow have another one for each size, and while it fades in."""
    plain, compiled = (trainer_of(settings(recipe, tmp_path, compile=compile)) for compile in (False, True))
    real = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    for _ in range(4):
        measured, expected = compiled.step(real, torch.arange(4)), plain.step(real, torch.arange(4))
        assert measured.keys() == expected.keys()
        for name, value in measured.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)
    assert compiled.recipe.phases.compiling


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["stylegan1", "stylegan3-r", "r3gan", "vqvae"])
def test_two_processes_agree_with_one(tmp_path, recipe):
    """Of what processes share beside gradients: means of w and of squares, schedules, codes that begin anew."""
    base = {"data": "samples:textures", "preset": "tiny", "resolution": 16, "batch": 8, "kimg": 0.04, "log_kimg": 0.008}
    given = {**base, "device": "cpu", **FAMILIES[recipe]}
    options = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in given.items()]
    for processes in 1, 2:
        launcher = TORCHRUN if processes == 2 else ()
        command = [*launcher, "-m", "imgops", "train", "--recipe", recipe, *options]
        command += ["--out", str(tmp_path / str(processes))]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one.keys() == two.keys()
    for name, value in one.items():
        if not name.startswith("state."):
            # Adam makes a whole step of a gradient that only rounding keeps from 0
            difference = (value.double() - two[name].double()).abs()
            assert float(difference.mean()) < 1e-3 * max(0.002, float(value.abs().max())), name


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FAMILIES)
def test_pictures_of_a_run(tmp_path, recipe):
    config = settings(recipe, tmp_path / "run")
    train(config, quiet=True)
    network, meta = load_generator(tmp_path / "run")
    assert meta["config"] == config
    assert not network.training
    z, c = torch.randn(3, network.z_dim), torch.eye(3, CLASSES)
    assert network(z, c).shape == (3, 3, 16, 16)
    ways = ["--interpolate", "3"] if network.smooth else []
    imgops("generate", tmp_path / "run", "--seeds", "0-1", "--class", "0", "--out", tmp_path / "pictures", *ways)
    assert len(list((tmp_path / "pictures").glob("brick-seed*.png"))) == 5 - 3 * (recipe == "vqvae")


@pytest.mark.parametrize("recipe", FAMILIES)
def test_a_dry_run_says_every_setting(recipe, tmp_path):
    told = imgops(
        *("train", "--recipe", recipe, "--preset", "tiny", "--data", "samples:textures", "--out", tmp_path / "run"),
        *("--resolution", "32", "--dry-run", "--no-estimate"),
    )
    told = json.loads(told)
    assert told["recipe"] == recipe
    assert None not in [told[name] for name in ("batch", "kimg")]
    assert not (tmp_path / "run").exists()
