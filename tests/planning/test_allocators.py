"""The contract of every allocator, and what the Lagrangian one promises besides."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from edgelr.compress.block_quantized import QuantizedLoss
from edgelr.core.plan import Candidate, Choice
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import Form
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.allocators.cover import components, smallest_bytes
from edgelr.planning.candidates import Options, make_options

MULTIPLE = 4
FORMS: tuple[Form, ...] = ("dense", "low_rank", "pivoted")
FORM_SETS: dict[str, tuple[Form, ...]] = {"all": FORMS, "plain": ("low_rank",)}
SPECTRA = {
    "steep": np.logspace(0, -3, 40),
    "shallow": np.linspace(1, 0.5, 40) * 3,
    "flat": np.ones(40),
    "flat on top": np.repeat([2.0, 0.1], 20),
    "low rank": np.repeat([1.0, 0.0], [6, 34]),
    "zero": np.zeros(40),
    "small": np.logspace(-2, -2.5, 40),
}

every_allocator = pytest.mark.parametrize("name", ALLOCATORS.names())
every_form_set = pytest.mark.parametrize("forms", FORM_SETS.values(), ids=FORM_SETS)
every_seed = pytest.mark.parametrize("seed", range(8))


def make_group(name: str, in_features: int, out_features: int) -> SiteGroup:
    site = LinearSite(name, in_features, out_features, False, name, None, name)
    return SiteGroup(name, (site,))


def option(
    name: str, shape: tuple[int, int], sigma: np.ndarray, forms: tuple[Form, ...] = FORMS
) -> Options:
    """``sigma`` is cut or filled with its last value to ``min(shape)``."""
    sigma = np.concatenate([sigma, np.full(100, sigma[-1])])[: min(shape)]
    loss = np.append(np.cumsum(sigma[::-1] ** 2)[::-1] / 2, 0.0)
    return make_options(make_group(name, *shape), loss, forms, "float16", MULTIPLE)


def every_kind(forms: tuple[Form, ...] = FORMS) -> list[Options]:
    """One group per spectrum, of distinct shapes, and one that has no smaller candidate."""
    shapes = [(40 + 8 * index, 96 - 8 * index) for index in range(len(SPECTRA))]
    kinds = zip(SPECTRA.items(), shapes, strict=True)
    options = [option(name, shape, sigma, forms) for (name, sigma), shape in kinds]
    return [*options, option("tiny", (5, 6), SPECTRA["steep"], forms)]


def random_options(seed: int, groups: int) -> list[Options]:
    random = np.random.default_rng(seed)
    return [
        option(
            f"site {index}",
            (int(random.integers(12, 40)), int(random.integers(12, 40))),
            np.sort(random.exponential(size=40) ** random.uniform(0.2, 3))[::-1],
        )
        for index in range(groups)
    ]


def budgets(options: list[Options], count: int = 60) -> list[int]:
    """From the smallest plan to more than the dense one."""
    smallest = sum(each.smallest.bytes for each in options)
    dense = sum(each.dense.bytes for each in options)
    return [smallest, *np.linspace(smallest, 1.1 * dense, count).astype(int).tolist(), dense]


def spent(choices: dict[str, Choice]) -> int:
    return sum(choice.candidate.bytes for choice in choices.values())


def lost(choices: dict[str, Choice]) -> float:
    return sum(choice.candidate.predicted_loss for choice in choices.values())


# --- contract --------------------------------------------------------------------------------


@every_allocator
@every_form_set
def test_every_plan_fits_its_budget(name: str, forms: tuple[Form, ...]) -> None:
    options = every_kind(forms)
    for budget in budgets(options):
        assert spent(ALLOCATORS.get(name)(options, budget)) <= budget


@every_allocator
@every_form_set
def test_a_larger_budget_is_never_worse(name: str, forms: tuple[Form, ...]) -> None:
    options = every_kind(forms)
    plans = [ALLOCATORS.get(name)(options, budget) for budget in sorted(budgets(options))]
    losses, sizes = np.array([lost(plan) for plan in plans]), [spent(plan) for plan in plans]
    assert (np.diff(losses) <= 1e-12).all()
    assert sizes == sorted(sizes)


@every_allocator
def test_every_choice_is_a_candidate_of_its_group_and_has_a_reason(name: str) -> None:
    options = every_kind()
    for budget in budgets(options, 10):
        choices = ALLOCATORS.get(name)(options, budget)
        assert list(choices) == [each.name for each in options]
        for each in options:
            assert choices[each.name].candidate in (each.dense, *each.compressed)
            assert choices[each.name].reason


@every_allocator
def test_a_group_is_dense_where_nothing_is_smaller(name: str) -> None:
    options = every_kind()
    for budget in budgets(options, 10):
        assert ALLOCATORS.get(name)(options, budget)["tiny"].candidate.form == "dense"


@every_allocator
def test_the_whole_budget_loses_nothing(name: str) -> None:
    options = every_kind()
    assert lost(ALLOCATORS.get(name)(options, sum(each.dense.bytes for each in options))) == 0


# --- Lagrangian ------------------------------------------------------------------------------


@every_seed
def test_lagrangian_is_optimal_at_the_vertices_of_its_hull(seed: int) -> None:
    """At the bytes of ``argmin loss + multiplier * bytes``, no combination loses less."""
    options = random_options(seed, groups=3)
    candidates = [(each.dense, *each.compressed) for each in options]
    combined = list(product(*candidates))
    sizes = np.array([sum(each.bytes for each in choice) for choice in combined])
    losses = np.array([sum(each.predicted_loss for each in choice) for choice in combined])
    for multiplier in np.logspace(-7, 1, 40):
        vertex = [_cheapest(each, multiplier) for each in candidates]
        budget = sum(each.bytes for each in vertex)
        found = lost(ALLOCATORS.get("lagrangian")(options, budget))
        assert found == pytest.approx(losses[sizes <= budget].min(), rel=1e-9, abs=1e-12)


def _cheapest(candidates: tuple[Candidate, ...], multiplier: float) -> Candidate:
    return min(candidates, key=lambda each: each.predicted_loss + multiplier * each.bytes)


@every_allocator
@every_seed
def test_no_allocator_beats_lagrangian_at_a_vertex(name: str, seed: int) -> None:
    """Between two vertices another may win, by a part of one step of one group."""
    options = random_options(seed, groups=12)
    for multiplier in np.logspace(-7, 1, 40):
        vertex = [_cheapest((each.dense, *each.compressed), multiplier) for each in options]
        budget = sum(each.bytes for each in vertex)
        best, other = (ALLOCATORS.get(each)(options, budget) for each in ("lagrangian", name))
        assert lost(best) <= lost(other) + 1e-12


def test_lagrangian_says_what_a_group_became() -> None:
    """A rank only where there is one, and the precision where that is another."""
    group = SiteGroup("qk", tuple(site(name, 96, 48) for name in "qk"), "input")
    loss, rounded = np.linspace(1, 0, 97), {"int8": QuantizedLoss(1e-3, np.full(97, np.inf))}
    only_ranks = make_options(group, loss, FORMS, "float16", 16)
    with_bits = make_options(group, loss, FORMS, "float16", 16, ("float16", "int8"), rounded)
    for made, reason in (
        (only_ranks, "low_rank rank 16 for 2 linears costs its loss least"),
        (with_bits, "dense in int8 for 2 linears costs its loss least"),
    ):
        budget = 2 * 16 * (96 + 96) if made is only_ranks else with_bits.dense.bytes * 2 // 3
        (choice,) = ALLOCATORS.get("lagrangian")([made], budget).values()
        assert choice.reason == reason


def test_lagrangian_says_why_a_group_is_dense() -> None:
    steep = option("steep", (40, 48), SPECTRA["steep"])
    shallow = option("shallow", (44, 52), SPECTRA["shallow"])
    small = option("small", (5, 6), SPECTRA["small"])
    budget = steep.smallest.bytes + 100 + shallow.dense.bytes + small.dense.bytes
    choices = ALLOCATORS.get("lagrangian")([steep, shallow, small], budget)
    assert choices["steep"].reason.endswith("costs its loss least")
    assert choices["shallow"].reason.startswith("every smaller candidate loses more")
    assert choices["small"].reason == "no smaller candidate"
    everything = ALLOCATORS.get("lagrangian")([steep, shallow], 10**9)
    assert {choice.reason for choice in everything.values()} == {"the budget holds it dense"}


# --- groups that exclude each other --------------------------------------------------------------


def site(name: str, in_features: int, out_features: int) -> LinearSite:
    return LinearSite(name, in_features, out_features, False, name, None, "x")


def alternatives(seed: int) -> list[Options]:
    """Two blocks of query and key: alone, together in a block, or with the other block's."""
    random = np.random.default_rng(seed)
    q0, k0, q1, k1 = (site(name, 40, size) for name, size in zip("qkQK", (40, 24) * 2, strict=True))
    groups = [SiteGroup(each.name, (each,)) for each in (q0, k0, q1, k1)]
    groups += [SiteGroup(f"{a.name}+{b.name}", (a, b), "input") for a, b in ((q0, k0), (q1, k1))]
    groups += [SiteGroup(f"{a.name}+{b.name}", (a, b), "blocks") for a, b in ((q0, q1), (k0, k1))]
    options = []
    for group in groups:
        size = min(group.in_features, group.out_features)
        sigma = np.sort(random.exponential(size=size) ** random.uniform(0.2, 3))[::-1]
        loss = np.append(np.cumsum(sigma[::-1] ** 2)[::-1] / 2, 0.0) * len(group.sites)
        options.append(make_options(group, loss, FORMS, "float16", MULTIPLE))
    return [*options, option("alone", (40, 48), SPECTRA["steep"])]


def test_every_exact_cover_is_found_once() -> None:
    found = components(alternatives(0))
    names = [[sorted(each.name for each in cover) for cover in covers] for covers in found]
    assert names[1] == [["alone"]]
    assert sorted(names[0]) == sorted([
        ["K", "Q", "k", "q"],
        ["K", "Q", "q+k"],
        ["Q+K", "k", "q"],
        ["Q+K", "q+k"],
        ["K", "k", "q+Q"],
        ["Q", "k+K", "q"],
        ["k+K", "q+Q"],
    ])  # fmt: skip


@every_seed
def test_every_site_is_in_one_chosen_group_and_the_plan_fits(seed: int) -> None:
    options = alternatives(seed)
    dense = sum(each.dense.bytes for each in options if len(each.sites) == 1)
    previous = float("inf")
    for budget in np.linspace(smallest_bytes(options), dense, 30).astype(int).tolist():
        choices = ALLOCATORS.get("lagrangian")(options, budget)
        chosen = [each for each in options if each.name in choices]
        assert sorted(name for each in chosen for name in each.sites) == [
            "K",
            "Q",
            "alone",
            "k",
            "q",
        ]
        assert spent(choices) <= budget
        assert lost(choices) <= previous + 1e-12
        previous = lost(choices)


@every_seed
def test_sharing_is_taken_only_where_it_loses_less(seed: int) -> None:
    """At the vertices of the hull no plan without sharing loses less."""
    options = alternatives(seed)
    alone = [each for each in options if len(each.sites) == 1]
    for multiplier in np.logspace(-6, 0, 20):
        covers = [
            min(
                (
                    [_cheapest((each.dense, *each.compressed), multiplier) for each in cover]
                    for cover in covers
                ),
                key=lambda cover: sum(c.predicted_loss + multiplier * c.bytes for c in cover),
            )
            for covers in components(options)
        ]
        budget = sum(candidate.bytes for cover in covers for candidate in cover)
        if budget >= smallest_bytes(alone):
            shared, single = (
                ALLOCATORS.get("lagrangian")(each, budget) for each in (options, alone)
            )
            assert lost(shared) <= lost(single) + 1e-12
