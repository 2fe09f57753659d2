"""Candidates: none larger than dense, each counted to the byte, and divided without a rest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgelr.compress.block_quantized import QuantizedLoss
from edgelr.core.plan import Candidate
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import LAYOUTS, Form, WeightPrecision
from edgelr.device.storage import INDEX_BYTES, largest_rank, matrix_bytes, packed_bytes, stored
from edgelr.planning.candidates import make_candidate, make_options, site_candidates, site_residency
from tests.planning.test_allocators import (
    FORMS,
    MULTIPLE,
    SPECTRA,
    every_form_set,
    every_kind,
    make_group,
    option,
)

BLOCK = LAYOUTS["int8"].block_size

QUERY, KEY = (
    LinearSite(name, 96, size, False, name, None, "x") for name, size in (("q", 64), ("k", 32))
)
UP, DOWN = (
    LinearSite(name, *shape, False, name, None, name)
    for name, shape in (("up", (96, 64)), ("down", (64, 96)))
)
GROUPS: dict[str, tuple[SiteGroup, Form]] = {
    "one": (SiteGroup("q", (QUERY,)), "low_rank"),
    "pivoted": (SiteGroup("q", (QUERY,)), "pivoted"),
    "input": (SiteGroup("qk", (QUERY, KEY), "input"), "low_rank"),
    "input, pivoted": (SiteGroup("qk", (QUERY, KEY), "input"), "pivoted"),
    "blocks": (SiteGroup("qk", (QUERY, KEY), "blocks"), "low_rank"),
    "tied": (SiteGroup("up down", (UP, DOWN), "tied"), "tied"),
    "dense": (SiteGroup("qk", (QUERY, KEY), "input"), "dense"),
    "kronecker": (SiteGroup("q", (QUERY,)), "kronecker"),
}
RANK = 8

every_group = pytest.mark.parametrize(("group", "form"), GROUPS.values(), ids=GROUPS)


def made(group: SiteGroup, form: Form, weights: WeightPrecision = "float16") -> Candidate:
    return make_candidate(form, group, RANK, 0.75, weights, "float16")


# --- lists ---------------------------------------------------------------------------------------


@every_form_set
def test_candidates_are_smaller_than_dense_and_multiples_of_the_step(
    forms: tuple[Form, ...],
) -> None:
    for each in every_kind(forms):
        for candidate in each.compressed:
            assert candidate.bytes < each.dense.bytes
            assert candidate.rank % MULTIPLE == 0
            assert candidate.form in forms


def test_what_may_stay_dense_is_not_split_for_little() -> None:
    group, loss = make_group("a", 256, 256), np.zeros(257)
    ranks = {
        forms: make_options(group, loss, forms, "float32", MULTIPLE).compressed[-1].rank
        for forms in (("low_rank",), ("dense", "low_rank"))
    }
    assert ranks == {("low_rank",): 124, ("dense", "low_rank"): 112}


def test_a_candidate_costs_its_parameters_and_indices() -> None:
    (each,) = (option("a", (40, 96), SPECTRA["steep"]),)
    for candidate in (each.dense, *each.compressed):
        kept = stored(candidate.form, make_group("a", 40, 96), candidate.rank)
        assert candidate.bytes == 2 * kept.parameters + INDEX_BYTES * kept.indices
        assert candidate.flops == 2 * kept.parameters


def test_the_spectrum_is_read_back_from_the_losses() -> None:
    np.testing.assert_allclose(option("a", (40, 96), SPECTRA["steep"]).sigma, SPECTRA["steep"])


def test_every_rank_that_pays_is_listed_for_every_form() -> None:
    """One parameter less than dense is a saving where nothing may stay dense."""
    group = make_group("a", 12, 12)
    found = make_options(group, np.linspace(1, 0, 13), ("low_rank", "pivoted"), "float32", 1)
    listed = {(each.form, each.rank) for each in found.compressed}
    pays = {
        (form, rank)
        for form in ("low_rank", "pivoted")
        for rank in range(1, largest_rank(form, group) + 1)
        if make_candidate(form, group, rank, 0, "float32", "float32").bytes < found.dense.bytes
    }
    assert listed == pays
    assert ("pivoted", 6) in listed
    assert ("low_rank", 5) in listed
    assert ("low_rank", 6) not in listed


@pytest.mark.parametrize("components", [MULTIPLE, 5 * MULTIPLE, 5 * MULTIPLE + 1])
def test_all_components_that_a_method_made_may_be_kept(components: int) -> None:
    loss = np.linspace(1, 0, components + 1)
    found = make_options(make_group("a", 96, 120), loss, ("low_rank",), "float32", MULTIPLE)
    assert found.compressed[-1].rank == components // MULTIPLE * MULTIPLE


def test_kronecker_terms_are_counted_from_one_to_the_last_that_pays() -> None:
    """Any number of terms may be kept: their factors have shapes of their own."""
    group, terms = make_group("a", 24, 36), 4
    loss = np.linspace(1, 0, terms + 1)
    found = make_options(group, loss, ("dense", "kronecker"), "float32", 8).compressed
    assert [(each.form, each.rank) for each in found] == [
        ("kronecker", rank) for rank in range(1, terms + 1)
    ]
    assert [each.predicted_loss for each in found] == loss[1:].tolist()


def test_ranks_without_factors_are_left_out() -> None:
    loss = np.where(np.arange(97) % 16 == 0, np.linspace(1, 0, 97), np.inf)
    found = make_options(make_group("a", 96, 120), loss, FORMS, "float16", MULTIPLE)
    assert {each.rank for each in found.compressed} == {16, 32, 48}
    assert all(math.isfinite(each.predicted_loss) for each in found.compressed)


def test_a_tied_pair_is_tied_or_stays_as_it_is() -> None:
    group, _ = GROUPS["tied"]
    loss = np.append(np.full(64, np.inf), 0.5)
    (only,) = make_options(group, loss, ("dense", "tied"), "float32", MULTIPLE).compressed
    assert (only.form, only.rank, only.predicted_loss) == ("tied", 64, 0.5)
    assert make_options(group, loss, ("dense", "low_rank"), "float32", MULTIPLE).compressed == ()


def test_a_convolution_becomes_two_and_nothing_else() -> None:
    site = replace(QUERY, kernel=(4, 4))
    loss = np.linspace(1, 0, 65)
    found = make_options(SiteGroup("q", (site,)), loss, FORMS, "float32", MULTIPLE)
    assert {each.form for each in found.compressed} == {"low_rank"}


def test_rounded_weights_are_whole_or_low_rank_in_whole_blocks() -> None:
    loss = np.linspace(1, 0, 65)
    rounded = {"int8": QuantizedLoss(0.25, loss + 0.5)}
    weights: tuple[WeightPrecision, ...] = ("float32", "int8")
    group = SiteGroup("q", (replace(QUERY, out_features=96), KEY), "input")
    found = make_options(group, loss, FORMS, "float32", MULTIPLE, weights, rounded)
    eight_bits = [each for each in found.compressed if each.precision == "int8"]
    assert [(each.form, each.rank, each.predicted_loss) for each in eight_bits] == [
        ("dense", 96, 0.25),
        ("low_rank", BLOCK, rounded["int8"].product[BLOCK]),
    ]
    assert found.dense.precision == "float32"


@pytest.mark.parametrize(("inputs", "offered"), [(64, False), (255, False), (256, True)])
def test_two_bits_are_for_matrices_that_kernels_do_not_fill_up(inputs: int, offered: bool) -> None:
    """They take more memory than four bits there."""
    group = make_group("a", inputs, 96)
    never = np.full(65, np.inf)
    rounded = {"int4": QuantizedLoss(0.25, never), "int2_b64": QuantizedLoss(0.5, never)}
    weights: tuple[WeightPrecision, ...] = ("float32", "int4", "int2_b64")
    loss = np.linspace(1, 0, 65)
    found = make_options(group, loss, FORMS, "float32", MULTIPLE, weights, rounded)
    kinds = {each.precision for each in found.compressed}
    assert kinds == {"float32", "int4", *(["int2_b64"] if offered else [])}


# --- divided among sites -------------------------------------------------------------------------


@every_group
def test_the_parts_of_sites_add_up_to_the_group(group: SiteGroup, form: Form) -> None:
    whole = made(group, form)
    parts = site_candidates(group, whole, "float16")
    assert sum(each.bytes for each in parts) == whole.bytes
    assert sum(each.predicted_loss for each in parts) == pytest.approx(whole.predicted_loss)
    assert {(each.form, each.rank, each.precision) for each in parts} == {
        (form, RANK, whole.precision)
    }


@every_group
def test_a_site_loses_by_its_share_of_the_weights(group: SiteGroup, form: Form) -> None:
    parts = site_candidates(group, made(group, form), "float16")
    for site, part in zip(group.sites, parts, strict=True):
        share = site.parameters / sum(each.parameters for each in group.sites)
        assert part.predicted_loss == share * 0.75


def test_a_product_is_computed_once_for_one_input_and_again_for_every_block() -> None:
    """Weights are stored once either way."""
    shared, own = 96 * RANK, RANK * (64 + 32)
    for name, products in (("input", shared + own), ("blocks", 2 * shared + own)):
        group, form = GROUPS[name]
        parts = site_candidates(group, made(group, form), "float16")
        assert sum(each.flops for each in parts) == 2 * products
        assert sum(each.bytes for each in parts) == 2 * (shared + own)
    tied = made(*GROUPS["tied"])
    assert sum(each.flops for each in site_candidates(GROUPS["tied"][0], tied, "float16")) == (
        tied.flops
    )


# --- memory --------------------------------------------------------------------------------------


@every_group
def test_what_no_provider_packs_takes_its_bytes_in_the_file(group: SiteGroup, form: Form) -> None:
    whole = made(group, form)
    assert sum(site_residency(group, whole, "float16", packs=False)) == whole.bytes


@every_group
def test_packed_layouts_are_there_once_for_every_product(group: SiteGroup, form: Form) -> None:
    whole = made(group, form, "float32")
    found = sum(site_residency(group, whole, "float32", packs=True))
    kept = stored(form, group, RANK)
    again = len(group.sites) if group.kind in ("blocks", "tied") else 1
    products = [*kept.shared * again, *(shape for own in kept.own for shape in own)]
    packed = sum(packed_bytes(shape, "float32") for shape in products)
    assert found == packed + INDEX_BYTES * kept.indices


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_a_table_is_gathered_from_and_never_packed(precision: WeightPrecision) -> None:
    table = SiteGroup("table", (QUERY,), "table")
    tied = replace(table, kind="tied_table")
    file_bytes = matrix_bytes((96, 64), precision, "float32")
    packed = packed_bytes((96, 64), precision)
    for group, packs, expected in (
        (table, True, file_bytes),
        (table, False, file_bytes),
        (tied, True, packed + file_bytes),  # also multiplied with
        (tied, False, file_bytes),
    ):
        whole = make_candidate("dense", group, 64, 0.0, precision, "float32")
        assert site_residency(group, whole, "float32", packs) == [expected]


def test_rounded_weights_are_larger_in_memory_than_in_their_file() -> None:
    """So that a table, which is not packed, takes less than a linear of the same shape."""
    linear = SiteGroup("linear", (QUERY,))
    whole = make_candidate("dense", linear, 64, 0.0, "int4", "float32")
    assert site_residency(linear, whole, "float32", packs=True)[0] > whole.bytes
