"""Decompositions: what is kept at a rank is the beginning of what is kept at any larger one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgelr.compress.factors import Decomposition, Fits, KroneckerTerms, LowRank, Reweighted
from edgelr.compress.forms import dense_weight

INPUTS, OUTPUTS, FULL = 9, 7, 6


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


DOWN, UP, LOSS = random(INPUTS, FULL), random(FULL, OUTPUTS), torch.linspace(1, 0, FULL + 1)


def fisher() -> Tensor:
    noise = random(FULL, 4 * FULL) + 0.5
    return noise @ noise.T / (4 * FULL)


def reweighted(information: Tensor) -> Reweighted:
    return Reweighted(DOWN, UP, torch.linalg.cholesky(information), LOSS)


@pytest.mark.parametrize("rank", range(1, FULL + 1))
def test_ranks_are_nested(rank: int) -> None:
    found = Decomposition(DOWN, UP, LOSS).truncate(rank)
    assert torch.equal(found.down, DOWN[:, :rank])
    assert torch.equal(found.up, UP[:rank])
    assert found.down.is_contiguous()
    assert found.shared is None


@pytest.mark.parametrize("terms", [1, 3])
def test_kronecker_terms_add_up(terms: int) -> None:
    left, right = random(3, 2, 3), random(3, 4, 5)
    found = dense_weight(KroneckerTerms(left, right, torch.zeros(4)).truncate(terms))
    expected = sum(torch.kron(left[term], right[term]) for term in range(terms))
    torch.testing.assert_close(found, expected)


def test_scales_are_one_where_components_do_not_depend_on_each_other() -> None:
    independent = reweighted(torch.diag(torch.arange(1.0, FULL + 1).double()))
    for rank in range(1, FULL + 1):
        torch.testing.assert_close(independent.scales(rank), torch.ones(rank).double())
    plain = Decomposition(DOWN, UP, LOSS).truncate(3)
    torch.testing.assert_close(independent.truncate(3).up, plain.up)


def test_scales_are_the_best_of_their_rank() -> None:
    """``1 + F_SS^-1 F_SC 1``: the gradient of ``1/2 d^T F d`` is zero there."""
    information = fisher()
    for rank in range(1, FULL + 1):
        scales = reweighted(information).scales(rank)
        change = torch.cat((scales - 1, -torch.ones(FULL - rank, dtype=torch.float64)))
        gradient = (information @ change)[:rank]
        free = scales > 0
        torch.testing.assert_close(gradient[free], torch.zeros(int(free.sum())).double())
        assert torch.equal(reweighted(information).truncate(rank).up, UP[:rank] * scales[:, None])


def test_scales_have_the_precision_of_the_factors() -> None:
    found = replace(reweighted(fisher()), down=DOWN.float(), up=UP.float())
    assert found.scales(3).dtype == torch.float32
    assert found.truncate(3).up.dtype == torch.float32


def test_a_fit_has_no_other_ranks() -> None:
    fit = LowRank(DOWN[:, :2], UP[:2])
    fits = Fits({2: fit}, LOSS)
    assert fits.truncate(2) is fit
    with pytest.raises(KeyError):
        fits.truncate(1)
