"""Phases of a step: compiled as wholes, the same to rounding; and what would keep a step from CUDA graphs."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imgops.training import train
from imgops.training.recipes import _phases
from imgops.training.recipes._adversarial import Shown, View
from imgops.training.recipes._augmentation import Drawn
from imgops.training.recipes._phases import Phases, phase
from imgops.training.recipes._styles import MixedLatents
from tests.test_training import batch_of, contents, tiny, trainer_of

#: what waits for the device: values that Python reads, sizes that depend on data, tensors that are made of Python's
WAITING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "lift_fresh"}
TRACES = pytest.mark.skipif(not _phases.traces_gradients(), reason="this torch does not compile penalties")
EVERYTHING = {"augment": "ada", "augment_p": 0.5, "augment_pipe": "bgcfnc", "apa": True, "micro_batch": 2}
RUNS: list[dict[str, Any]] = [
    EVERYTHING,
    {"loss": "relativistic", "augment": "diffaug"},
    {"loss": "wgan-gp", "style_mixing": 0.0},
    {"freeze_m": True, "num_fp16_res": 1, "half_dtype": "bfloat16"},
]


class Refusing(TorchDispatchMode):
    """Raises where an op waits for the device, or draws random numbers unless it may.

    Attributes:
        seen: the names of the ops that ran.
    """

    def __init__(self, random: bool = True) -> None:
        super().__init__()
        self.random, self.seen = random, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        indices = args[1] if name.startswith("index") and isinstance(args[1], (list, tuple)) else ()
        by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if name in WAITING or by_mask:
            raise RuntimeError(f"{func} waits for the device")
        if not self.random and torch.Tag.nondeterministic_seeded in func.tags:
            raise RuntimeError(f"{func} draws random numbers")
        self.seen.add(name)
        return func(*args, **(kwargs or {}))


class Small:
    """A recipe with a phase of each kind."""

    def __init__(self, phases: Phases) -> None:
        self.phases = phases

    @phase()
    def _doubled(self, x: Tensor) -> Tensor:
        return 2 * x

    @phase(differentiates=True)
    def _slope_phase(self, x: Tensor) -> Tensor:
        return torch.autograd.grad(x.square().sum(), x, create_graph=True)[0]


def compare(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float, atol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, theirs[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture
def tracing(monkeypatch):
    """Phases are traced, with their gradients, and not made into code, which takes minutes."""
    torch.compiler.reset()
    monkeypatch.setattr(Phases, "backend", "aot_eager")


@TRACES
@pytest.mark.slow
@pytest.mark.parametrize("settings", RUNS)
def test_a_compiled_run_is_the_uncompiled_one(tmp_path, tracing, settings):
    """Each phase is one graph, compiled once, with the same random numbers."""
    plain, compiled = (trainer_of(tiny(tmp_path, **settings, compile=compile)) for compile in (False, True))
    batch = batch_of(plain)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(4):
            measured, expected = compiled.step(*batch), plain.step(*batch)
            compare(measured, expected, rtol=1e-4, atol=1e-5)
    assert compiled.recipe.phases.compiling
    run = {function.__name__ for function in compiled.recipe.phases.compiled}
    every = {"_generator_phase", "_images_phase", "_discriminator_phase", "_penalty_phase"}
    assert run == every | ({"_path_phase"} if plain.config.pl_weight else set())
    for name in "GD":
        # Adam's second moment is the gradient's square, and has no sign that rounding could turn
        ours, theirs = (trainer.recipe.optimizers[name].state_dict()["state"] for trainer in (compiled, plain))
        assert ours.keys() == theirs.keys()
        for k, state in ours.items():
            assert state["step"] == theirs[k]["step"]
            torch.testing.assert_close(state["exp_avg_sq"], theirs[k]["exp_avg_sq"], rtol=1e-3, atol=1e-9)


@TRACES
@pytest.mark.slow
def test_a_compiled_run_resumes_exactly(tmp_path, tracing):
    train(tiny(tmp_path / "whole", **EVERYTHING, compile=True), quiet=True)
    config = tiny(tmp_path / "parts", **EVERYTHING, compile=True)
    train(dataclasses.replace(config, kimg=0.012), quiet=True)
    train(config, quiet=True, resume=True)
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


@pytest.mark.slow
def test_code_for_a_phase_gives_the_same(tmp_path):
    """By torch's own compiler, which rounds otherwise, for the one phase that is made soon."""
    torch.compiler.reset()
    small, x = Small(Phases(True)), torch.randn(5, 7, requires_grad=True)
    torch.testing.assert_close(small._doubled(x), 2 * x)
    assert small.phases.compiling
    if _phases.traces_gradients():
        slope = small._slope_phase(x)
        torch.testing.assert_close(slope, 2 * x)
        torch.testing.assert_close(torch.autograd.grad(slope.sum(), x)[0], torch.full_like(x, 2))
        assert small.phases.compiling
        assert len(small.phases.compiled) == 2


def test_what_torch_cannot_compile_is_told_once_and_runs(monkeypatch):
    def broken(graph, inputs):
        raise OSError("no compiler\nhere")

    monkeypatch.setattr(Phases, "backend", staticmethod(broken))
    small, x = Small(Phases(True)), torch.ones(2, requires_grad=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert small._doubled(x).tolist() == small._slope_phase(x).tolist() == [2, 2]
        assert small._doubled(x).tolist() == [2, 2]
    assert [str(warning.message) for warning in told] == [
        "torch.compile cannot take the doubled (no compiler); the run goes on uncompiled"
    ]


def test_a_torch_that_traces_no_gradients_compiles_the_rest_and_says_so(monkeypatch, tracing):
    monkeypatch.setattr(_phases, "traces_gradients", lambda: False)
    small, x = Small(Phases(True)), torch.ones(2, requires_grad=True)
    assert small._doubled(x).tolist() == small._slope_phase(x).tolist() == [2, 2]
    assert [function.__name__ for function in small.phases.compiled] == ["_doubled"]
    assert "not of R1 and path length, which torch 2" in small.phases.advice()["compile"]


def test_a_run_says_what_it_compiles(tmp_path):
    assert "compile" not in trainer_of(tiny(tmp_path)).recipe.advice()
    config = tiny(tmp_path, compile=True, loss="wgan-gp")
    assert trainer_of(config).recipe.advice()["compile"].startswith("each phase at its first call")
    # to rounding it is the same run
    assert config.changed({"compile": False}).compile is False


@pytest.mark.parametrize("settings", RUNS)
def test_no_step_waits_for_the_device(tmp_path, settings):
    trainer = trainer_of(tiny(tmp_path, **settings))
    batch = batch_of(trainer)
    # the first step has all phases
    with Refusing() as watched:
        measured = trainer.step(*batch)
    # it was watched to its end: the optimizers and the average ran, and a penalty
    assert {"penalty", "r1"} & measured.keys()
    assert {"_fused_adam_", "_foreach_lerp_"} <= watched.seen, watched.seen
    assert not WAITING & watched.seen


@pytest.mark.parametrize(
    "waits",
    [lambda x: float(x[0]), lambda x: x[x > 0], lambda x: bool(x[0] > 0), lambda x: torch.tensor([1.0]) + x],
)
def test_what_waits_is_found(waits):
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="waits for the device"), Refusing():
        waits(x)
    with pytest.raises(RuntimeError, match="draws random numbers"), Refusing(random=False):
        torch.rand_like(x)


def test_phases_need_no_data_and_one_device_and_draw_nothing(tmp_path):
    """On the meta device, where reading a value raises, as does a tensor of the CPU among those of the device."""
    recipe = trainer_of(tiny(tmp_path, **EVERYTHING)).recipe
    meta = torch.device("meta")
    for module in recipe.G, recipe.D, recipe.augmentation.pipe:
        module.to(meta)
    n, size, classes = 4, recipe.config.resolution, recipe.c_dim
    z, c, images = (torch.empty(n, *shape, device=meta) for shape in ((8,), (classes,), (3, size, size)))
    noise = [torch.empty(n, *shape, device=meta) for shape in recipe.G.synthesis.noise_shapes]
    mixed = torch.empty(n, recipe.G.num_ws, 1, dtype=torch.bool, device=meta)
    latents = MixedLatents(z, z, mixed, noise, c)
    view = View(Drawn(torch.empty(n, recipe.augmentation.pipe.draws, device=meta), images))
    with Refusing(random=False):
        recipe._train_only(recipe.G)
        recipe._generator_phase(latents, view, None)[0].backward()
        recipe._path_phase(latents, images, torch.empty([], device=meta))[0].backward()
        recipe._train_only(recipe.D)
        assert recipe._images_phase(latents).shape == images.shape
        recipe._discriminator_phase(Shown(images, c, view), Shown(images, c, view))[0].backward()
        recipe._penalty_phase(Shown(images.detach().requires_grad_(True), c, view)).backward()
    assert all(p.grad is not None for p in recipe.D.parameters())
