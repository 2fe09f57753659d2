"""The contract of every method: what it predicts for a rank is what that rank costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgelr.forms import balance
from edgelr.methods import METHODS
from edgelr.methods.fisher import GRADIENT_DAMPING
from edgelr.methods.metric import damped
from edgelr.methods.svd_llm import INPUT_DAMPING
from edgelr.types import Decomposition, SiteStatistics

SHAPES = {"wide": (12, 20), "tall": (21, 13)}  # (out_features, in_features)
SCALES = {"zero": 0.0, "tiny": 1e-9, "plain": 1.0, "huge": 1e7}  # of what the Grams are made of
SAMPLES = {"seen": 100, "unseen": 5}  # five samples leave most directions unseen

every_method = pytest.mark.parametrize("method", METHODS.names())
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_scale = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
every_count = pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)


def make_weight(shape: tuple[int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def make_statistics(
    shape: tuple[int, int], samples: int = 100, scale: float = 1.0
) -> SiteStatistics:
    def gram(size: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(samples, size, generator=generator) * torch.linspace(0.1, 3, size)
        return (x.T @ x / samples) * scale

    return SiteStatistics(gram(shape[1], 2), gram(shape[0], 3), units_per_token=0.25)


def decompose(method: str, weight: Tensor, statistics: SiteStatistics) -> Decomposition:
    return METHODS.get(method).decompose(weight, statistics)


def measured(method: str, difference: Tensor, statistics: SiteStatistics) -> float:
    """``1/2 tr(D^T G D H)``, with the Grams that the method reads and the identity for others."""
    needs = METHODS.get(method).needs
    weighted, units = difference, 1.0
    if "output_gradient_gram" in needs:
        assert statistics.output_gradient_gram is not None
        weighted = damped(statistics.output_gradient_gram, GRADIENT_DAMPING) @ weighted
        units = statistics.units_per_token
    if "input_gram" in needs:
        assert statistics.input_gram is not None
        weighted = weighted @ damped(statistics.input_gram, INPUT_DAMPING)
    return float((difference * weighted).sum() / 2 / units)


def errors_by_rank(
    method: str, weight: Tensor, result: Decomposition, statistics: SiteStatistics
) -> Tensor:
    ranks = range(len(result.loss))
    differences = (weight - (result.down[:, :rank] @ result.up[:rank]).T for rank in ranks)
    errors = [measured(method, each, statistics) for each in differences]
    return torch.tensor(errors, dtype=torch.float64)


@every_method
@every_shape
@every_scale
@every_count
def test_predicted_loss_is_the_measured_error_of_every_rank(
    method: str, shape: tuple[int, int], scale: float, samples: int
) -> None:
    weight, statistics = make_weight(shape), make_statistics(shape, samples, scale)
    result = decompose(method, weight, statistics)
    assert len(result.loss) == min(shape) + 1
    expected = errors_by_rank(method, weight, result, statistics)
    tolerance = 1e-12 * float(result.loss[0])
    torch.testing.assert_close(result.loss, expected, rtol=1e-9, atol=tolerance)


@every_method
@every_shape
@every_scale
@every_count
def test_full_rank_is_lossless(
    method: str, shape: tuple[int, int], scale: float, samples: int
) -> None:
    weight = make_weight(shape)
    result = decompose(method, weight, make_statistics(shape, samples, scale))
    torch.testing.assert_close((result.down @ result.up).T, weight, rtol=1e-9, atol=1e-9)
    assert result.loss[-1] == 0


@every_method
@every_shape
@every_count
def test_loss_never_increases_with_rank(method: str, shape: tuple[int, int], samples: int) -> None:
    loss = decompose(method, make_weight(shape), make_statistics(shape, samples)).loss
    assert (loss.diff() <= 0).all()
    assert (loss >= 0).all()


@every_method
@every_shape
def test_no_rank_is_worse_than_plain_svd_in_the_methods_own_metric(
    method: str, shape: tuple[int, int]
) -> None:
    weight, statistics = make_weight(shape), make_statistics(shape)
    plain = decompose("svd", weight, statistics)
    others = errors_by_rank(method, weight, plain, statistics)
    assert (decompose(method, weight, statistics).loss <= others * (1 + 1e-9) + 1e-9).all()


@every_method
@every_shape
@every_scale
@every_count
def test_balanced_factors_are_finite_in_float16(
    method: str, shape: tuple[int, int], scale: float, samples: int
) -> None:
    weight = make_weight(shape)
    result = decompose(method, weight, make_statistics(shape, samples, scale))
    down, up = (factor.float().double() for factor in (result.down, result.up))  # as on the disk
    factors = balance(replace(result, down=down, up=up).truncate(min(shape)))
    down, up = factors.down.half(), factors.up.half()
    assert torch.isfinite(down).all()
    assert torch.isfinite(up).all()
    torch.testing.assert_close((down.double() @ up.double()).T, weight, rtol=0, atol=0.05)


@every_method
def test_the_same_input_gives_the_same_bytes(method: str) -> None:
    first, second = (
        decompose(method, make_weight((12, 20)), make_statistics((12, 20))) for _ in range(2)
    )
    for name in ("down", "up", "loss"):
        assert getattr(first, name).numpy().tobytes() == getattr(second, name).numpy().tobytes()


@every_method
@every_shape
def test_a_weight_of_zeros_costs_nothing(method: str, shape: tuple[int, int]) -> None:
    result = decompose(method, torch.zeros(shape, dtype=torch.float64), make_statistics(shape))
    assert (result.loss == 0).all()
    assert (result.down @ result.up == 0).all()


@every_method
def test_a_method_reads_only_what_it_says(method: str) -> None:
    needs, statistics = METHODS.get(method).needs, make_statistics((12, 20))
    less = SiteStatistics(
        statistics.input_gram if "input_gram" in needs else None,
        statistics.output_gradient_gram if "output_gradient_gram" in needs else None,
        statistics.units_per_token,
    )
    weight = make_weight((12, 20))
    assert torch.equal(decompose(method, weight, less).up, decompose(method, weight, statistics).up)


@every_method
def test_every_method_names_its_paper(method: str) -> None:
    assert any(character.isdigit() for character in METHODS.get(method).paper)


def test_directions_that_no_input_takes_are_given_up_first() -> None:
    """Inputs live in 3 of 20 dimensions: rank 3 is enough for the outputs, not for plain SVD."""
    weight, statistics = make_weight((12, 20)), make_statistics((12, 20), samples=3)
    aware, plain = (decompose(name, weight, statistics).loss for name in ("svd_llm", "svd"))
    assert aware[3] / aware[0] < 0.05 < plain[3] / plain[0]


def test_damping_keeps_the_mean_diagonal() -> None:
    gram = torch.diag(torch.tensor([0.0, 1.0, 5.0]))
    assert damped(gram, 0.1).trace() == pytest.approx(6)
    assert torch.linalg.eigvalsh(damped(gram, 0.1)).min() == pytest.approx(0.2)
