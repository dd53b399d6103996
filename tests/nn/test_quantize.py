"""The nearest code against all distances, and codes that follow their vectors."""

from __future__ import annotations

import pytest
import torch

from imgops import _backend
from imgops.nn import VectorQuantizer, nearest_code
from imgops.nn.quantize import perplexity

CPU = _backend.load()["cpu", "cpu"]
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not CPU.available, reason=CPU.reason))]


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 64, 6, 5), (4, 1), (1, 130, 3)])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_the_code_is_the_nearest(impl, dtype, shape, offset):
    x, codebook = torch.randn(shape) + offset, 2 * torch.randn(50, shape[1]) + offset
    x, codebook = x.to(dtype), codebook.to(dtype)
    index = nearest_code(x, codebook, impl=impl)
    assert index.shape == (shape[0], *shape[2:])
    assert index.dtype == torch.int64
    vectors = x.double().movedim(1, -1).reshape(-1, shape[1])
    distances = torch.cdist(vectors, codebook.double())
    chosen = distances.gather(1, index.reshape(-1, 1))[:, 0]
    # rounding decides between codes that are nearly as near
    assert float((chosen - distances.amin(1)).max()) < 1e-3 * float(distances.max())


def test_codes_that_are_all_the_same():
    assert not nearest_code(torch.randn(2, 3, 4), torch.ones(5, 3)).any()


def test_the_gradient_passes_through():
    quantizer = VectorQuantizer(8, 4)
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    values, index = quantizer(x)
    torch.testing.assert_close(values, quantizer.codebook[index].movedim(-1, 1))
    slope = torch.randn_like(values)
    values.backward(slope)
    assert torch.equal(x.grad, slope)


def test_codes_become_the_means_of_their_vectors():
    torch.manual_seed(0)
    centers = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    quantizer = VectorQuantizer(3, 2)
    quantizer.codebook.copy_(centers + 0.5)
    quantizer.sums.copy_(quantizer.codebook / 3)
    for _ in range(300):
        x = (centers[torch.randint(0, 3, (64,))] + 0.1 * torch.randn(64, 2))[:, :, None]
        quantizer.update(quantizer.statistics(x, quantizer(x).index), decay=0.9)
    torch.testing.assert_close(quantizer.codebook, centers, atol=0.1, rtol=0)
    assert float(quantizer.counts.sum()) == pytest.approx(1, rel=1e-3)


def test_statistics_are_shares_and_sums():
    quantizer = VectorQuantizer(3, 2)
    x = torch.randn(2, 2, 5)
    index = torch.randint(0, 3, (2, 5))
    found = quantizer.statistics(x, index)
    for code in range(3):
        mine = x.movedim(1, -1)[index == code]
        torch.testing.assert_close(found[code], torch.cat([torch.tensor([float(len(mine))]), mine.sum(0)]) / 10)


def test_codes_without_vectors_begin_anew():
    quantizer = VectorQuantizer(5, 2)
    quantizer.counts.copy_(torch.tensor([0.0, 10.0, 0.1, 10.0, 0.0]))
    before = quantizer.codebook.clone()
    candidates = torch.tensor([[7.0, 7.0], [8.0, 8.0]])
    assert int(quantizer.restart(candidates)) == 2
    assert torch.equal(quantizer.codebook, torch.stack([candidates[0], before[1], candidates[1], before[3], before[4]]))
    assert float(quantizer.counts[0]) == pytest.approx(20.1 / 5)
    torch.testing.assert_close(quantizer.sums[0], candidates[0] * quantizer.counts[0])
    # the last one follows at the next batch, and then none
    assert int(quantizer.restart(candidates)) == 1
    assert int(quantizer.restart(candidates)) == 0


def test_perplexity_counts_the_codes_in_use():
    assert float(perplexity(torch.arange(8), 16)) == pytest.approx(8, rel=1e-3)
    assert float(perplexity(torch.zeros(8, dtype=torch.int64), 16)) == pytest.approx(1, rel=1e-3)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match=r"codebook must be \[K, D\]"):
        nearest_code(torch.randn(2, 3, 4), torch.randn(5, 4))
    with pytest.raises(ValueError, match="num_codes must be >= 1; got 0"):
        VectorQuantizer(0, 4)
    with pytest.raises(TypeError, match="x must be"):
        nearest_code([1.0], torch.randn(5, 4))
