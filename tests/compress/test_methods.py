"""The contract of every method: what it predicts for a rank is what that rank costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from edgelr.compress.factors import Decomposed, Decomposition, Fits, Kronecker, LowRank
from edgelr.compress.forms import balance, dense_weight
from edgelr.compress.methods import METHODS, SiteStatistics, hadamard, kronecker, nmf
from edgelr.compress.methods.metric import damped, factorize_between, gather, grid
from edgelr.device.storage import nearest_divisors

SHAPES = {"wide": (12, 20), "tall": (21, 13)}  # (out_features, in_features)
SCALES = {"zero": 0.0, "tiny": 1e-9, "plain": 1.0, "huge": 1e7}  # of what the Grams are made of
SAMPLES = {"seen": 100, "unseen": 5}  # five samples leave most directions unseen
STATISTICS = list(product(SCALES.values(), SAMPLES.values()))

every_method = pytest.mark.parametrize("method", METHODS.names())
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_scale = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
every_count = pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
every_fit = pytest.mark.parametrize("method", ["als", "hadamard", "nmf"])


def make_weight(shape: tuple[int, int], seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_statistics(
    shape: tuple[int, int], samples: int = 100, scale: float = 1.0
) -> SiteStatistics:
    def gram(size: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(samples, size, generator=generator) * torch.linspace(0.1, 3, size)
        return (x.T @ x / samples) * scale

    return SiteStatistics(gram(shape[1], 2), gram(shape[0], 3), units_per_token=0.25)


def decompose(method: str, weight: Tensor, statistics: SiteStatistics) -> Decomposed:
    return METHODS.get(method).decompose(weight, statistics)


@cache
def decomposed(
    method: str, shape: tuple[int, int], samples: int = 100, scale: float = 1.0
) -> Decomposed:
    return decompose(method, make_weight(shape), make_statistics(shape, samples, scale))


def ranks(result: Decomposed) -> list[int]:
    """List the ranks that have factors."""
    return [rank for rank in range(1, len(result.loss)) if torch.isfinite(result.loss[rank])]


def multiplied(factors: LowRank | Kronecker) -> Tensor:
    if isinstance(factors, Kronecker):
        pairs = zip(factors.left, factors.right, strict=True)
        return torch.stack([torch.kron(left, right) for left, right in pairs]).sum(0)
    return dense_weight(factors)


def measured(method: str, difference: Tensor, statistics: SiteStatistics) -> float:
    """``1/2 tr(D^T G D H)`` in the metric of the method."""
    output_gram, input_gram = METHODS.get(method).metric(statistics)
    weighted = difference if output_gram is None else output_gram @ difference
    weighted = weighted if input_gram is None else weighted @ input_gram
    return float((difference * weighted).sum() / 2)


def tensors(result: Decomposed) -> Iterator[Tensor]:
    yield result.loss
    for rank in ranks(result):
        factors = result.truncate(rank)
        pair = (factors.down, factors.up) if isinstance(factors, LowRank) else ()
        yield from pair or (factors.left, factors.right)


def nested_and_low_rank() -> list[str]:
    nested = [name for name, method in METHODS.items() if method.nested]
    return [name for name in nested if isinstance(decomposed(name, (3, 2)), Decomposition)]


# --- the contract ------------------------------------------------------------------------------


@every_method
@every_shape
def test_predicted_loss_is_the_measured_error_of_every_rank(
    method: str, shape: tuple[int, int]
) -> None:
    for scale, samples in STATISTICS:
        weight, statistics = make_weight(shape), make_statistics(shape, samples, scale)
        result = decomposed(method, shape, samples, scale)
        dropped = measured(method, weight, statistics)
        assert float(result.loss[0]) == pytest.approx(dropped, rel=1e-9, abs=0) != 0
        for rank in ranks(result):
            error = measured(method, weight - multiplied(result.truncate(rank)), statistics)
            assert float(result.loss[rank]) == pytest.approx(error, rel=1e-9, abs=1e-12 * dropped)


@every_method
@every_shape
def test_there_is_a_loss_for_every_number_of_components(
    method: str, shape: tuple[int, int]
) -> None:
    result = decomposed(method, shape)
    (m1, m2), (n1, n2) = (nearest_divisors(size) for size in shape)
    full = min(m1 * n1, m2 * n2) if method == "kronecker" else min(shape)
    assert result.loss.shape == (full + 1,)
    assert len(ranks(result)) == full or isinstance(result, Fits)
    assert result.loss.dtype == torch.float64
    assert not result.loss.isnan().any()


@every_method
@every_shape
def test_full_rank_is_lossless(method: str, shape: tuple[int, int]) -> None:
    for scale, samples in STATISTICS:
        result = decomposed(method, shape, samples, scale)
        full = result.truncate(len(result.loss) - 1)
        torch.testing.assert_close(multiplied(full), make_weight(shape), rtol=1e-9, atol=1e-9)
        assert result.loss[-1] == 0


@every_method
@every_shape
def test_loss_never_increases_with_rank(method: str, shape: tuple[int, int]) -> None:
    for scale, samples in STATISTICS:
        loss = decomposed(method, shape, samples, scale).loss
        finite = loss[loss.isfinite()]
        assert (finite.diff() <= 0).all()
        assert (finite >= 0).all()


@pytest.mark.parametrize("method", nested_and_low_rank())
@every_shape
def test_no_rank_is_worse_than_plain_svd_in_the_methods_own_metric(
    method: str, shape: tuple[int, int]
) -> None:
    weight, statistics = make_weight(shape), make_statistics(shape)
    loss, plain = decomposed(method, shape).loss, decomposed("svd", shape)
    for rank in ranks(plain):
        other = measured(method, weight - multiplied(plain.truncate(rank)), statistics)
        assert float(loss[rank]) <= other * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("method", sorted(set(METHODS.names()) - {"kronecker"}))
@every_shape
def test_no_factors_beat_the_best_of_their_rank_in_their_metric(
    method: str, shape: tuple[int, int]
) -> None:
    best = factorize_between(
        make_weight(shape), *METHODS.get(method).metric(make_statistics(shape))
    ).loss
    assert (decomposed(method, shape).loss >= best * (1 - 1e-9) - 1e-9).all()


@every_method
@every_shape
def test_balanced_factors_are_finite_in_float16(method: str, shape: tuple[int, int]) -> None:
    for scale, samples in STATISTICS:
        result = decomposed(method, shape, samples, scale)
        for rank in ranks(result):
            factors = result.truncate(rank)
            if isinstance(factors, Kronecker):
                half = Kronecker(factors.left.half().double(), factors.right.half().double())
                assert all(torch.isfinite(each).all() for each in (half.left, half.right))
            else:  # float32 is what is on the disk
                even = balance(LowRank(factors.down.float().double(), factors.up.float().double()))
                half = LowRank(even.down.half().double(), even.up.half().double())
                assert all(torch.isfinite(each).all() for each in (half.down, half.up))
            torch.testing.assert_close(multiplied(half), multiplied(factors), rtol=0, atol=0.05)


@every_method
def test_the_same_input_gives_the_same_bytes(method: str) -> None:
    again = decompose(method, make_weight((12, 20)), make_statistics((12, 20)))
    for first, second in zip(tensors(decomposed(method, (12, 20))), tensors(again), strict=True):
        assert first.numpy().tobytes() == second.numpy().tobytes()


@every_method
def test_the_random_state_of_the_caller_is_left_alone(method: str) -> None:
    before = torch.get_rng_state()
    decompose(method, make_weight((12, 20)), make_statistics((12, 20)))
    assert torch.equal(torch.get_rng_state(), before)


@every_method
@every_shape
def test_a_weight_of_zeros_costs_nothing(method: str, shape: tuple[int, int]) -> None:
    result = decompose(method, torch.zeros(shape, dtype=torch.float64), make_statistics(shape))
    assert (result.loss[result.loss.isfinite()] == 0).all()
    for rank in ranks(result):
        assert (multiplied(result.truncate(rank)) == 0).all()


@every_method
@every_shape
def test_a_weight_of_rank_two_is_factorized_all_the_same(
    method: str, shape: tuple[int, int]
) -> None:
    weight = make_weight((shape[0], 2)) @ make_weight((2, shape[1]), seed=2)
    weight[3] = weight[:, 4] = 0.0
    statistics = make_statistics(shape, samples=5)
    result = decompose(method, weight, statistics)
    for rank in ranks(result):
        error = measured(method, weight - multiplied(result.truncate(rank)), statistics)
        assert error == pytest.approx(float(result.loss[rank]), abs=1e-9 * float(result.loss[0]))


@every_method
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 2)])
def test_the_smallest_weights_are_factorized(method: str, shape: tuple[int, int]) -> None:
    result = decomposed(method, shape)
    full = multiplied(result.truncate(len(result.loss) - 1))
    torch.testing.assert_close(full, make_weight(shape), rtol=1e-9, atol=1e-9)


@every_method
@every_shape
def test_losses_have_the_square_of_the_weights_unit(method: str, shape: tuple[int, int]) -> None:
    unit = 2.0**-20  # exact in every precision
    small = decompose(method, unit * make_weight(shape), make_statistics(shape)).loss
    expected = decomposed(method, shape).loss * unit**2
    torch.testing.assert_close(small, expected, rtol=1e-6, atol=1e-12 * float(expected[0]))


@every_method
def test_a_method_reads_only_what_it_says(method: str) -> None:
    needs, statistics = METHODS.get(method).needs, make_statistics((12, 20))
    less = SiteStatistics(
        statistics.input_gram if "input_gram" in needs else None,
        statistics.output_gradient_gram if "output_gradient_gram" in needs else None,
        statistics.units_per_token,
    )
    found = tensors(decompose(method, make_weight((12, 20)), less))
    for mine, other in zip(found, tensors(decomposed(method, (12, 20))), strict=True):
        assert torch.equal(mine, other)


@every_method
def test_every_method_names_its_paper(method: str) -> None:
    assert any(character.isdigit() for character in METHODS.get(method).paper)


# --- what the methods share --------------------------------------------------------------------


def test_directions_that_no_input_takes_are_given_up_first() -> None:
    """Inputs live in 3 of 20 dimensions: rank 3 is enough for the outputs, not for plain SVD."""
    aware, plain = (decomposed(name, (12, 20), samples=3).loss for name in ("svd_llm", "svd"))
    assert aware[3] / aware[0] < 0.05 < plain[3] / plain[0]


def test_damping_keeps_the_mean_diagonal() -> None:
    gram = torch.diag(torch.tensor([0.0, 1.0, 5.0]))
    assert damped(gram, 0.1).trace() == pytest.approx(6)
    assert torch.linalg.eigvalsh(damped(gram, 0.1)).min() == pytest.approx(0.2)


@pytest.mark.parametrize("full", [*range(1, 40), 127, 128, 576, 960])
def test_the_grid_of_ranks_ends_with_the_full_one(full: int) -> None:
    *inner, last = grid(full)
    assert last == full
    assert inner == sorted(set(inner))
    assert all(0 < rank < full and rank % (16 if full >= 128 else 2) == 0 for rank in inner)
    assert len(inner) == 7 or full < 16


def test_a_fit_that_is_worse_than_one_of_lower_rank_is_replaced_by_it() -> None:
    fitted = {
        rank: (LowRank(make_weight((20, rank)), make_weight((rank, 12))), loss)
        for rank, loss in ((2, 9.0), (4, 3.0), (6, 5.0))
    }
    result = gather(make_weight((12, 20)), 7.0, fitted)
    assert result.loss[[0, 2, 4, 6, 12]].tolist() == [7.0, 7.0, 3.0, 3.0, 0.0]
    assert ranks(result) == sorted(result.fits) == [2, 4, 6, 12]
    assert (multiplied(result.fits[2]) == 0).all()
    assert result.fits[6].up.shape == (6, 12)
    torch.testing.assert_close(multiplied(result.fits[6]), multiplied(fitted[4][0]))


@every_fit
@every_shape
def test_a_fit_is_better_than_nothing(method: str, shape: tuple[int, int]) -> None:
    result = decomposed(method, shape)
    assert len(ranks(result)) > 2
    assert (result.loss[ranks(result)] < result.loss[0]).all()


# --- each method by itself ---------------------------------------------------------------------


def test_asvd_is_plain_svd_where_all_inputs_are_alike() -> None:
    statistics = SiteStatistics(4 * torch.eye(20), None)
    found = decompose("asvd", make_weight((12, 20)), statistics)
    plain = decomposed("svd", (12, 20))
    torch.testing.assert_close(found.loss, 2 * plain.loss)  # the root of a second moment of 4


def test_asvd_sees_no_correlation_between_inputs() -> None:
    statistics = make_statistics((12, 20))
    assert statistics.input_gram is not None
    diagonal = SiteStatistics(statistics.input_gram.diagonal().diag(), None)
    found = decompose("asvd", make_weight((12, 20)), diagonal)
    torch.testing.assert_close(found.loss, decomposed("asvd", (12, 20)).loss)


def test_fwsvd_and_output_space_agree_where_gradients_are_uncorrelated() -> None:
    statistics = SiteStatistics(None, torch.diag(torch.linspace(1, 5, 12)), 0.5)
    weight = make_weight((12, 20))
    rows, space = (decompose(name, weight, statistics) for name in ("fwsvd", "output_space"))
    torch.testing.assert_close(rows.loss, space.loss)


def test_output_space_is_the_fisher_metric_of_white_inputs() -> None:
    weight, given = make_weight((21, 13)), make_statistics((21, 13))
    white = SiteStatistics(torch.eye(13), given.output_gradient_gram, given.units_per_token)
    expected = decompose("fisher", weight, white).loss
    torch.testing.assert_close(decomposed("output_space", (21, 13)).loss, expected)


@every_shape
@every_count
def test_input_space_keeps_the_energy_of_its_directions(
    shape: tuple[int, int], samples: int
) -> None:
    """Dropping direction ``v`` costs ``1/2 lambda ||W v||^2``; variances come in order."""
    weight, result = make_weight(shape), decomposed("input_space", shape, samples)
    assert isinstance(result, Decomposition)
    _, gram = METHODS.get("input_space").metric(make_statistics(shape, samples))
    assert gram is not None
    torch.testing.assert_close(result.down.T @ result.down, torch.eye(min(shape)).double())
    torch.testing.assert_close(result.up, (weight @ result.down).T)
    variances = torch.einsum("ik,ij,jk->k", result.down, gram, result.down)
    assert (variances.diff() <= 1e-9 * variances[0]).all()
    energy = variances * (weight @ result.down).square().sum(0)
    torch.testing.assert_close(-2 * result.loss.diff(), energy)


def test_input_space_takes_the_principal_inputs_of_a_tall_weight() -> None:
    gram = make_statistics((21, 13)).input_gram
    assert gram is not None
    principal = torch.linalg.eigh(gram.double())[1].flip(1)[:, :4]  # (in, 4)
    found = multiplied(decomposed("input_space", (21, 13)).truncate(4))
    torch.testing.assert_close(found, make_weight((21, 13)) @ principal @ principal.T)


@pytest.mark.parametrize(
    ("size", "parts"), [(1, (1, 1)), (13, (1, 13)), (12, (3, 4)), (576, (24, 24)), (1536, (32, 48))]
)
def test_a_size_is_split_near_its_root(size: int, parts: tuple[int, int]) -> None:
    assert nearest_divisors(size) == parts


@every_shape
def test_a_kronecker_product_is_found_with_one_term(shape: tuple[int, int]) -> None:
    (m1, m2), (n1, n2) = (nearest_divisors(size) for size in shape)
    weight = torch.kron(make_weight((m1, n1)), make_weight((m2, n2), seed=2))
    result = decompose("kronecker", weight, make_statistics(shape))
    assert result.loss[1] <= 1e-12 * result.loss[0]
    torch.testing.assert_close(multiplied(result.truncate(1)), weight)


@every_shape
def test_kronecker_terms_are_the_best_of_their_number(shape: tuple[int, int]) -> None:
    """With white Grams the loss is the tail of the rearranged weight's plain spectrum."""
    out_features, in_features = shape
    white = SiteStatistics(torch.eye(in_features), torch.eye(out_features), units_per_token=0.5)
    result = decompose("kronecker", make_weight(shape), white)
    (m1, m2), (n1, n2) = (nearest_divisors(size) for size in shape)
    blocks = make_weight(shape).reshape(m1, m2, n1, n2).transpose(1, 2).reshape(m1 * n1, m2 * n2)
    torch.testing.assert_close(-result.loss.diff(), torch.linalg.svdvals(blocks) ** 2)


def test_the_nearest_product_of_a_kronecker_product_is_itself() -> None:
    first, second = (each @ each.T for each in (make_weight((3, 9)), make_weight((4, 9))))
    found = kronecker.nearest_product(torch.kron(first, second))
    torch.testing.assert_close(torch.kron(*found), torch.kron(first, second))


@every_scale
@every_count
def test_nearest_products_are_positive_definite_and_the_nearest(scale: float, samples: int) -> None:
    given = make_statistics((12, 20), samples, scale).input_gram
    assert given is not None
    gram = damped(given, 0.01)
    first, second = kronecker.nearest_product(gram)
    for part in (first, second):
        assert torch.linalg.eigvalsh(part).min() > 0
    pairs = (gram / gram.norm()).reshape(4, 5, 4, 5).transpose(1, 2).reshape(16, 25)
    error = (gram / gram.norm() - torch.kron(first, second) / gram.norm()).square().sum()
    assert error == pytest.approx(float((torch.linalg.svdvals(pairs)[1:] ** 2).sum()), abs=1e-9)


@pytest.mark.parametrize("full", [1, 2, 12, 13, 127, 128, 576, 960])
def test_inner_ranks_have_squares_below_the_full_rank(full: int) -> None:
    inner = hadamard.inner_ranks(full)
    step = 4 if full >= 128 else 1
    assert all(0 < rank**2 < full and rank % step == 0 for rank in inner)
    assert len(inner) <= hadamard.COUNT
    assert ((inner or (0,))[-1] + step) ** 2 >= full


@every_shape
def test_a_lowered_hadamard_product_is_the_elementwise_product(shape: tuple[int, int]) -> None:
    start = factorize_between(make_weight(shape), None, None)
    first, second = hadamard.fit(make_weight(shape), start, 2)
    other = LowRank(make_weight((shape[1], 3)), make_weight((3, shape[0])))
    for right in (second, other):
        lowered = hadamard.lower(first, right)
        assert len(lowered.up) == 2 * len(right.up)
        torch.testing.assert_close(multiplied(lowered), multiplied(first) * multiplied(right))


@every_shape
def test_a_hadamard_fit_improves_on_the_svd_of_its_inner_rank(shape: tuple[int, int]) -> None:
    result, plain = decomposed("hadamard", shape), decomposed("svd", shape)
    for inner in hadamard.inner_ranks(min(shape))[1:]:
        assert result.loss[inner**2] < plain.loss[inner]


@every_shape
@every_count
def test_alternating_least_squares_reaches_the_fisher_loss(
    shape: tuple[int, int], samples: int
) -> None:
    found, best = (decomposed(name, shape, samples) for name in ("als", "fisher"))
    for rank in ranks(found)[:-1]:
        assert float(found.loss[rank]) == pytest.approx(float(best.loss[rank]), rel=0.01)


@every_shape
def test_non_negative_factors_have_signs_by_component_only(shape: tuple[int, int]) -> None:
    for rank in ranks(decomposed("nmf", shape))[:-1]:
        factors = nmf.signed(make_weight(shape), rank)
        positive, negative = factors.up.split(rank // 2)
        assert (factors.down >= 0).all()
        assert (positive >= 0).all()
        assert (negative <= 0).all()


def test_a_non_negative_product_is_nearly_recovered() -> None:
    weight = make_weight((12, 3)).abs() @ make_weight((3, 20), seed=2).abs()
    result = decompose("nmf", weight, make_statistics((12, 20)))
    assert result.loss[6] < 0.01 * result.loss[0]
