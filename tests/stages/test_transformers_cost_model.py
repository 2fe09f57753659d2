"""What linears cost: every stage is kept, and made anew only by what it depends on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from edgelr import pipeline
from edgelr.compress.importance.soco import Schedule
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.vocabulary import LAYOUTS, AskedPrecision
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.model.token_table import table_layouts
from edgelr.stages.subject import Planned
from edgelr.stages.transformers import cost_model
from edgelr.stages.transformers.cost_model import spectra, statistics
from edgelr.stages.transformers.subject import ModelSubject, examine
from tests.conftest import MakeModel, random_rows
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

DEVICE = load_profile("generic-cpu")
STATISTICS = {"sampling text", "input statistics", "gradient statistics", "decomposition"}
FEW = 6  # steps


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


def plan_of(model: LoadedModel, run: Run, **changes: Any) -> Planned:
    settings = quick_settings(model.folder, **{"keep": 0.6, **changes})
    return pipeline.plan(settings, DEVICE, run)


def subject_of(model: LoadedModel, **changes: Any) -> ModelSubject:
    return examine(model, quick_settings(model.folder, **changes), DEVICE)


def stages(cache: Cache) -> list[str]:
    """Kinds of the stages that a cache keeps."""
    return sorted(path.name.partition("-")[0] for path in cache.root.iterdir())


def test_statistics_made_anew_give_the_same_factors(
    tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    before = plan_of(tiny_decoder, Run(cache, Recorder()))
    fresh = Cache(tmp_path)
    for path in cache.root.glob("dense-*"):
        (tmp_path / path.name).symlink_to(path)
    recorder = Recorder()
    after = plan_of(tiny_decoder, Run(fresh, recorder))
    assert set(recorder.stages) >= STATISTICS
    assert after.plan == before.plan
    for path in before.spectra.folder.iterdir():
        assert path.read_bytes() == (after.spectra.folder / path.name).read_bytes()


def test_grams_are_collected_once_for_all_methods_that_need_them(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    """Only what is drawn depends on the seed, and everything on the texts."""
    own, texts = Cache(tmp_path), random_rows(tiny_decoder, 4, 12)

    def collected(recipe: str, seed: int = 0, text_seed: int = 0) -> tuple[list[str], set[str]]:
        recorder, subject = Recorder(), subject_of(tiny_decoder, recipe=recipe)
        read = random_rows(tiny_decoder, 4, 12, text_seed) if text_seed else texts
        store, _ = statistics(subject, [read], Run(own, recorder, seed))
        return recorder.stages, set(store.folders)

    assert collected("svd") == ([], set())
    assert collected("svd-llm") == (["input statistics"], {"input_gram"})
    both = {"input_gram", "output_gradient_gram"}
    assert collected("edgelr") == (["gradient statistics"], both)
    assert collected("edgelr", seed=1) == (["gradient statistics"], both)
    assert collected("edgelr", text_seed=1) == (["input statistics", "gradient statistics"], both)
    assert collected("edgelr") == ([], both)


def test_a_key_of_statistics_is_that_of_what_they_were_collected_from(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    subject, texts = subject_of(tiny_decoder), random_rows(tiny_decoder, 4, 12)
    keys = [
        statistics(subject, [read], Run(Cache(tmp_path), Recorder(), seed))[1]
        for read, seed in ((texts, 0), (texts, 0), (texts, 1), (texts.first(24), 0))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_decomposition_is_found_again_for_another_allocator_and_not_for_other_groups(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    texts, own, worked = [random_rows(tiny_decoder, 4, 12)], Cache(tmp_path), []
    for changes in ({}, {"allocator": "lagrangian"}, {"keep": 0.3}, {"grouping": "input"}):
        recorder = Recorder()
        run, subject = Run(own, recorder), subject_of(tiny_decoder, recipe="svd-llm", **changes)
        table = spectra(subject, statistics(subject, texts, run), run)
        worked.append("decomposition" in recorder.stages)
        assert table.loss.keys() == {group.name for group in subject.groups}
    assert worked == [True, False, False, True]


@pytest.mark.parametrize(
    ("precision", "rounded"), [("float16", set()), ("int8", {"int8"}), ("auto", set(LAYOUTS))]
)
def test_rounding_is_priced_where_it_may_be_taken(
    make_model: MakeModel, tmp_path: Path, precision: AskedPrecision, rounded: set[str]
) -> None:
    """For the table of embeddings as well, which no float precision plans."""
    model, run = make_model("llama", hidden_size=96), Run(Cache(tmp_path), Recorder())
    subject, texts = subject_of(model, precision=precision), [random_rows(model, 4, 12)]
    found = spectra(subject, statistics(subject, texts, run), run, texts)
    priced = {group.name: rounded for group in subject.planned_groups} if rounded else {}
    if subject.table is not None:
        priced[subject.table.name] = rounded & set(table_layouts(subject.table.in_features))
    assert {name: set(losses) for name, losses in found.quantized.items()} == priced
    assert (subject.table is None) == (not rounded)
    kept = stages(run.cache)
    assert kept.count("rounding") == kept.count("table_rounding") == bool(rounded)
    assert kept.count("table") == (1 if rounded else 0)
    assert kept.count("correction") == (1 if precision == "auto" else 0)


def test_a_second_round_plans_on_the_compressed_model(
    tiny_decoder: LoadedModel, cache: Cache
) -> None:
    first = plan_of(tiny_decoder, Run(cache, Recorder()))
    second = plan_of(tiny_decoder, Run(cache, Recorder()), rounds=2)
    assert second.plan.planned_bytes <= second.plan.budget_bytes
    assert second.spectra.folder != first.spectra.folder
    site = first.subject.sites[-1]
    dense, compressed = (made.costs.statistics.of(site).input_gram for made in (first, second))
    assert dense is not None
    assert compressed is not None
    assert not torch.allclose(dense, compressed, rtol=1e-3)


@pytest.mark.parametrize(("recipe", "depends"), [("soco", True), ("spectral-surgery", False)])
def test_importance_is_found_again_and_learned_anew_for_another_share(
    tiny_encoder: LoadedModel,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    depends: bool,
) -> None:
    monkeypatch.setattr(cost_model, "STEPS", FEW)  # which the key of the stage has
    monkeypatch.setattr(cost_model, "Schedule", partial(Schedule, steps=FEW))
    worked = []
    for seed, keep in ((5, 0.85), (5, 0.85), (5, 0.7)):
        settings = quick_settings(tiny_encoder.folder, recipe=recipe, keep=keep, seed=seed)
        recorder = Recorder()
        planned = pipeline.plan(settings, DEVICE, Run(cache, recorder))
        worked.append("component importance" in recorder.stages)
        assert planned.spectra.folder.name.startswith("importance-")
        assert planned.plan.kept <= keep
    assert worked == [True, False, depends]
