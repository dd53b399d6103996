"""Fréchet and sliced Wasserstein distances against their formulas, and streamed statistics against NumPy's."""

from __future__ import annotations

import doctest
import importlib
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from imgops.metrics import FeatureStatistics, frechet_distance, sliced_wasserstein
from imgops.metrics import sliced as sliced_module


@pytest.mark.parametrize("module", ["metrics.features", "metrics.frechet", "metrics.sliced", "metrics.statistics"])
def test_examples_run(module):
    failed, tried = doctest.testmod(importlib.import_module(f"imgops.{module}"), extraglobs={"torch": torch})
    assert failed == 0 < tried


def covariance(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)) * scale
    return np.cov(x, rowvar=False).reshape(d, d)


def test_frechet_distance_of_commuting_covariances_is_that_of_their_deviations():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    a, b, mean = rng.random(6) * 5, rng.random(6) * 5, rng.standard_normal(6)
    found = frechet_distance(mean, basis * a @ basis.T, np.zeros(6), basis * b @ basis.T)
    assert found == pytest.approx((mean**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-12)


def test_frechet_distance_by_the_eigenvalues_of_the_product():
    a, b = covariance(100, 12, 1), covariance(100, 12, 2, 3.0)
    root = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    wanted = np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(np.zeros(12), a, np.zeros(12), b) == pytest.approx(wanted, rel=1e-10)
    assert frechet_distance(np.zeros(12), b, np.zeros(12), a) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("n", [5, 40])
def test_equal_distributions_have_no_distance_with_any_rank(n):
    cov = covariance(n, 64, 3, 100.0)
    assert 0 <= frechet_distance(np.ones(64), cov, np.ones(64), cov) < 1e-11 * np.trace(cov)


def test_frechet_distance_of_few_samples():
    """Of rank 3 and rank 2 in 50 dimensions, whose exact value is that of the 3 x 2 matrix of their factors."""
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    wanted = (a**2).sum() + (b**2).sum() - 2 * np.linalg.svd(a.T @ b)[1].sum()
    assert frechet_distance(np.zeros(50), a @ a.T, np.zeros(50), b @ b.T) == pytest.approx(wanted, rel=1e-12)


def test_frechet_distance_without_any_variance():
    zero = torch.zeros(3, 3)
    assert frechet_distance([0, 0, 1], zero, [0, 2, 1], zero) == 4.0
    assert frechet_distance([0.0], [[4.0]], [0.0], [[0.0]]) == 4.0


def test_features_that_never_vary_add_the_distance_of_their_means():
    x, y = torch.randn(40, 5, dtype=torch.float64), 2 * torch.randn(40, 5, dtype=torch.float64)
    wide = torch.zeros(2, 1280, dtype=torch.float64)
    wide[0, 7] = 3
    spread = torch.zeros(2, 1280, 1280, dtype=torch.float64)
    places = torch.tensor([3, 100, 101, 700, 1279])
    for i, values in enumerate((x, y)):
        wide[i, places] = values.mean(0)
        spread[i, places[:, None], places] = torch.cov(values.T)
    alone = frechet_distance(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
    assert frechet_distance(wide[0], spread[0], wide[1], spread[1]) == pytest.approx(alone + 9)


def test_frechet_distance_takes_float32_and_tensors_alike():
    a, b = covariance(30, 5, 5), covariance(30, 5, 6)
    zero = np.zeros(5)
    found = frechet_distance(torch.zeros(5), torch.tensor(a).float(), zero.astype(np.float32), torch.tensor(b))
    assert found == pytest.approx(frechet_distance(zero, a, zero, b), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"mean2": [0.0]}, ValueError, "mean1 and mean2 must be of one size; got 2 and 1"),
        ({"mean1": [[0.0, 0.0]]}, ValueError, r"mean1 must be \[D\], not empty; got \[1, 2\]"),
        ({"cov2": torch.eye(3)}, ValueError, r"cov2 must be \[2, 2\], as mean2; got \[3, 3\]"),
        ({"cov1": torch.full((2, 2), torch.nan)}, ValueError, "cov1 has values that are not finite"),
        ({"mean2": [0.0, torch.inf]}, ValueError, "mean2 has values that are not finite"),
        ({"cov1": [[1.0, 0.5], [0.0, 1.0]]}, ValueError, "cov1 must be symmetric"),
        ({"cov2": [[1.0, 0.0], [0.0, -1.0]]}, ValueError, "cov2 must be a covariance; it has an eigenvalue of -1"),
        ({"mean1": "zero"}, TypeError, "mean1 must be a tensor or array; got str"),
        ({"cov1": torch.eye(2, dtype=torch.complex64)}, TypeError, "cov1 must hold real numbers"),
    ],
)
def test_frechet_distance_refuses(changes, error, message):
    given = {"mean1": [0.0, 0.0], "cov1": torch.eye(2), "mean2": [0.0, 0.0], "cov2": torch.eye(2)}
    with pytest.raises(error, match=message):
        frechet_distance(**{**given, **changes})


def by_quantiles(x: Tensor, y: Tensor) -> float:
    """Mean square distance of two quantile functions, both of which are constant between multiples of 1 / (n m)."""
    n, m = len(x), len(y)
    return float((x.sort()[0].repeat_interleave(m) - y.sort()[0].repeat_interleave(n)).square().mean())


@pytest.mark.parametrize(("n", "m"), [(7, 7), (7, 5), (4, 12), (1, 9)])
def test_sliced_wasserstein_along_each_direction(n, m):
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(m, 3, dtype=torch.float64) * 2 + 1
    directions = sliced_module.seeded_directions(3, 20, 5)
    assert torch.allclose(directions.norm(dim=0), torch.ones(20, dtype=torch.float64))
    squares = [by_quantiles(x @ d, y @ d) for d in directions.T]
    wanted = (sum(squares) / 20) ** 0.5
    assert sliced_wasserstein(x, y, projections=20, seed=5) == pytest.approx(wanted, rel=1e-12)
    assert sliced_wasserstein(y, x, projections=20, seed=5) == pytest.approx(wanted, rel=1e-12)


def test_sliced_wasserstein_of_a_shift_and_of_an_order():
    x = torch.randn(50, 8)
    assert sliced_wasserstein(x, x[torch.randperm(50)]) == 0.0
    # the mean over directions of the square of a shift's component is that of its length over the dimensions
    shift = torch.zeros(8)
    shift[0] = 4.0
    assert sliced_wasserstein(x, x + shift, projections=20_000) == pytest.approx(4 / 8**0.5, rel=0.02)


def test_sliced_wasserstein_is_the_same_in_chunks_and_for_a_seed(monkeypatch):
    x, y = torch.randn(60, 4), torch.randn(45, 4).numpy()
    whole = sliced_wasserstein(x, y, projections=33, seed=1)
    assert sliced_wasserstein(x, y, projections=33, seed=1) == whole
    assert sliced_wasserstein(x, y, projections=33, seed=2) != whole
    monkeypatch.setattr(sliced_module, "CHUNK", 300)
    assert sliced_wasserstein(x, y, projections=33, seed=1) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "more", "error", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), {}, ValueError, "as many features; got 3 and 4"),
        (torch.zeros(0, 3), torch.zeros(2, 3), {}, ValueError, r"x must be \[N, D\], not empty; got \[0, 3\]"),
        (torch.zeros(3), torch.zeros(2, 3), {}, ValueError, r"x must be \[N, D\]"),
        (torch.zeros(1, 1), torch.tensor([[torch.nan]]), {}, ValueError, "y has values that are not finite"),
        (torch.zeros(1, 1), torch.zeros(1, 1), {"projections": 0}, ValueError, "projections must be >= 1; got 0"),
        (torch.zeros(1, 1), torch.zeros(1, 1), {"seed": -1}, ValueError, "seed must be >= 0; got -1"),
        (torch.zeros(1, 1), torch.zeros(1, 1), {"seed": 0.5}, TypeError, "seed must be an int; got float"),
        ([["a"]], torch.zeros(1, 1), {}, TypeError, "x must be a tensor or array; got list"),
    ],
)
def test_sliced_wasserstein_refuses(x, y, more, error, message):
    with pytest.raises(error, match=message):
        sliced_wasserstein(x, y, **more)


def streamed(parts: list[Tensor]) -> FeatureStatistics:
    statistics = FeatureStatistics(parts[0].shape[1])
    for part in parts:
        statistics.update(part)
    return statistics


@pytest.mark.parametrize(
    ("n", "offset", "scale"),
    [(1000, 0.0, 1.0), (1000, 1e6, 1e-3), (5, -1e8, 1.0), (300, 0.0, 1e-12), (300, 3.0, 1e-9)],
    ids=["plain", "large mean", "few", "tiny", "tiny about 3"],
)
def test_statistics_are_numpys(n, offset, scale):
    x = torch.randn(n, 16, dtype=torch.float64) * scale + offset
    statistics = streamed([*x.split(7), x[:0]])
    # what rounding of the samples themselves leaves: deviations are exact in extended precision
    exact = x.numpy().astype(np.longdouble)
    deviations = exact - exact.mean(axis=0)
    wanted = (deviations.T @ deviations / (n - 1)).astype(np.float64)
    assert statistics.count == n
    np.testing.assert_allclose(statistics.mean.numpy(), x.numpy().mean(axis=0), rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(statistics.covariance.numpy(), wanted, rtol=0, atol=1e-6 * scale**2)
    if not offset:
        np.testing.assert_allclose(statistics.covariance.numpy(), np.cov(x.numpy(), rowvar=False), rtol=1e-10)


def test_a_sum_of_squares_would_not_do():
    """The same large mean in the textbook form, whose covariance has no correct digit."""
    x = torch.randn(1000, 4, dtype=torch.float64) * 1e-3 + 1e6
    naive = (x.T @ x / 1000 - x.mean(0).outer(x.mean(0))) * 1000 / 999
    wanted = np.cov(x.numpy(), rowvar=False)
    assert np.abs(naive.numpy() - wanted).max() > 0.1 * wanted.max()
    assert np.abs(streamed(list(x.split(10))).covariance.numpy() - wanted).max() < 1e-6 * wanted.max()


def test_merging_in_any_order_agrees():
    x = torch.randn(60, 5, dtype=torch.float64) + 100 * torch.arange(60)[:, None] // 20
    whole = streamed([x])
    for order in itertools.permutations(x.split([1, 19, 0, 40])):
        merged = FeatureStatistics(5)
        for part in order:
            merged.merge(streamed([part]))
        assert merged.count == 60
        torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-13, atol=0)
        torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-12, atol=1e-9)


def test_half_precision_and_gradients_make_no_difference():
    x = torch.randn(40, 3).half()
    statistics = streamed([x.requires_grad_()])
    torch.testing.assert_close(statistics.mean, x.detach().double().mean(0), rtol=1e-14, atol=1e-15)
    assert not statistics.scatter.requires_grad


def test_statistics_are_saved_and_go_on():
    x = torch.randn(30, 4)
    first, second = streamed([x[:20]]), FeatureStatistics(4)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for statistics in first, second:
        statistics.update(x[20:])
    assert torch.equal(first.scatter, second.scatter)
    assert first.count == second.count == 30


def test_statistics_refuse():
    statistics = FeatureStatistics(3)
    for features, error, message in (
        (torch.zeros(2, 4), ValueError, r"features must be \[N, 3\]; got \[2, 4\]"),
        (torch.zeros(2, 3, dtype=torch.int64), TypeError, "must be a floating-point tensor; got torch.int64"),
        (np.zeros((2, 3)), TypeError, "must be a floating-point tensor; got ndarray"),
        (torch.full((2, 3), torch.inf), ValueError, "not finite"),
    ):
        with pytest.raises(error, match=message):
            statistics.update(features)
    with pytest.raises(ValueError, match="needs 2 samples or more; got 0"):
        statistics.covariance  # noqa: B018
    with pytest.raises(ValueError, match="other must have 3 features; got 2"):
        statistics.merge(FeatureStatistics(2))
    with pytest.raises(ValueError, match=r"scatter must be \[3, 3\] and finite; got nothing"):
        statistics.load_state_dict({"count": torch.tensor(1), "mean": torch.zeros(3)})
    with pytest.raises(ValueError, match="features must be >= 1"):
        FeatureStatistics(0)
    assert statistics.count == 0
