"""Averages over a training: the running one, and averages of any length from snapshots against computed ones."""

from __future__ import annotations

import copy
import doctest
import math

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from imgops.training import ema
from imgops.training.ema import (
    LONGEST,
    PowerAverages,
    SnapshotError,
    power_of,
    reconstruct,
    snapshots,
    solve_weights,
    update_average,
    write_snapshot,
)


def test_examples_run():
    failed, tried = doctest.testmod(ema)
    assert failed == 0 < tried


class Moving(nn.Module):
    """Parameters that move as in a training: fast at first, then slowly, with noise; a buffer stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(40, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("filter", torch.ones(3))
        self._generator = torch.Generator().manual_seed(1)

    @torch.no_grad()
    def move(self, share: float) -> None:
        goal = torch.linspace(-1, 1, 40, dtype=torch.float64) * math.sqrt(share)
        self.weight.copy_(goal + 0.1 * torch.randn(40, generator=self._generator, dtype=torch.float64))
        self.bias.fill_(3.0 + math.cos(9 * share))


def trained(folder, lengths, steps=2000, batch=16, every=250, dtype="float32"):
    """(averages of ``lengths`` after all steps, snapshots of the kept lengths), of one trajectory."""
    network = Moving()
    kept, direct = PowerAverages(network), PowerAverages(network, lengths)
    for step in range(1, steps + 1):
        network.move(step / steps)
        for averages in kept, direct:
            averages.update(network, step * batch)
        if step % every == 0:
            write_snapshot(folder, kept, dtype)
    return direct, snapshots(folder)


def test_the_power_gives_the_length():
    for length in 0.001, 0.05, 0.1, 0.2, 0.28:
        gamma = power_of(length)
        # the standard deviation of the weight (gamma + 1) tau^gamma over [0, 1]
        mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
        assert math.sqrt(square - mean**2) == pytest.approx(length, rel=1e-9)
    assert power_of(LONGEST - 1e-9) == pytest.approx(0.0, abs=1e-6)
    for length in 0, -0.1, LONGEST, 1.0, math.nan:
        with pytest.raises(ValueError, match=r"length must be above 0 and below 0\.2887"):
            power_of(length)


def test_averages_are_sums_by_the_power_function():
    network, steps = Moving(), [3, 4, 9, 30, 31]
    averages, values = PowerAverages(network, [0.1]), []
    for i, seen in enumerate(steps):
        network.move(i / 5)
        averages.update(network, seen)
        values.append(network.weight.detach().clone())
    edges = (torch.tensor([0, *steps], dtype=torch.float64) / steps[-1]) ** (power_of(0.1) + 1)
    wanted = sum(weight * value for weight, value in zip(edges.diff(), values, strict=True))
    torch.testing.assert_close(averages.averages[0]["weight"], wanted, rtol=1e-12, atol=1e-13)
    assert averages.averages[0]["bias"].dtype == torch.float64


@pytest.mark.parametrize(
    ("length", "error", "misfit"),
    # 0.03 is finer than the snapshots; 0.25 reaches back to before the first of them
    [(0.03, 5e-4, 1e-2), (0.06, 3e-5, 1e-3), (0.075, 3e-5, 1e-3), (0.15, 3e-5, 2e-3), (0.25, 4e-3, 3e-2)],
)
def test_any_length_is_reconstructed(tmp_path, length, error, misfit):
    direct, files = trained(tmp_path, [length, 0.05, 0.1], every=50)
    wanted, *kept = (average["weight"] for average in direct.averages)
    made = reconstruct(files, length)
    assert float((made.parameters["weight"] - wanted).abs().max()) < error
    assert made.misfit < misfit
    # no kept average is as near
    assert all(float((other - wanted).abs().max()) > 10 * error for other in kept)
    assert (made.images, made.parameters["bias"].shape) == (32_000, ())
    assert made.parameters["weight"].dtype == torch.float32
    assert reconstruct(files[4::5], length).misfit > made.misfit


def test_a_kept_length_at_a_snapshot_is_that_snapshot(tmp_path):
    _, files = trained(tmp_path, [0.05])
    for i, length in enumerate((0.05, 0.1)):
        for path in files[3], files[-1]:
            made = reconstruct(files, length, int(path.stem.partition("-")[2]))
            stored = safetensors.torch.load_file(path)
            assert made.misfit == 0
            assert torch.equal(made.parameters["weight"], stored[f"{i}.weight"])


def test_weights_reproduce_constants_and_stay_small_in_long_runs():
    kept = [(length, images) for images in range(1, 401) for length in (0.05, 0.1)]
    for length in 0.02, 0.07, 0.1, 0.2:
        for penalty in 1e-13, 2**-20:
            weights, misfit = solve_weights(kept, length, 400, penalty)
            assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
            assert misfit < 2e-3
            assert float(weights.abs().max()) < 25


def test_snapshots_of_half_size(tmp_path):
    direct, files = trained(tmp_path, [0.07], dtype="float16")
    assert {t.dtype for t in safetensors.torch.load_file(files[0]).values()} == {torch.float16}
    error = reconstruct(files, 0.07).parameters["weight"] - direct.averages[0]["weight"]
    assert float(error.abs().max()) < 1e-3


def test_an_average_follows_small_steps_late_in_a_long_run():
    """At the share that a step has after 25 million images float32 would round what moves a tenth of a percent away."""
    network = Moving()
    averages = PowerAverages(network, [0.05])
    network.move(0.5)
    averages.update(network, 25_000_000)
    with torch.no_grad():
        before = network.weight.clone()
        network.weight.mul_(1.001)
    averages.update(network, 25_000_032)
    share = 1 - (25_000_000 / 25_000_032) ** (power_of(0.05) + 1)
    torch.testing.assert_close(averages.averages[0]["weight"], before * (1 + 0.001 * share), rtol=1e-14, atol=0)


def test_averages_go_on_from_a_checkpoint():
    whole, network = PowerAverages(Moving()), Moving()
    for step in range(1, 20):
        network.move(step / 20)
        whole.update(network, 4 * step)
        if step == 9:
            state = {name: value.clone() for name, value in whole.state_dict().items()}
            continued = PowerAverages(Moving())
            continued.load_state_dict(state)
        if step > 9:
            continued.update(network, 4 * step)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name])


def test_the_running_average():
    network = Moving()
    average = copy.deepcopy(network)
    network.move(1.0)
    network.filter.mul_(2)
    before = average.weight.detach().clone()
    update_average(average, network, 0.75)
    torch.testing.assert_close(average.weight, 0.75 * before + 0.25 * network.weight)
    assert torch.equal(average.filter, network.filter)
    update_average(average, network, 0.0)
    assert torch.equal(average.weight, network.weight)


def test_mistakes_are_told(tmp_path):
    network = Moving()
    averages = PowerAverages(network)
    averages.update(network, 8)
    with pytest.raises(ValueError, match="seen must be above 8, that of the last update; got 8"):
        averages.update(network, 8)
    with pytest.raises(ValueError, match="lengths must be one or several, all different"):
        PowerAverages(network, [0.1, 0.1])
    with pytest.raises(ValueError, match=r"1\.bias must be \[\]; got nothing"):
        averages.load_state_dict({k: v for k, v in averages.state_dict().items() if k != "1.bias"})
    with pytest.raises(ValueError, match="dtype must be float32 or float16; got 'bfloat16'"):
        write_snapshot(tmp_path, averages, "bfloat16")
    with pytest.raises(SnapshotError, match=r"there is no snapshot$"):
        reconstruct([], 0.1)
    path = write_snapshot(tmp_path / "ema", averages)
    with pytest.raises(SnapshotError, match="there is no snapshot of 7 images or fewer"):
        reconstruct([path], 0.1, 7)
    other = PowerAverages(nn.Linear(2, 2))
    other.update(nn.Linear(2, 2), 16)
    with pytest.raises(
        SnapshotError, match=r"ema-0000000016\.safetensors: is of another network than .*ema-0000000008"
    ):
        reconstruct([path, write_snapshot(tmp_path / "ema", other)], 0.1)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SnapshotError, match=r"ema-0000000008\.safetensors: missing or damaged"):
        reconstruct([path], 0.1)
    safetensors.torch.save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(SnapshotError, match="missing or damaged"):
        reconstruct([path], 0.1)


def test_only_snapshots_are_listed(tmp_path):
    averages = PowerAverages(Moving())
    assert snapshots(tmp_path / "nowhere") == []
    for seen in 1000, 20:
        averages.seen = seen
        write_snapshot(tmp_path, averages)
    (tmp_path / "ema-0.1.safetensors").touch()
    (tmp_path / ".scrap-ema-0000000020.safetensors").touch()
    assert [path.name for path in snapshots(tmp_path)] == ["ema-0000000020.safetensors", "ema-0000001000.safetensors"]
    assert np.isfinite(reconstruct(snapshots(tmp_path), 0.08).misfit)
