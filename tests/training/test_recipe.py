"""What the recipe of StyleGAN2 does beside the losses: augmentation, transfer, frozen parts, averages for later."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest
import safetensors.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imgops.data import open_dataset
from imgops.training import CheckpointError, DivergenceError, load_generator, train
from imgops.training import checkpoint as files
from imgops.training._draws import Draws
from imgops.training._opening import facts_of
from imgops.training.ema import SNAPSHOTS, snapshots, write_snapshot
from imgops.training.recipes import stylegan2
from imgops.training.recipes._adversarial_config import PIPES
from imgops.training.recipes._augmentation import Augmentation, Choices
from tests.test_training import batch_of, contents, stats, tiny, trainer_of


def test_the_settings_name_the_pipes_that_there_are():
    from imgops.training import augment

    assert tuple(PIPES) == tuple(augment.PIPES)


@pytest.mark.parametrize(
    ("settings", "driven"),
    [
        ({"augment": "none"}, set()),
        ({"augment": "fixed"}, set()),
        ({"augment": "diffaug"}, set()),
        ({"augment": "ada"}, {"augment_p"}),
        ({"augment": "ada", "apa": True}, {"augment_p", "pseudo_p"}),
        ({"augment": "diffaug", "apa": True}, {"pseudo_p"}),
    ],
)
def test_augmentations_train_and_say_how_strong_they_are(tmp_path, settings, driven):
    trainer = trainer_of(tiny(tmp_path, **settings))
    for _ in range(3):
        measured = trainer.step(*batch_of(trainer))
        assert all(torch.isfinite(value) for value in measured.values())
        assert {name for name in measured if name.endswith("_p")} == driven


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_all_that_the_discriminator_sees_is_augmented(tmp_path, loss):
    def measured(**settings: object) -> dict[str, float]:
        config = tiny(tmp_path, loss=loss, g_lr=1e-9, d_lr=1e-9, pl_weight=0.0, noise_strength=1.0, **settings)
        trainer = trainer_of(config)
        return {name: float(value) for name, value in trainer.step(*batch_of(trainer)).items()}

    plain, none = measured(augment="none"), measured(augment="fixed", augment_p=0.0)
    # a pipe that never does anything still re-samples, which is the picture to rounding
    assert none == pytest.approx(plain, rel=1e-3)
    strong = measured(augment="fixed", augment_p=1.0)
    # the generator's loss, both kinds of pictures in the discriminator's, and its penalty
    for name in "loss_g", "logit_real", "logit_fake", "r1":
        assert strong[name] != pytest.approx(plain[name], rel=0.1), name


def test_the_probability_follows_the_discriminator(tmp_path):
    # on four pictures alone the discriminator soon knows all of them
    trainer = trainer_of(
        tiny(tmp_path, g_lr=1e-9, d_lr=0.02, r1_gamma=0.0, pl_weight=0.0, augment="ada", ada_interval=1, ada_kimg=0.4)
    )
    batch = batch_of(trainer)
    found = [float(trainer.step(*batch)["augment_p"]) for _ in range(40)]
    assert max(found) >= 0.1
    assert all(abs(b - a) == pytest.approx(0.01, abs=1e-6) or a + b < 0.02 for a, b in itertools.pairwise(found))


def test_a_run_with_everything_resumes_exactly(tmp_path):
    everything = {
        "augment": "ada",
        "augment_p": 0.3,
        "augment_pipe": "bgcfnc",
        "apa": True,
        "ada_interval": 2,
        "ada_kimg": 0.1,
        "ema_snapshot_kimg": 0.008,
    }
    train(tiny(tmp_path / "whole", kimg=0.048, **everything), quiet=True)
    train(tiny(tmp_path / "parts", **everything), quiet=True)
    train(tiny(tmp_path / "parts", kimg=0.048, **everything), quiet=True, resume=True)
    assert stats(tmp_path / "whole") == stats(tmp_path / "parts")
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert {"state.augment_p.p", "state.pseudo_p.p", "state.averages.seen"} <= whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    kept = [path.name for path in snapshots(tmp_path / "whole" / SNAPSHOTS)]
    assert kept == [f"ema-{images:010d}.safetensors" for images in range(8, 49, 8)]
    for name in kept:
        one, other = (tmp_path / run / SNAPSHOTS / name for run in ("whole", "parts"))
        one, other = safetensors.torch.load_file(one), safetensors.torch.load_file(other)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_is_frozen_stays(tmp_path):
    trainer = trainer_of(tiny(tmp_path, freeze_d=1, freeze_m=True, freeze_e=True, resolution=16))
    before = {f"{n}.{k}": p.clone() for n in "GD" for k, p in getattr(trainer, n).named_parameters()}
    for _ in range(2):
        trainer.step(*batch_of(trainer))
    after = {f"{n}.{k}": p for n in "GD" for k, p in getattr(trainer, n).named_parameters()}
    for name, value in before.items():
        kept = name.startswith(("D.b16.", "G.mapping.")) or ".affine." in name
        assert torch.equal(value, after[name]) is (kept or (name.endswith("noise_strength") and not after[name].any()))


def test_transfer_takes_what_fits_and_says_how_much(tmp_path, capsys):
    first = train(tiny(tmp_path / "first", kimg=0.008, augment="none"), quiet=True)
    run = tmp_path / "second"
    config = tiny(run, resolution=16, init=str(tmp_path / "first"), kimg=0.004, g_lr=1e-9, d_lr=1e-9, augment="ada")
    assert config.ada_kimg == 100
    train(config)
    said = capsys.readouterr().err
    generator, _ = load_generator(run)
    found = files.read_tensors(first, "G")
    assert torch.allclose(generator.synthesis.b8.conv1.weight, found["synthesis.b8.conv1.weight"], atol=1e-6)
    assert f"of {sum(len(n.state_dict()) for n in trainer_of(config).recipe.networks.values())} tensors from" in said
    # the same command with --resume auto does not begin anew
    train(dataclasses.replace(config, kimg=0.008), resume="auto", quiet=True)
    with pytest.raises(CheckpointError, match="neither a checkpoint nor the folder of a run"):
        train(tiny(tmp_path / "third", init=str(tmp_path / "nothing")), quiet=True)


def test_transfer_from_an_average_alone_begins_the_generator_with_it(tmp_path):
    first = train(tiny(tmp_path / "first", kimg=0.008), quiet=True)
    for name in "G", "D", "state":
        (first / f"{name}.safetensors").unlink()
    trainer = trainer_of(tiny(tmp_path / "second"))
    taken = trainer.recipe.start_from({"G_ema": files.read_tensors(first, "G_ema")})
    assert taken == 2 * len(trainer.G.state_dict())
    average = files.read_tensors(first, "G_ema")
    assert all(torch.equal(value, average[name]) for name, value in trainer.G.state_dict().items())


def test_gradients_that_are_not_finite_are_counted(tmp_path):
    trainer = trainer_of(tiny(tmp_path, num_fp16_res=1, half_dtype="bfloat16", pl_weight=0.0, r1_gamma=0.0))
    hook = trainer.G.synthesis.b8.conv1.weight.register_hook(lambda g: g * float("nan"))
    share = 1 / sum(1 for _ in trainer.G.parameters()) / 2
    assert float(trainer.step(*batch_of(trainer))["bad_gradients"]) == pytest.approx(share, rel=1e-4)
    hook.remove()
    assert float(trainer.step(*batch_of(trainer))["bad_gradients"]) == 0
    trainer.check_finite({})


def test_bfloat16_trains_as_float32_does(tmp_path):
    def means(num_fp16_res: int) -> dict[str, float]:
        trainer = trainer_of(tiny(tmp_path, resolution=16, num_fp16_res=num_fp16_res))
        assert trainer.config.half_dtype == "bfloat16"
        batch, found = batch_of(trainer), dict[str, list[float]]()
        for _ in range(12):
            for name, value in trainer.step(*batch).items():
                found.setdefault(name, []).append(float(value))
        trainer.check_finite({})
        return {name: sum(values) / len(values) for name, values in found.items()}

    half, single = means(4), means(0)
    assert half["bad_gradients"] == single["bad_gradients"] == 0
    for name, tolerance in {"loss_g": 0.03, "loss_d": 0.03, "path_length": 0.1, "r1": 0.3}.items():
        assert half[name] == pytest.approx(single[name], rel=tolerance), name


def test_parts_of_the_discriminator_have_rates_of_their_own(tmp_path):
    trainer = trainer_of(tiny(tmp_path, d_lr_layers="b8=0, b4=0.5", pl_weight=0.0, r1_gamma=0.0))
    before = {name: p.clone() for name, p in trainer.D.named_parameters()}
    trainer.step(*batch_of(trainer))
    moved = {name: float((p - before[name]).detach().abs().max()) for name, p in trainer.D.named_parameters()}
    # Adam's first step is as long as its rate
    for part, rate in ("b8.", 0.0), ("b4.", 0.00125), ("mapping.", 0.0025):
        assert max(v for name, v in moved.items() if name.startswith(part)) == pytest.approx(rate, rel=0.01, abs=1e-9)


@pytest.mark.parametrize("text", ["b16=0.1", "b8", "b8=-1", "b8=nan", "b8=0.1,,", "torgb=1"])
def test_rates_of_parts_that_are_none_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"d_lr_layers must be factors for b4, b8, mapping, as b8=0\.1; got "):
        tiny(tmp_path, d_lr_layers=text)


def test_generated_pictures_that_are_shown_as_real_keep_their_classes():
    choices = Choices("none", "bgc", 0.0, "color", True, 0.6, 4, 500.0)
    augmentation = Augmentation(choices, torch.device("cpu"))
    augmentation.pseudo.p.fill_(0.5)
    real, fake = torch.zeros(64, 3, 8, 8), torch.ones(64, 3, 8, 8)
    c, fake_c = torch.zeros(64, 2), torch.ones(64, 2)
    shown, labels = augmentation.mixed(real, c, fake, fake_c, lambda: Draws(range(64), torch.device("cpu")))
    assert torch.equal(shown[:, 0, 0, 0], labels[:, 0])
    assert 10 < float(labels[:, 0].sum()) < 54


@pytest.mark.parametrize(("kind", "pipe"), [("fixed", "bgcfnc"), ("fixed", "noise"), ("diffaug", "bgc")])
def test_an_image_is_augmented_the_same_whatever_its_batch(kind, pipe):
    choices = Choices(kind, pipe, 1.0, "color,translation,cutout", False, 0.6, 4, 500.0)
    augmentation, device = Augmentation(choices, torch.device("cpu")), torch.device("cpu")
    images = torch.randn(6, 3, 16, 16)

    def augmented(first: int, every: int) -> torch.Tensor:
        own = augmentation.drawn(lambda: Draws(range(first, 6, every), device), images.shape[1:])
        return augmentation(images[first::every], own)

    whole = augmented(0, 1)
    for first in 0, 1:
        assert torch.allclose(augmented(first, 2), whole[first::2], atol=1e-6)
    assert not torch.allclose(whole, images)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 8, "mbstd_group": 4, "micro_batch": 4}, None),
        ({"batch": 8, "mbstd_group": 1, "micro_batch": 1, "pl_weight": 0.0}, None),
        (
            {"batch": 8, "mbstd_group": 4, "micro_batch": 2},
            "of 2 images: the minibatch standard deviation is over 2, not 4",
        ),
        (
            {"batch": 8, "mbstd_group": 1, "micro_batch": 1},
            "of 1 images: the path length is measured on 8 of 8, not 4",
        ),
        (
            {"batch": 9, "mbstd_group": 9, "micro_batch": 3},
            "of 3 images: the minibatch standard deviation is over 3, not 9; the path length is measured on 3 of 9, "
            "not 4",
        ),
    ],
)
def test_a_run_says_where_parts_of_the_batch_change_the_step(tmp_path, monkeypatch, settings, said):
    trainer = trainer_of(tiny(tmp_path, **settings))
    assert trainer.recipe.advice().get("parts") == said
    measured, lengths = [], stylegan2.path_lengths
    monkeypatch.setattr(stylegan2, "path_lengths", lambda *given: measured.append(len(given[0])) or lengths(*given))
    trainer.step(*batch_of(trainer))
    assert f"measured on {sum(measured)} of" in (said or "") or sum(measured) in (0, settings["batch"] // 2)


def test_the_disk_line_counts_the_snapshots_of_averages_and_the_best(tmp_path):
    config = tiny(tmp_path, kimg=0.05, ema_snapshot_kimg=0.02, metrics="fd", metrics_kimg=100.0, keep=2, pl_weight=0.0)
    trainer = trainer_of(config)
    line, snapshots_line = facts_of(trainer, open_dataset(config.data, 8), tmp_path)["disk"].splitlines()
    assert line.endswith(f"{trainer.checkpoint_bytes() * 3 / 1e6:.3g} MB for the 2 that {tmp_path} keeps and the best")
    trainer.step(*batch_of(trainer))
    size = write_snapshot(tmp_path, trainer.recipe.averages).stat().st_size
    found = re.fullmatch(r" {10}([\d.]+) MB for the averages, in 3 snapshots", snapshots_line)
    # beside the tensors a file has their names
    assert 0.5 < float(found[1]) * 1e6 / 3 / size < 1
    # after each step at most
    config = dataclasses.replace(config, ema_snapshot_kimg=0.001)
    assert facts_of(trainer_of(config), open_dataset(config.data, 8), tmp_path)["disk"].endswith("in 13 snapshots")


def test_weights_are_checked_in_one_copy_from_the_device(tmp_path):
    trainer = trainer_of(tiny(tmp_path))
    # a number that the host waits for
    with Counted(torch.ops.aten._local_scalar_dense.default) as counted:
        trainer.check_finite({"loss_g": 1.0})
    assert counted.times == 0
    with torch.no_grad():
        trainer.D.b4.conv.weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(DivergenceError, match=r"D\.b4\.conv\.weight is no longer finite"):
        trainer.check_finite({})


class Counted(TorchDispatchMode):
    """Counts the calls of an operator."""

    def __init__(self, operator: object) -> None:
        super().__init__()
        self.operator, self.times = operator, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.times += operator is self.operator
        return operator(*args, **(kwargs or {}))
