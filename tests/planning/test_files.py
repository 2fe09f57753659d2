"""Plans as files that people edit: read strictly, checked against the model, and priced again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgelr.compress.block_quantized import QuantizedLoss
from edgelr.compress.spectra import SpectrumTable
from edgelr.core.errors import InputError
from edgelr.core.plan import Candidate, Plan
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.planning.allocate import Search, prepare
from edgelr.planning.files import follow_plan, read_plan, write_plan
from edgelr.planning.recipes import RECIPES
from tests.planning.test_allocate import SHAPES, every_recipe, half, make_search, spectra

RANK = 8


def followed(plan: Plan, search: Search) -> Plan:
    return follow_plan(plan, search, SpectrumTable(Path("nowhere"), spectra()))


def changed(plan: Plan, **changes: object) -> Plan:
    """Change the first site of a plan."""
    return replace(plan, sites=(replace(plan.sites[0], **changes), *plan.sites[1:]))


def edited(plan: Plan, **changes: object) -> Plan:
    """Change what the first site of a plan becomes."""
    return changed(plan, candidate=replace(plan.sites[0].candidate, **changes))


@every_recipe
def test_a_plan_survives_its_file(recipe: str, tmp_path: Path) -> None:
    search = make_search(recipe)
    plan = half(search)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    assert followed(plan, search) == plan


def rewritten(plan: Plan, folder: Path, candidate: object) -> Plan:
    """Write a plan, edit what the first site becomes in the file, and read it."""
    write_plan(plan, folder / "plan.json")
    content = json.loads((folder / "plan.json").read_text())
    content["sites"][0]["candidate"] = candidate
    (folder / "plan.json").write_text(json.dumps(content))
    return read_plan(folder / "plan.json")


# --- read strictly -------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"sites": 3}'])
def test_what_is_no_plan_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(InputError, match="is not a plan"):
        read_plan(tmp_path / "plan.json")


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a plan"):
        read_plan(tmp_path / "none.json")


def test_an_unknown_field_in_a_plan_is_not_ignored(tmp_path: Path) -> None:
    """A typing error in an edited plan must not go unnoticed."""
    write_plan(half(make_search()), tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text().replace('"rank"', '"ranks"', 1)
    (tmp_path / "plan.json").write_text(text)
    told = "site first, candidate.ranks: the key is unknown. Did you mean rank"
    with pytest.raises(InputError, match=told):
        read_plan(tmp_path / "plan.json")


def test_a_form_is_enough_for_a_linear_that_stays_as_it_is(tmp_path: Path) -> None:
    search = make_search()
    plan = half(search)
    found = rewritten(plan, tmp_path, {"form": "dense"})
    expected = followed(edited(plan, form="dense"), search)
    assert followed(found, search) == expected
    assert followed(found, search).sites[0].candidate.bytes == plan.sites[0].dense_bytes


def test_a_form_and_a_rank_are_enough_for_a_linear_that_is_factorized(tmp_path: Path) -> None:
    search = make_search()
    found = rewritten(half(search), tmp_path, {"form": "low_rank", "rank": RANK})
    assert followed(found, search).sites[0].candidate.bytes == 2 * RANK * sum(SHAPES["first"])


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        ({"form": "low_rank"}, "site first, candidate.rank: the key is missing"),
        ({"rank": 3}, "site first, candidate.form: the key is missing"),
        ({"form": "sparse", "rank": 3}, r"site first, candidate.form: .*low_rank.*'sparse'"),
        ({"form": "dense", "precision": "int3"}, r"site first, candidate.precision: .*'int3'"),
        ({"form": "low_rank", "rank": "x"}, r"site first, candidate.rank: .*\(found 'x'\)"),
        ("dense", "is not a plan"),
    ],
)
def test_what_is_wrong_with_an_edited_linear_is_told_by_its_name(
    tmp_path: Path, candidate: object, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        rewritten(half(make_search()), tmp_path, candidate)


# --- checked against the model -------------------------------------------------------------------


def test_a_plan_of_another_model_is_refused() -> None:
    search = make_search()
    plan = half(search)
    for other, message in (
        (changed(plan, name="renamed"), "renamed"),
        (replace(plan, sites=plan.sites[1:]), "3 sites and the model 4; they differ in first"),
        (replace(plan, sites=(*plan.sites, plan.sites[0])), "5 sites .* listed twice"),
        (changed(plan, in_features=97), r"\(97, 120\), the model as \(96, 120\)"),
    ):
        with pytest.raises(InputError, match=message):
            followed(other, search)


@pytest.mark.parametrize("rank", [-1, 0, 97])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    search = make_search()
    with pytest.raises(InputError, match=rf"rank {rank} as \w+; expected 1 to 9\d"):
        followed(edited(half(search), rank=rank), search)


# --- priced again --------------------------------------------------------------------------------


def test_people_change_ranks_and_not_bytes() -> None:
    """What is written of costs is never believed."""
    search = make_search()
    plan = half(search)
    lied = edited(plan, form="low_rank", rank=RANK, bytes=1, flops=1, predicted_loss=0.0)
    found = followed(changed(lied, resident_bytes=1), search).sites[0]
    assert found.candidate.bytes == 2 * RANK * sum(SHAPES["first"])
    assert found.candidate.flops == 2 * RANK * sum(SHAPES["first"])
    assert found.candidate.predicted_loss == spectra()["first"][RANK]
    assert found.resident_bytes == found.candidate.bytes
    total = followed(lied, search)
    assert total.planned_bytes == sum(site.candidate.bytes for site in total.sites)
    assert total.predicted_loss == sum(site.candidate.predicted_loss for site in total.sites)


def test_a_site_that_is_made_dense_loses_nothing() -> None:
    search = make_search()
    found = followed(edited(half(search), form="dense", rank=96), search).sites[0]
    assert found.candidate.predicted_loss == 0
    assert found.candidate.bytes == found.dense_bytes


QUERY, KEY = (
    LinearSite(name, 96, size, False, name, None, "x") for name, size in (("q", 64), ("k", 32))
)
CONVOLUTION = LinearSite("patches", 96, 64, False, "patches", None, "image", kernel=(4, 4))


def planned(
    *groups: SiteGroup, quantized: bool = False
) -> tuple[Search, SpectrumTable, Callable[..., Plan]]:
    """A search of some groups, and a plan that makes the same candidate of all of them."""
    losses = {group.name: np.linspace(1.0, 0.0, 65) for group in groups}
    rounded = {"int8": QuantizedLoss(0.25, np.linspace(1.5, 0.5, 65))}
    table = SpectrumTable(
        Path("nowhere"), losses, dict.fromkeys(losses, rounded) if quantized else {}
    )
    search = prepare(list(groups), table, RECIPES.get("edgelr"), "float32", RANK)

    def plan(**changes: object) -> Plan:
        made = search.plan(search.dense_bytes)
        sites = [replace(each, candidate=replace(each.candidate, **changes)) for each in made.sites]
        return replace(made, sites=tuple(sites))

    return search, table, plan


def test_sites_of_a_group_have_one_form_and_one_rank() -> None:
    search, table, plan = planned(SiteGroup("qk", (QUERY, KEY), "input"))
    whole = plan(form="low_rank", rank=RANK)
    assert follow_plan(whole, search, table).planned_bytes == 4 * RANK * (96 + 64 + 32)
    with pytest.raises(InputError, match=r"q into the group 'qk'.*one form and rank"):
        follow_plan(edited(whole, rank=2 * RANK), search, table)
    with pytest.raises(InputError, match="into the group 'q'"):
        follow_plan(changed(whole, group=None), search, table)


@pytest.mark.parametrize(
    ("form", "loss"), [("dense", 0.25), ("low_rank", 1.5 - RANK / 64), ("pivoted", None)]
)
def test_rounded_weights_lose_what_was_measured_of_them(form: str, loss: float | None) -> None:
    search, table, plan = planned(SiteGroup("q", (QUERY,)), quantized=True)
    chosen = plan(form=form, rank=RANK, precision="int8")
    if loss is None:
        with pytest.raises(InputError, match="no pivoted factors of rank 8 for q in int8"):
            follow_plan(chosen, search, table)
    else:
        found: Candidate = follow_plan(chosen, search, table).sites[0].candidate
        assert found.predicted_loss == pytest.approx(loss)
    with pytest.raises(InputError, match="for q in int4"):
        follow_plan(plan(form="dense", precision="int4"), search, table)


def test_a_convolution_is_not_pivoted() -> None:
    search, table, plan = planned(SiteGroup("patches", (CONVOLUTION,)))
    assert follow_plan(plan(form="low_rank", rank=RANK), search, table).predicted_loss > 0
    with pytest.raises(InputError, match="no pivoted factors of rank 8 for patches"):
        follow_plan(plan(form="pivoted", rank=RANK), search, table)
