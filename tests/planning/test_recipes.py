"""Every recipe, from statistics to a graph in ONNX Runtime that answers like the torch model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgelr import pipeline
from edgelr.compress.compressed_model import installed
from edgelr.compress.decompose import in_forms
from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.device.storage import stored
from edgelr.graph.save import load_graph
from edgelr.model.loaded import LoadedModel
from edgelr.planning.recipes import RECIPES
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.bundle import write_bundle
from edgelr.stages.transformers.factorize import Factored, make_factors
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import (
    Recorder,
    batch,
    make_place,
    quick_settings,
    run_graph,
    run_torch,
    session_cache,
)

RANKS = 2  # a step that tiny matrices have

every_recipe = pytest.mark.parametrize("recipe", RECIPES.names())


@dataclass(frozen=True)
class Made:
    planned: Planned
    factored: Factored
    bundle: ExportBundle


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


# The graph of an encoder is fused after the rewrite: what could go wrong depends on the form.
ENCODER_RECIPES = ("edgelr", "svd-llm", "basis-sharing", "input-sharing", "tied-pair", "kronecker")
CASES = [("tiny_decoder", name) for name in RECIPES.names()]
CASES += [("tiny_encoder", name) for name in ENCODER_RECIPES]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def made(
    request: pytest.FixtureRequest, cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    kind, recipe = request.param
    model: LoadedModel = request.getfixturevalue(kind)
    settings = quick_settings(model.folder, recipe=recipe, keep=0.85)
    device = load_profile("generic-cpu")
    ranks = device.layout.rank_multiple.model_copy(update={"value": RANKS})
    layout = device.layout.model_copy(update={"rank_multiple": ranks})
    device = device.model_copy(update={"layout": layout})
    planned = pipeline.plan(settings, device, Run(cache, Recorder()))
    factored = make_factors(planned, Run(cache, Recorder()))
    place = make_place(tmp_path_factory.mktemp(recipe) / "made")
    bundle = write_bundle(planned, factored, place).bundle
    return Made(planned, factored, bundle)


def test_the_graph_of_every_recipe_equals_torch(made: Made) -> None:
    plan, model = made.planned.plan, made.planned.subject.model
    forms = {site.candidate.form for site in plan.sites}
    assert forms <= {"dense", *made.planned.subject.recipe.forms}
    assert forms != {"dense"}
    onnx.checker.check_model(str(made.bundle.model_path), full_check=True)
    with installed(model.module, in_forms(made.factored.factors, plan, RANKS)):
        for inputs in (batch(model, 1, 1), batch(model, 3, 7)):
            expected = run_torch(model, *inputs)
            found = run_graph(model, made.bundle.model_path, *inputs)
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_file_holds_what_the_plan_counts(made: Made) -> None:
    """What sites share is in the file once: it shrinks by what the plan says, to the byte."""
    plan = made.planned.plan
    groups = {group.name: group for group in made.planned.subject.groups}
    chosen = {site.group or site.name: site.candidate for site in plan.sites}
    planned = 4 * sum(
        stored(candidate.form, groups[name], candidate.rank).parameters
        for name, candidate in chosen.items()
    )
    saved = weights(made.planned.dense.bundle.model_path) - weights(made.bundle.model_path)
    assert saved == plan.dense_bytes - planned


def weights(path: Path) -> int:
    """Bytes of all float weights in a graph."""
    values = load_graph(path).graph.initializers.values()
    tensors = [value.const_value for value in values if value.const_value is not None]
    return sum(tensor.nbytes for tensor in tensors if tensor.dtype == ir.DataType.FLOAT)


@every_recipe
def test_every_recipe_is_described_with_its_axes(recipe: str) -> None:
    """docs/recipes.md tells of each what its axes are."""
    found = RECIPES.get(recipe)
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{recipe}` |")]
    cells = [cell.strip(" `") for cell in row.strip("|").split("|")]
    assert cells[2:5] == [found.grouping, found.method, found.allocator]
    assert all(form in cells[5] for form in found.forms)
    assert all(each in row for each in found.refine)
