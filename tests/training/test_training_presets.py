"""The presets have the values of the published recipes, and what a user says takes their place."""

from __future__ import annotations

import pytest

from imgops.training import TrainingConfig
from imgops.training.processes import Processes
from imgops.training.recipes import RECIPES, config_class, recipe_class
from imgops.training.recipes.stylegan2_config import PRESETS

#: of ../shared/REFERENCE.md, "Training recipes": batch, group of the minibatch statistics, rates, R1, EMA, its ramp-up
#: (0: none), mapping layers, channel_base
PUBLISHED = {
    "stylegan2": (32, 4, 0.002, 10.0, 10.0, 0.0, 8, 32768),
    "paper256": (64, 8, 0.0025, 1.0, 20.0, 0.0, 8, 16384),
    "paper512": (64, 8, 0.0025, 0.5, 20.0, 0.0, 8, 32768),
    "paper1024": (32, 4, 0.002, 2.0, 10.0, 0.0, 8, 32768),
    "cifar": (64, 32, 0.0025, 0.01, 500.0, 0.05, 2, 32768),
}
#: of auto, by side and number of processes
AUTOMATIC = {
    (32, 1): (32, 4, 0.0025, 0.0002 * 32**2 / 32, 10.0, 0.05, 2, 16384),
    (256, 1): (16, 4, 0.0025, 0.0002 * 256**2 / 16, 5.0, 0.05, 2, 16384),
    (256, 8): (64, 4, 0.0025, 0.0002 * 256**2 / 64, 20.0, 0.05, 2, 16384),
    (512, 2): (16, 4, 0.0025, 0.0002 * 512**2 / 16, 5.0, 0.05, 2, 32768),
    (1024, 1): (4, 4, 0.002, 0.0002 * 1024**2 / 4, 1.25, 0.05, 2, 32768),
    (1024, 8): (32, 4, 0.002, 0.0002 * 1024**2 / 32, 10.0, 0.05, 2, 32768),
    (2048, 8): (16, 2, 0.002, 0.0002 * 2048**2 / 16, 5.0, 0.05, 2, 32768),
}


def found(config: TrainingConfig) -> tuple[float, ...]:
    assert config.g_lr == config.d_lr
    ema = config.ema_kimg, config.ema_rampup
    networks = config.mapping_layers, config.channel_base
    return config.batch, config.mbstd_group, config.g_lr, config.r1_gamma, *ema, *networks


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_presets(preset):
    config = TrainingConfig("d", "o", preset=preset, resolution=256, device="cpu").resolve()
    assert found(config) == pytest.approx(PUBLISHED[preset], rel=1e-12)
    cifar = preset == "cifar"
    assert config.d_architecture == ("orig" if cifar else "resnet")
    assert config.pl_weight == (0.0 if cifar else 2.0)
    assert config.style_mixing == (0.0 if cifar else 0.9)
    assert (config.kimg == 100_000) == cifar
    assert (config.beta1, config.beta2) == (0.0, 0.99)
    assert (config.r1_interval, config.pl_interval, config.pl_batch_shrink, config.pl_decay) == (16, 4, 2, 0.01)
    assert (config.z_dim, config.w_dim, config.channel_max) == (512, 512, 512)


@pytest.mark.parametrize(("side", "processes"), AUTOMATIC)
def test_the_automatic_preset(side, processes):
    config = TrainingConfig("d", "o", resolution=side, device="cpu").resolve(processes)
    assert found(config) == pytest.approx(AUTOMATIC[side, processes], rel=1e-12)
    assert config.share(processes) == config.chunk_of(processes) == config.batch // processes


def test_the_discriminators_mapping_network_is_the_published_one_in_every_preset():
    for preset in PRESETS.values:
        config = TrainingConfig("d", "o", preset=preset, mapping_layers=3, device="cpu").resolve()
        assert config.generator_arguments(2)["mapping_layers"] == 3
        assert config.discriminator_arguments(2)["mapping_layers"] == (2 if preset == "tiny" else 8)
    # a file of before this setting says one number for both networks
    values = {name: value for name, value in config.as_json().items() if name not in ("recipe", "d_mapping_layers")}
    assert TrainingConfig.recorded(values).d_mapping_layers == 3


def test_half_precision_is_for_gpus(monkeypatch):
    monkeypatch.setattr("imgops.training.config.choose_device", lambda name: "cuda")
    for preset in PRESETS.values:
        config = TrainingConfig("d", "o", preset=preset, resolution=256).resolve()
        assert config.num_fp16_res == (0 if preset == "tiny" else 4)
    monkeypatch.undo()
    assert TrainingConfig("d", "o", device="cpu").resolve().num_fp16_res == 0


def test_half_precision_of_a_cpu_is_bfloat16(monkeypatch):
    assert TrainingConfig("d", "o", device="cpu").resolve().half_dtype == "bfloat16"
    assert TrainingConfig("d", "o", device="cpu", half_dtype="float16").resolve().half_dtype == "float16"
    monkeypatch.setattr("imgops.training.config.choose_device", lambda name: "cuda")
    assert TrainingConfig("d", "o").resolve().half_dtype == "float16"


def test_what_is_given_counts_and_the_rest_follows_it():
    config = TrainingConfig("d", "o", preset="paper256", batch=32, r1_gamma=3.0, device="cpu").resolve()
    assert (config.batch, config.r1_gamma, config.ema_kimg, config.mbstd_group) == (32, 3.0, 20.0, 8)
    # what auto derives, it derives from what is given
    config = TrainingConfig("d", "o", resolution=32, batch=8, device="cpu").resolve(4)
    assert (config.mbstd_group, config.ema_kimg, config.r1_gamma) == (2, 2.5, 0.0002 * 32**2 / 8)
    again = config.resolve(4)
    assert again == config


def test_what_follows_from_a_preset_goes_together():
    for given, processes in ({"preset": "tiny", "batch": 6}, 1), ({"batch": 12}, 2), ({"resolution": 128}, 3):
        config = TrainingConfig("d", "o", device="cpu", **given).resolve(processes)
        assert config.share(processes) % config.mbstd_group == 0
    # parts of the batch hold whole groups, or are smaller than one
    for batch, micro, group in (12, 6, 3), (12, 4, 4), (12, 2, 4), (10, 5, 1), (20, 10, 2), (18, 9, 3):
        config = TrainingConfig("d", "o", batch=batch, micro_batch=micro, device="cpu").resolve()
        assert config.mbstd_group == group
    assert TrainingConfig("d", "o", resolution=128, device="cpu").resolve(3).batch == 63
    for preset in PRESETS.values:
        assert TrainingConfig("d", "o", preset=preset, init="x", device="cpu").resolve().ema_rampup == 0.0
    for loss in "wgan-gp", "relativistic":
        assert TrainingConfig("d", "o", loss=loss, device="cpu").resolve().augment == "none"


def test_the_same_settings_may_be_given_again():
    config = TrainingConfig("d", "o", r1_gamma="auto", preset="paper256", batch=24, device="cpu").resolve(6)
    again = config.changed({"r1_gamma": "auto", "batch": 24})
    assert again == config
    assert config.r1_gamma == pytest.approx(0.0002 * 64**2 / 24)
    # on another number of processes, too
    assert again.resolve(4).chunk_of(4) == 6


def test_every_recipe_has_a_tiny_preset_whose_step_is_quick():
    # the encoder's network is always the one that ships; its crops are smaller and fewer
    assert config_class("encoder")(data="d", out="o", preset="tiny").resolve().resolution == 64
    for name in [name for name in RECIPES if name != "encoder"]:
        settings = config_class(name)
        needed = dict.fromkeys(settings.required(), "samples:hubble")
        config = settings(**needed, preset="tiny", resolution=32, device="cpu").resolve()
        recipe = recipe_class(name)(config, None, [], Processes())
        assert sum(p.numel() for network in recipe.networks.values() for p in network.parameters()) < 1_000_000


@pytest.mark.parametrize(
    ("given", "processes", "message"),
    [
        ({"preset": "paper128"}, 1, "preset must be auto, stylegan2, paper256, paper512, paper1024, cifar or tiny"),
        ({"batch": 6}, 4, "batch must be divisible among 4 processes; got 6"),
        ({"batch": 8, "micro_batch": 3}, 2, "micro_batch must divide the batch of 4 per process; got 3"),
        ({"resolution": 32, "freeze_d": 4}, 1, "freeze_d must be at most 3, the resolutions above the lowest; got 4"),
        ({"batch": 8, "mbstd_group": 3}, 2, r"mbstd_group must divide the \(micro-\)batch of 4; got 3"),
        ({"loss": "wgan-gp", "augment": "ada"}, 1, "augment must be none, fixed or diffaug with the loss wgan-gp"),
        ({"loss": "relativistic", "apa": True}, 1, "augment must be none, fixed or diffaug with the loss relativistic"),
        ({"augment": "diffaug", "diffaug": "color,blur"}, 1, "diffaug must be some of color, translation, cutout"),
        ({"loss": "hedge"}, 1, "loss must be nonsaturating, minimax, hinge, wgan-gp, lsgan or relativistic"),
    ],
)
def test_what_does_not_go_together_is_named(given, processes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig("d", "o", device="cpu", **given).resolve(processes)
