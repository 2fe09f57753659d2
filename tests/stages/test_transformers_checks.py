"""Checks: what a model cannot have is refused with its name, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgelr import pipeline
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.modality import MODALITIES
from edgelr.core.run import Run
from edgelr.core.vocabulary import LAYOUTS
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.planning.recipes import RECIPES
from edgelr.runtime.reference_tests import REFERENCE_TESTS
from edgelr.stages.sources.transformers import ModelSource
from edgelr.stages.transformers.checks import require_floats, require_one_graph, require_tests
from edgelr.stages.transformers.rows import rows_of
from edgelr.stages.transformers.subject import examine
from tests.helpers.run_exports import (
    IMAGE_PIVOT,
    MATCH_PIVOT,
    PAIR_PIVOT,
    Recorder,
    quick_settings,
)

Models = dict[str, LoadedModel]
DEVICE = load_profile("generic-cpu")
EVERY = ("llama", "bert", IMAGE_PIVOT, PAIR_PIVOT, "whisper", MATCH_PIVOT)
GRAPHS = {
    PAIR_PIVOT: "an encoder and a decoder",
    MATCH_PIVOT: "a graph of texts and one of images",
}

every_kind = pytest.mark.parametrize("name", EVERY)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"heal_steps": 3}, "healing"),
        ({"heal_minutes": 0.1}, "healing"),
        ({"max_latency": 3.0}, "--max-latency"),
        ({"recipe": "mpifa"}, "the recipe mpifa"),
        ({"recipe": "soco"}, "the recipe soco"),
    ],
)
def test_what_is_not_made_for_two_graphs_is_refused_before_any_work(
    tiny_models: Models, tmp_path: Path, name: str, changes: dict[str, Any], what: str
) -> None:
    model, recorder, cache = tiny_models[name], Recorder(), Cache(tmp_path / "cache")
    settings = quick_settings(model.folder, calibration_length=None, **changes)
    told = f"has {GRAPHS[name]} .task {model.task}., and {what} takes models of one graph only"
    with pytest.raises(InputError, match=told):
        pipeline.plan(settings, DEVICE, Run(cache, recorder), source=ModelSource(model))
    assert recorder.stages == []
    assert not cache.root.exists()


@pytest.mark.parametrize("name", EVERY)
def test_only_models_of_one_graph_go_where_one_is_taken(tiny_models: Models, name: str) -> None:
    model = tiny_models[name]
    two = MODALITIES.get(model.modality).beside is not None
    assert two == (name in (PAIR_PIVOT, "whisper", MATCH_PIVOT))
    if not two:
        require_one_graph(model, "bench")
        return
    with pytest.raises(InputError, match="bench takes models of one graph only"):
        require_one_graph(model, "bench")
    refit = next(each for _, each in RECIPES.items() if "refit" in each.refine)
    with pytest.raises(InputError, match=f"the recipe {refit.name} takes"):
        rows_of(model).require(model, quick_settings(model.folder), refit)


@every_kind
def test_tests_are_promised_where_there_are_some(tiny_models: Models, name: str) -> None:
    model = tiny_models[name]
    asked = quick_settings(model.folder, with_tests=True)
    require_tests(model, quick_settings(model.folder))
    if model.modality in REFERENCE_TESTS.names():
        require_tests(model, asked)
        return
    with pytest.raises(InputError, match=f"there are none for models like .*task {model.task}"):
        require_tests(model, asked)


@pytest.mark.parametrize("precision", ["int8", "int4_b64"])
def test_convolutions_are_not_stored_as_integers(tiny_models: Models, precision: str) -> None:
    model = tiny_models["resnet"]
    settings = quick_settings(model.folder, calibration_length=None, precision=precision)
    with pytest.raises(InputError, match=r"12 linears of this model are convolutions \(resnet\."):
        examine(model, settings, DEVICE)


def test_floats_are_for_convolutions_and_all_precisions_for_matrices(tiny_models: Models) -> None:
    require_floats(tiny_models["resnet"].sites, ("float32", "float16"))
    require_floats(tiny_models["resnet"].sites, ("float32", *LAYOUTS))  # one for each linear
    require_floats(tiny_models["bert"].sites, tuple(LAYOUTS))
