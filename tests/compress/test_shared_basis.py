"""Bases that several linears share, and one matrix for two: errors as predicted, and minimal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgelr.compress.factors import Decomposition, LowRank
from edgelr.compress.methods import ErrorMetric
from edgelr.compress.methods.metric import factorize_between
from edgelr.compress.shared_basis import (
    best_up,
    factorize_stacked,
    fit_coefficients,
    group_loss,
    refine_basis,
    tie,
)

every_rank = pytest.mark.parametrize("rank", [1, 3, 6, 11])
every_metric = pytest.mark.parametrize("weighed", [True, False], ids=["fisher", "inputs only"])
SHAPE = (8, 12)  # (out_features, in_features)


def positive(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(size, 2 * size, generator=generator, dtype=torch.float64)
    return samples @ samples.T / size


def neighbours(weighed: bool) -> tuple[list[Tensor], list[ErrorMetric]]:
    """Two weights that resemble each other, each with inputs of its own."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    metrics = [
        (positive(SHAPE[0], seed) if weighed else None, positive(SHAPE[1], seed + 10))
        for seed in (1, 2)
    ]
    return [first, first + 0.3 * noise], metrics


def stacked(weights: list[Tensor], metrics: list[ErrorMetric]) -> Decomposition:
    inputs = [h for _, h in metrics if h is not None]
    return factorize_stacked(weights, metrics, inputs[0] + inputs[1])


@every_metric
def test_stacked_weights_are_one_weight_with_blocks_for_its_outputs(weighed: bool) -> None:
    weights, metrics = neighbours(weighed)
    outputs = [g for g, _ in metrics if g is not None]
    input_gram = metrics[0][1]
    blocks = torch.block_diag(*outputs) if outputs else None
    whole = factorize_between(torch.cat(weights), blocks, input_gram)
    found = factorize_stacked(weights, metrics, input_gram)
    torch.testing.assert_close(found.loss, whole.loss, rtol=1e-8, atol=1e-9)
    for rank in (1, 5, 12):
        one, other = (each.truncate(rank) for each in (whole, found))
        torch.testing.assert_close(one.down @ one.up, other.down @ other.up)


@every_rank
@every_metric
def test_the_stacked_loss_is_an_upper_bound(rank: int, weighed: bool) -> None:
    weights, metrics = neighbours(weighed)
    found = stacked(weights, metrics)
    assert group_loss(found.truncate(rank), weights, metrics) <= float(found.loss[rank]) + 1e-9


@every_rank
@every_metric
def test_the_fitted_loss_is_the_measured_one_and_smaller(rank: int, weighed: bool) -> None:
    weights, metrics = neighbours(weighed)
    plain = stacked(weights, metrics)
    fitted = fit_coefficients(plain, weights, metrics)
    measured = group_loss(fitted.truncate(rank), weights, metrics)
    assert float(fitted.loss[rank]) == pytest.approx(measured, rel=1e-9)
    assert measured <= group_loss(plain.truncate(rank), weights, metrics)


@every_metric
def test_fitted_coefficients_are_lossless_at_full_rank(weighed: bool) -> None:
    weights, metrics = neighbours(weighed)
    fitted = fit_coefficients(stacked(weights, metrics), weights, metrics)
    assert (fitted.loss.diff() <= 1e-12).all()
    factors = fitted.truncate(12)
    torch.testing.assert_close((factors.down @ factors.up).T, torch.cat(weights))


@every_rank
@every_metric
def test_solving_in_turns_never_makes_a_group_worse(rank: int, weighed: bool) -> None:
    weights, metrics = neighbours(weighed)
    factors = fit_coefficients(stacked(weights, metrics), weights, metrics).truncate(rank)
    losses = [group_loss(factors, weights, metrics)]
    for _ in range(3):
        factors = refine_basis(factors, weights, metrics, sweeps=1)
        losses.append(group_loss(factors, weights, metrics))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_the_best_basis_has_no_gradient_left() -> None:
    weights, metrics = neighbours(True)
    start = fit_coefficients(stacked(weights, metrics), weights, metrics).truncate(3)
    found = refine_basis(start, weights, metrics, sweeps=300)
    down = found.down.clone().requires_grad_()
    loss = down.new_zeros(())
    for weight, up, (g, h) in zip(weights, found.up.split(SHAPE[0], dim=1), metrics, strict=True):
        assert g is not None
        assert h is not None
        error = weight - (down @ up).T
        loss = loss + 0.5 * (error * (g @ error @ h)).sum()
    loss.backward()
    assert down.grad is not None
    assert float(down.grad.norm()) < 1e-3 * loss.item()


def test_a_basis_for_equal_sites_is_that_of_one() -> None:
    weights, metrics = neighbours(True)
    weights, metrics = [weights[0]] * 2, [metrics[0]] * 2
    fitted = fit_coefficients(stacked(weights, metrics), weights, metrics)
    alone = factorize_between(weights[0], *metrics[0])
    torch.testing.assert_close(fitted.loss[: len(alone.loss)], 2 * alone.loss, rtol=1e-8, atol=1e-9)


# --- the tied pair -------------------------------------------------------------------------------


def pair() -> tuple[Tensor, Tensor, tuple[ErrorMetric, ErrorMetric]]:
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    second = first.T + 0.3 * torch.randn(5, 9, generator=generator, dtype=torch.float64)
    return first, second, ((positive(9, 4), positive(5, 5)), (positive(5, 6), positive(9, 7)))


def pair_loss(tied: Tensor) -> Tensor:
    """``tied (in, out)`` of the first linear."""
    first, second, metrics = pair()
    total = tied.new_zeros(())
    for weight, found, (g, h) in zip((first, second), (tied.T, tied), metrics, strict=True):
        assert g is not None
        assert h is not None
        total = total + 0.5 * ((weight - found) * (g @ (weight - found) @ h)).sum()
    return total


def test_the_tied_matrix_is_the_nearest_one() -> None:
    first, second, metrics = pair()
    found = tie(first, second, metrics)
    tied = found.weight.clone().requires_grad_()
    loss = pair_loss(tied)
    loss.backward()
    assert tied.grad is not None
    assert float(tied.grad.abs().max()) < 1e-9
    assert float(found.loss[-1]) == pytest.approx(loss.item())
    assert loss.item() < min(float(pair_loss(first.T)), float(pair_loss(second)))


def test_a_pair_that_is_tied_already_loses_nothing() -> None:
    first, _, metrics = pair()
    found = tie(first, first.T, metrics)
    torch.testing.assert_close(found.weight, first.T)
    assert float(found.loss[-1]) == pytest.approx(0, abs=1e-20)


def test_only_the_whole_tied_matrix_is_a_choice() -> None:
    assert tie(*pair()).loss.isinf().tolist() == [True] * 5 + [False]


def test_shared_factors_keep_their_name() -> None:
    weights, metrics = neighbours(True)
    factors = fit_coefficients(stacked(weights, metrics), weights, metrics).truncate(3)
    named = LowRank(factors.down, factors.up, "blocks")
    assert refine_basis(named, weights, metrics, sweeps=1).shared == "blocks"


def test_components_that_rounding_made_equal_or_nothing_do_not_stop_the_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    gram = root @ root.T
    poor = torch.cat((down, down[:, :1], torch.zeros(12, 1).double()), dim=1)
    found, expected = best_up(poor, weight, gram), best_up(down, weight, gram)
    torch.testing.assert_close(poor @ found, down @ expected)
    assert not found[-1].any()
