"""What is particular to the steps of families: schedules, blurs, running means, presets, what does not go together."""

from __future__ import annotations

import math

import pytest
import torch

from imgops.training.recipes import config_class
from imgops.training.recipes._adversarial import Shown
from imgops.training.recipes._base import Moment
from imgops.training.recipes._parts import parts_of
from tests.training.test_families import settings, trainer_of

MOMENT = Moment(0, 0, range(4), 0)


def resolved(recipe: str, **given: object):
    return config_class(recipe)(**{"data": "", "out": "", "device": "cpu", **given}).resolve()


def test_the_schedules_of_r3gan_follow_half_a_cosine(tmp_path):
    given = {"schedule_kimg": 0.016, "kimg": 0.032, "r1_gamma": 2.0, "augment_p_end": 0.4}
    trainer = trainer_of(settings("r3gan", tmp_path, **given))
    recipe, real = trainer.recipe, torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    for seen in range(0, 28, 4):
        trainer.step(real, torch.arange(4))
        share = (1 - math.cos(math.pi * min(1, seen / 16))) / 2
        for name in "G", "D":
            (group,) = recipe.optimizers[name].param_groups
            assert group["lr"] == pytest.approx(2e-4 + (5e-5 - 2e-4) * share)
            assert group["betas"] == (0.0, pytest.approx(0.9 + 0.09 * share))
        assert recipe.penalty_weight == pytest.approx((2 - 1.8 * share) / 2)
        assert float(recipe.augmentation.pipe.p) == pytest.approx(0.4 * share)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("progan", {0: 0, 3999: 0, 5000: 0.25, 8000: 1, 11_999: 1, 14_000: 1.5, 16_000: 2, 20_000: 2, 1e9: 3}),
        ("stylegan1", {0: 1, 4000: 1, 6000: 1.5, 8000: 2, 13_000: 2.25, 1e9: 3}),
    ],
)
def test_networks_grow_by_the_pictures_shown(recipe, expected):
    config = resolved(recipe, preset="tiny", resolution=32, grow_kimg=4.0)
    assert {seen: config.level_at(seen) for seen in expected} == expected
    whole = resolved(recipe, preset="tiny", resolution=(24, 32), grow_kimg=0.0)
    assert whole.level_at(0) == whole.level_at(10**9) == 3
    # the smallest that StyleGAN1 begins with may be all that there is
    assert resolved(recipe, resolution=8, preset="tiny").level_at(10**9) == 1


@pytest.mark.parametrize(
    ("recipe", "augment"), [("progan", "none"), ("progan", "diffaug"), ("stylegan1", "fixed"), ("stylegan1", "diffaug")]
)
def test_growing_networks_see_pictures_of_their_size(tmp_path, recipe, augment):
    trainer = trainer_of(settings(recipe, tmp_path, grow_kimg=0.008, augment=augment))
    real, sides = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), []
    trainer.D.register_forward_pre_hook(lambda network, given: sides.append(given[0].shape[-1]))
    levels = [float(trainer.step(real, torch.arange(4))["level"]) for _ in range(10)]
    assert levels == pytest.approx([trainer.config.level_at(4 * k) for k in range(10)])
    assert levels[0] == trainer.config.first_level
    assert levels[-1] == 2
    assert sides == sorted(sides)
    assert set(sides) == {4, 8, 16} - ({4} if recipe == "stylegan1" else set())
    assert trainer.G_ema.synthesis.top == 2 if recipe == "stylegan1" else trainer.G_ema.top == 2
    (part,) = parts_of(trainer.recipe, real, torch.arange(4), Moment(0, 0, range(4), 0))
    trainer.D.grow(0.5)
    small = torch.nn.functional.avg_pool2d(part.real, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = (small + torch.nn.functional.avg_pool2d(part.real, 2)) / 2
    torch.testing.assert_close(trainer.recipe.prepare(part).real, wanted)


def test_styles_mix_among_the_layers_in_use(tmp_path):
    trainer = trainer_of(settings("stylegan1", tmp_path, style_mixing=1.0))
    part = parts_of(trainer.recipe, torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.arange(4), MOMENT)[0]
    for level in (0, 1, 2):
        trainer.G.grow(level)
        latents = trainer.recipe.latents(part.draws("generator"))
        in_use = latents.mixed[:, : 2 * (level + 1), 0]
        assert in_use[:, -1].all()
        assert not in_use[:, 0].any()
        assert [tuple(t.shape[2:]) for t in latents.noise] == [(4 * 2**k,) * 2 for k in range(level + 1) for _ in "12"]


def test_a_run_says_how_its_networks_grow():
    shown = {"resolution": 64, "grow_kimg": 10.0, "preset": "tiny"}
    assert resolved("progan", kimg=100.0, **shown).growth().endswith("all after 80 thousand images")
    assert "the run ends at 16 x 16" in resolved("progan", kimg=45.0, **shown).growth()
    assert resolved("stylegan1", kimg=45.0, resolution=64, preset="tiny", grow_kimg=0.0).growth() == ""


def test_the_drift_is_of_the_wasserstein_loss():
    assert [resolved("progan", loss=loss, preset="tiny").drift for loss in ("wgan-gp", "hinge")] == [0.001, 0.0]


def test_progan_weighs_the_drift_of_real_logits(tmp_path):
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [0.5]])
    recipe = trainer_of(settings("progan", tmp_path, drift=0.1)).recipe
    assert float(recipe.discriminator_loss(real, fake)) == pytest.approx(0.5 - 2 + 0.1 * 5)


def test_the_mapping_network_of_stylegan1_learns_slowly(tmp_path):
    trainer = trainer_of(settings("stylegan1", tmp_path))
    groups = trainer.recipe.optimizers["G"].param_groups
    slow = {id(p) for p in trainer.G.style.parameters()}
    (rate,) = {group["lr"] for group in groups for p in group["params"] if id(p) in slow}
    (other,) = {group["lr"] for group in groups for p in group["params"] if id(p) not in slow}
    assert rate == pytest.approx(0.01 * other)


def test_pictures_too_small_to_augment_are_told():
    with pytest.raises(ValueError, match="augment must be none or diffaug where pictures are of 4 pixels at first"):
        resolved("progan", augment="fixed")
    assert resolved("progan", augment="fixed", grow_kimg=0.0).augment == "fixed"
    assert resolved("stylegan1", augment="ada").augment == "ada"


def test_r3gan_takes_no_other_loss():
    with pytest.raises(ValueError, match="loss must be relativistic"):
        resolved("r3gan", loss="hinge")
    with pytest.raises(ValueError, match="r1_interval 1"):
        resolved("r3gan", r1_interval=4)


@pytest.mark.parametrize(
    ("recipe", "given", "wanted"),
    [
        ("stylegan3-t", {"resolution": 128, "batch": 32}, {"r1_gamma": 0.5, "blur_sigma": 0.0, "num_layers": 14}),
        ("stylegan3-t", {"resolution": 1024, "batch": 32}, {"r1_gamma": 32.0, "ema_kimg": 10.0, "mapping_layers": 2}),
        ("stylegan3-r", {"resolution": 256, "batch": 32}, {"r1_gamma": 2.0, "blur_sigma": 10.0, "blur_kimg": 200.0}),
        ("stylegan3-r", {"resolution": 32, "preset": "tiny"}, {"blur_sigma": 0.0, "num_layers": 6}),
        ("stylegan3-r", {"resolution": 256}, {"g_lr": 0.0025, "d_lr": 0.002, "batch": 16, "blur_kimg": 100.0}),
        ("stylegan1", {"resolution": 1024}, {"g_lr": 0.003, "mapping_layers": 8, "grow_kimg": 600.0, "z_dim": 512}),
        ("stylegan1", {"resolution": 64}, {"g_lr": 0.001, "style_mixing": 0.9, "augment": "none", "r1_interval": 16}),
        ("progan", {"batch": 16}, {"loss": "wgan-gp", "r1_gamma": 0.0, "drift": 0.001, "g_lr": 0.001, "beta1": 0.0}),
        ("r3gan", {"preset": "cifar", "resolution": 32}, {"batch": 512, "r1_gamma": 0.05, "r1_gamma_end": 0.005}),
        ("r3gan", {"preset": "ffhq64"}, {"batch": 256, "r1_gamma": 2.0, "r1_gamma_end": 0.2, "z_dim": 64}),
        ("r3gan", {"preset": "ffhq256", "resolution": 256}, {"r1_gamma": 150.0, "augment_p_end": 0.3}),
        ("dcgan", {}, {"batch": 128, "g_lr": 2e-4, "beta1": 0.5, "beta2": 0.999, "r1_gamma": 0.0, "augment": "none"}),
        ("dcgan", {"preset": "textbook", "resolution": 28}, {"kernel_size": 5, "channel_max": 256, "z_dim": 100}),
    ],
)
def test_presets(recipe, given, wanted):
    config = resolved(recipe, **given)
    assert {name: getattr(config, name) for name in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        ("dcgan", {"resolution": 30}, "until the shorter is 4 to 7 and the longer at most 16; got 30"),
        ("vae", {"resolution": (16, 96)}, "until the shorter is 4 to 7 and the longer at most 16; got 96x16"),
        ("stylegan3-t", {"resolution": 8}, "until the longer is 9 to 17 with the recipe stylegan3-t; got 8"),
        (
            "vqvae",
            {"resolution": (36, 64), "two_levels": True},
            "by 8, as the coarsest grid of codes is that coarser; got 64x36",
        ),
        ("vqvae", {"resolution": 36, "levels": 3}, "by 8, as the coarsest grid of codes is that coarser; got 36"),
    ],
)
def test_a_shape_that_no_network_of_the_recipe_has_is_told(recipe, given, message):
    with pytest.raises(ValueError, match=rf"^resolution must be (sides that halve together|divisible) {message}$"):
        resolved(recipe, **given)


def test_processes_share_the_batch_of_a_preset():
    for recipe, batches in {"dcgan": (126, 200), "vae": (63, 200), "r3gan": (63, 200)}.items():
        for processes, batch in zip((3, 200), batches, strict=True):
            given = {"data": "", "out": "", "device": "cpu"}
            assert config_class(recipe)(**given).resolve(processes).batch == batch


def test_what_an_average_would_be_of_other_weights_is_refused():
    with pytest.raises(ValueError, match="ema_kimg must be 0"):
        resolved("dcgan", ema_kimg=10.0)
    for recipe in "autoencoder", "vqvae":
        with pytest.raises(ValueError, match="ema_snapshot_kimg must not be given"):
            resolved(recipe, ema_snapshot_kimg=1.0)


def test_an_average_that_begins_with_another_network_keeps_it(tmp_path):
    assert resolved("vae").ema_rampup == 0.05
    assert resolved("vae", init=str(tmp_path)).ema_rampup == 0.0


def test_a_lone_average_is_the_trained_network(tmp_path):
    first, other = (trainer_of(settings("vae", tmp_path, seed=seed)).recipe for seed in (0, 1))
    for p in first.net_ema.parameters():
        p.add_(1.0)
    taken = other.start_from({"net_ema": first.net_ema.state_dict()})
    assert taken == other.tensors
    for name, value in first.net_ema.state_dict().items():
        assert torch.equal(other.net.state_dict()[name], value)


@pytest.mark.parametrize(("seen", "sigma"), [(0, 2.0), (500, 1.0), (1000, None), (5000, None)])
def test_the_discriminator_sees_through_a_blur_that_fades(tmp_path, seen, sigma):
    trainer = trainer_of(settings("stylegan3-r", tmp_path, blur_sigma=2.0, blur_kimg=1.0, augment="none"))
    real = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    (part,) = parts_of(trainer.recipe, real, torch.arange(4), Moment(seen, 0, range(4), 0))
    view = trainer.recipe.view(part, "generator, fake")
    if sigma is None:
        assert view.blur is None
        return
    places = torch.arange(-6.0, 7.0)
    wanted = torch.exp(-(places**2) / (2 * sigma**2))
    torch.testing.assert_close(view.blur, wanted / wanted.sum())
    seen_by_d = []
    trainer.D.register_forward_pre_hook(lambda network, given: seen_by_d.append(given[0]))
    trainer.recipe._score(Shown(part.real, part.c, view))
    kernel = torch.outer(view.blur, view.blur).expand(3, 1, 13, 13)
    torch.testing.assert_close(seen_by_d[0], torch.nn.functional.conv2d(part.real, kernel, padding=6, groups=3))


def test_stylegan3_follows_its_magnitudes(tmp_path):
    trainer = trainer_of(settings("stylegan3-t", tmp_path, augment="none"))
    recipe, real = trainer.recipe, torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    (part,) = parts_of(recipe, real, torch.arange(4), Moment(0, 0, range(4), 0))
    seen: list[torch.Tensor] = []
    latents = recipe.latents(part.draws("generator"))
    w = trainer.G.mapping(latents.z, latents.c)
    trainer.G.synthesis(w, magnitudes=seen)
    wanted = [0.5 ** (4 / 20_000) + (1 - 0.5 ** (4 / 20_000)) * float(magnitude) for magnitude in seen]
    trainer.step(real, torch.arange(4))
    names = trainer.G.synthesis.layer_names
    found = [float(trainer.G.synthesis.get_buffer(f"{name}.magnitude_ema")) for name in names]
    assert found == pytest.approx(wanted, rel=1e-4)
    trainer.G.synthesis.update_magnitudes([torch.tensor(float("nan"))] * len(names))
    assert [float(trainer.G.synthesis.get_buffer(f"{name}.magnitude_ema")) for name in names] == found
