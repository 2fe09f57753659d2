"""Every form computes the same product; pivots only spare parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgelr.compress.factors import LowRank
from edgelr.compress.forms import LARGEST_COEFFICIENT, apply, balance, dense_weight, pivot
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import Form
from edgelr.device.storage import INDEX_BYTES, Stored, stored

SHAPES = {"rows": (24, 17), "columns": (17, 24)}  # (in_features, out_features)
RANKS = (1, 6, 16, 17)  # 16: the smaller side less one; 17: all of it

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_rank = pytest.mark.parametrize("rank", RANKS)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 7 * sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make_factors(shape: tuple[int, int], rank: int, seed: int = 0) -> LowRank:
    in_features, out_features = shape
    decay = torch.logspace(0, -3, rank, dtype=torch.float64)
    return LowRank(
        random(in_features, rank, seed=seed) * decay, random(rank, out_features, seed=seed + 1)
    )


@every_shape
@every_rank
def test_a_pivoted_form_is_the_same_product(shape: tuple[int, int], rank: int) -> None:
    factors = make_factors(shape, rank)
    expected = (factors.down @ factors.up).T
    torch.testing.assert_close(dense_weight(pivot(factors)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", SHAPES)
def test_the_smaller_side_is_pivoted(axis: str) -> None:
    pivoted = pivot(make_factors(SHAPES[axis], 5))
    assert pivoted.axis == axis
    assert sorted(pivoted.order.tolist()) == list(range(17))


def counted(form: Form, shape: tuple[int, int], rank: int) -> Stored:
    site = LinearSite("a", *shape, False, "a", None, "a")
    return stored(form, SiteGroup("a", (site,)), rank)


@every_shape
@every_rank
def test_a_pivoted_form_stores_what_the_candidates_count(shape: tuple[int, int], rank: int) -> None:
    pivoted = pivot(make_factors(shape, rank))
    kept = counted("pivoted", shape, rank)
    assert kept.own[0] == (tuple(pivoted.first.shape), tuple(pivoted.second.shape))
    assert kept.parameters == rank * (sum(shape) - rank)
    assert (pivoted.order.numel(), pivoted.order.element_size()) == (kept.indices, INDEX_BYTES)


@every_shape
@every_rank
def test_a_low_rank_form_stores_what_the_candidates_count(
    shape: tuple[int, int], rank: int
) -> None:
    factors = make_factors(shape, rank)
    found = factors.down.numel() + factors.up.numel()
    assert found == rank * sum(shape) == counted("low_rank", shape, rank).parameters


@every_shape
@pytest.mark.parametrize("seed", range(5))
def test_pivots_keep_the_coefficients_modest(shape: tuple[int, int], seed: int) -> None:
    """They are at most 2**rank in theory and few above one in practice: float16 holds them well."""
    pivoted = pivot(make_factors(shape, 8, seed))
    coefficients = pivoted.second if pivoted.axis == "rows" else pivoted.first
    assert coefficients.abs().max() < LARGEST_COEFFICIENT
    assert coefficients.abs().median() < 2


def window(start: int, rank: int, columns: int) -> list[int]:
    return [*range(start, start + rank), *range(start), *range(start + rank, columns)]


def test_pivots_are_neighbours_where_their_coefficients_are_modest() -> None:
    """The outputs from 4 to 8 span the product best; the others are small mixtures of them."""
    up = 0.01 * random(4, 16)
    up[:, 4:8] = torch.eye(4)
    pivoted = pivot(LowRank(random(24, 4), up), block=4)
    assert pivoted.order.tolist() == window(4, 4, 16)
    assert pivot(LowRank(random(24, 4), up.roll(-4, 1)), block=4).order.tolist() == [*range(16)]
    assert pivot(LowRank(random(24, 4), up.roll(8, 1)), block=4).order.tolist() == window(12, 4, 16)


def test_pivots_are_scattered_where_no_neighbours_span_the_product() -> None:
    up = torch.zeros(4, 16, dtype=torch.float64)
    up[:, ::4] = torch.eye(4)
    pivoted = pivot(LowRank(random(24, 4), up), block=4)
    assert sorted(pivoted.order[:4].tolist()) == [0, 4, 8, 12]


@every_shape
@pytest.mark.parametrize("true_rank", [0, 1, 4])
def test_pivots_exist_where_the_product_has_a_lower_rank(
    shape: tuple[int, int], true_rank: int
) -> None:
    """Rows of zeros, as pruning leaves them, make components of exactly zero."""
    full = make_factors(shape, 7)
    keep = torch.arange(7) < true_rank
    factors = LowRank(full.down * keep, full.up * keep[:, None])
    pivoted = pivot(factors)
    expected = (factors.down @ factors.up).T
    torch.testing.assert_close(dense_weight(pivoted), expected, rtol=1e-5, atol=1e-5)
    assert max(pivoted.first.abs().max(), pivoted.second.abs().max()) < 1e3


@every_shape
@every_rank
@pytest.mark.parametrize("pivots", [False, True], ids=["low_rank", "pivoted"])
def test_applying_is_multiplying_with_the_dense_weight(
    shape: tuple[int, int], rank: int, pivots: bool
) -> None:
    factors = make_factors(shape, rank)
    chosen = pivot(factors) if pivots else factors
    x = random(2, 3, shape[0])
    torch.testing.assert_close(apply(chosen, x), x @ dense_weight(chosen).T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(apply(chosen, x), x @ factors.down @ factors.up)


@every_shape
def test_pivots_stay_in_the_precision_of_the_factors(shape: tuple[int, int]) -> None:
    factors = make_factors(shape, 5)
    pivoted = pivot(LowRank(factors.down.float(), factors.up.float()))
    assert {pivoted.first.dtype, pivoted.second.dtype} == {torch.float32}
    expected = (factors.down @ factors.up).T.float()
    torch.testing.assert_close(dense_weight(pivoted), expected, rtol=1e-4, atol=1e-4)


@every_shape
def test_balancing_keeps_the_product_and_equals_the_norms(shape: tuple[int, int]) -> None:
    plain = make_factors(shape, 5)
    units = torch.logspace(-12, 12, 5, dtype=torch.float64)
    balanced = balance(LowRank(plain.down * units, plain.up / units[:, None]))
    torch.testing.assert_close(balanced.down @ balanced.up, plain.down @ plain.up)
    torch.testing.assert_close(balanced.down.norm(dim=0), balanced.up.norm(dim=1))


def test_balancing_leaves_components_of_zeros_finite() -> None:
    down = random(6, 3) * torch.tensor([1.0, 0.0, 0.0])
    up = random(3, 4) * torch.tensor([1.0, 1e19, 0.0])[:, None]
    balanced = balance(LowRank(down, up))
    torch.testing.assert_close(balanced.down @ balanced.up, down @ up)
    assert torch.isfinite(balanced.down.half()).all()
    assert torch.isfinite(balanced.up.half()).all()


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)], ids=SHAPES)
@pytest.mark.parametrize("rank", [4, 8, 12, 16])
def test_runs_of_neighbours_pivot_together(shape: tuple[int, int], rank: int) -> None:
    factors = make_factors(shape, rank)
    pivoted = pivot(factors, block=4)
    runs = pivoted.order.reshape(-1, 4)
    assert torch.equal(runs, runs[:, :1] // 4 * 4 + torch.arange(4))
    expected = (factors.down @ factors.up).T
    torch.testing.assert_close(dense_weight(pivoted), expected, rtol=1e-5, atol=1e-5)


def test_runs_that_span_too_little_are_given_up_for_shorter_ones() -> None:
    """Columns 0 to 3 are one vector: no run of four among them can pivot."""
    factors = make_factors((24, 8), 4)
    up = factors.up.clone()
    up[:, 1:4] = up[:, :1]
    up[:, 5:8] = up[:, 4:5]
    factors = LowRank(factors.down, up)
    expected = (factors.down @ factors.up).T
    torch.testing.assert_close(dense_weight(pivot(factors, block=4)), expected)


def test_a_block_that_does_not_divide_the_rank_is_shortened() -> None:
    pivoted = pivot(make_factors((24, 16), 6), block=4)  # runs of two: gcd(4, 6, 16)
    assert torch.equal(pivoted.order[1::2], pivoted.order[::2] + 1)
