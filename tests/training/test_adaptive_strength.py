"""The controller of p: its rule, several processes, resuming; and generated images among the real ones."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from errors import raises_in_one_line

from imgops.training import AdaptivePseudoAugment, AdaptiveStrength, AugmentPipe

#: what each of two processes does: its half of the logits of three steps, in two parts each
PROCESS = """
import sys, torch
from imgops.training import AdaptiveStrength
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
adaptive, p = AdaptiveStrength(interval=2, kimg=0.1), torch.tensor(0.5)
torch.manual_seed(0)
for step in range(3):
    logits = torch.randn(8, 1) + 1
    for part in logits[rank::2].split(2):
        adaptive.observe(real_logits=part)
    adaptive.step(p)
torch.save([p, adaptive.state_dict()], sys.argv[3] + str(rank))
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def moved(p: float, logits: torch.Tensor, **kwargs: object) -> float:
    """p after one step with these real logits."""
    adaptive, strength = AdaptiveStrength(interval=1, kimg=1, **kwargs), torch.tensor(p, dtype=torch.float64)
    adaptive.observe(real_logits=logits)
    adaptive.step(strength)
    return float(strength)


@pytest.mark.parametrize(("positive", "direction"), [(10, 1), (9, 1), (8, 0), (7, -1), (0, -1)])
def test_p_moves_towards_the_target_by_the_share_of_images(positive, direction):
    """The mean sign of 8 positive logits of 10 is 0.6."""
    logits = torch.cat([torch.full((positive, 1), 3.0), torch.full((10 - positive, 1), -0.1)])
    # a sum of float32 may miss the target by a rounding
    target = 0.6 if direction else float(torch.tensor(6.0) / 10)
    assert abs(moved(0.5, logits, target=target) - (0.5 + direction * 10 / 1000)) < 1e-7


def test_p_stays_within_0_and_1_and_where_it_is_without_a_target():
    assert moved(0.0, -torch.ones(5)) == 0
    assert moved(1.0, torch.ones(5)) == 1
    assert moved(0.3, torch.ones(5), target=None) == 0.3


def test_p_takes_kimg_thousand_images_from_0_to_1():
    adaptive, pipe = AdaptiveStrength(interval=4, kimg=2), AugmentPipe.preset("bgc")
    pipe.p.zero_()
    for step in range(32):
        adaptive.observe(real_logits=torch.ones(50, 1))
        adaptive.step(pipe.p)
        # it moves every fourth step alone
        assert abs(float(pipe.p) - (step + 1) // 4 * 4 * 50 / 2000) < 1e-6


@pytest.mark.parametrize(("heuristic", "value"), [("real", 0.5), ("fake", 0.25), ("both", 0.375)])
def test_heuristics(heuristic, value):
    """Of Jiang et al.: signs of real logits, of fake ones turned about, and the mean of both."""
    adaptive = AdaptiveStrength(interval=2, heuristic=heuristic)
    adaptive.observe(torch.tensor([1.0, 2.0, 3.0, -1.0]))
    adaptive.observe(fake_logits=torch.tensor([[-1.0, -1.0, -1.0, 1.0], [-1.0, -1.0, 2.0, 1.0]]))
    adaptive.step(torch.tensor(0.0))
    assert float(adaptive.overfitting()) == value


def test_a_run_goes_on_exactly():
    def run(adaptive, p, steps):
        for step in steps:
            torch.manual_seed(step)
            adaptive.observe(torch.randn(4, 1) + 0.8)
            adaptive.step(p)
        return p

    whole = run(AdaptiveStrength(interval=3, kimg=0.1), torch.tensor(0.4), range(11))
    first = AdaptiveStrength(interval=3, kimg=0.1)
    p = run(first, torch.tensor(0.4), range(5))
    state = first.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    second = AdaptiveStrength(interval=3, kimg=0.1)
    second.load_state_dict(state)
    assert torch.equal(run(second, p, range(5, 11)), whole)


def test_two_processes_do_what_one_does(tmp_path):
    adaptive, p = AdaptiveStrength(interval=2, kimg=0.1), torch.tensor(0.5)
    for _ in range(3):
        adaptive.observe(torch.randn(8, 1) + 1)
        adaptive.step(p)
    assert p != 0.5
    command = [sys.executable, "-c", PROCESS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    arguments = [str(tmp_path / "store"), str(tmp_path / "rank")]
    processes = [subprocess.Popen([*command, str(rank), *arguments], env=environment, cwd=root) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for rank in (0, 1):
        strength, state = torch.load(tmp_path / f"rank{rank}")
        assert torch.equal(strength, p)
        # what a checkpoint of one process keeps is the state of all
        assert all(torch.equal(state[name], value) for name, value in adaptive.state_dict().items())


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_share_p_of_the_real_images_is_replaced(p):
    augment = AdaptivePseudoAugment()
    assert list(augment.state_dict()) == ["p"]
    assert augment.p == 0
    augment.p.fill_(p)
    real, fake = torch.zeros(4000, 1, 2, 2), torch.arange(1.0, 4001)[:, None, None, None].expand(-1, 1, 2, 2)
    mixed = augment(real, fake)
    replaced = mixed[:, 0, 0, 0] != 0
    assert torch.equal(mixed, torch.where(replaced[:, None, None, None], fake, real))
    assert abs(float(replaced.float().mean()) - p) < 4 * math.sqrt(p * (1 - p) / 4000) + 1e-9


def test_uniform_numbers_say_which_images_are_replaced():
    augment, uniforms = AdaptivePseudoAugment(), torch.tensor([[0.1], [0.6], [0.29], [0.3]])
    augment.p.fill_(0.3)
    mixed = augment(torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2), uniforms)
    assert mixed[:, 0, 0, 0].tolist() == [1, 0, 1, 0]


def test_generated_images_are_data():
    augment, fake = AdaptivePseudoAugment(), torch.ones(8, 3, 2, 2, requires_grad=True)
    augment.p.fill_(0.5)
    real = torch.zeros(8, 3, 2, 2, requires_grad=True)
    augment(real, fake).sum().backward()
    assert fake.grad is None
    assert real.grad.unique().tolist() == [0, 1]
    compiled = torch.compile(augment, fullgraph=True, backend="aot_eager")
    assert compiled(real, fake).shape == real.shape


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, r"target must be in \[-1, 1\]; got 2", lambda: AdaptiveStrength(target=2)),
        (ValueError, "target must be >= -1; got -2", lambda: AdaptiveStrength(target=-2)),
        (TypeError, "target must be a number", lambda: AdaptiveStrength(target="0.6")),
        (ValueError, "interval must be >= 1; got 0", lambda: AdaptiveStrength(interval=0)),
        (ValueError, "kimg must be above 0 and finite; got 0", lambda: AdaptiveStrength(kimg=0)),
        (ValueError, "heuristic must be one of real, fake, both; got 'r_t'", lambda: AdaptiveStrength(heuristic="r_t")),
        (TypeError, "real_logits must be a torch.Tensor; got list", lambda: AdaptiveStrength().observe([1.0])),
        (TypeError, "images must be a torch.Tensor", lambda: AdaptivePseudoAugment()([1], [2])),
        (
            ValueError,
            r"fake must have the shape, .* got \[1, 3, 4, 4\]",
            lambda: AdaptivePseudoAugment()(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4)),
        ),
        (
            ValueError,
            "uniforms must have shape",
            lambda: AdaptivePseudoAugment()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(3, 1)),
        ),
    ],
)
def test_wrong_input_is_told_in_one_line(error, match, call):
    raises_in_one_line(error, match, call)
