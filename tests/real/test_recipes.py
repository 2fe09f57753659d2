"""MiniLM through the command line, and every recipe and form on real models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgelr import pipeline
from edgelr.compress.decompose import decompose_group
from edgelr.compress.methods import METHODS
from edgelr.compress.shared_basis import fit_coefficients, group_loss, refine_basis
from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.core.vocabulary import LAYOUTS
from edgelr.device.profile import load_profile
from edgelr.graph.save import load_graph
from edgelr.model.sites import weight_of
from edgelr.planning.recipes import RECIPES
from edgelr.runtime import calls
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.bundle import PARITY_LIMIT, write_bundle
from edgelr.stages.transformers.factorize import make_factors
from tests.helpers.run_exports import Recorder, make_place
from tests.real.test_decoder import edgelr, load_snippet, model_path, report_of

pytestmark = pytest.mark.real

TOKENS = {"minilm": 4096, "smollm2": 2048}  # that calibrate
FORMS = {  # a recipe that makes the form, and a share that it can reach
    "edgelr": 0.9,  # as through the command line: stages of that run are found again
    "basis-sharing": 0.8,
    "tied-pair": 0.8,
    "kronecker": 0.8,
}


@dataclass(frozen=True)
class Made:
    planned: Planned
    bundle: ExportBundle
    exact: ExportBundle  # what computes in float32: the bundle, or its twin
    answers: Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Path:
    out = tmp_path_factory.mktemp("minilm") / "bundle"
    options = ["--profile", "generic-cpu", "--keep", str(FORMS["edgelr"]), "--out", str(out)]
    options += ["--calibration-tokens", str(TOKENS["minilm"]), "--precision", "fp32"]
    options += ["--no-rivals"]
    edgelr(cache.root, "export", model_path("minilm"), *options)
    return out


def make(
    name: str, recipe: str, keep: float, cache: Cache, folder: Path, precision: str | None = None
) -> Made:
    settings = make_settings(
        model=model_path(name), profile="generic-cpu", recipe=recipe, keep=keep,
        precision=precision or "float32", calibration_tokens=TOKENS[name],
    )  # fmt: skip
    device = load_profile("generic-cpu")
    planned = pipeline.plan(settings, device, Run(cache, Recorder()))
    factored = make_factors(planned, Run(cache, Recorder()))
    place = make_place(folder)
    written = write_bundle(planned, factored, place)
    bundle, twin = written.bundle, written.twin
    return Made(planned, bundle, twin or bundle, place.scratch / "answers.npz")


def require_parity(made: Made) -> None:
    found = calls.parity(made.exact, made.answers, limit=PARITY_LIMIT)
    assert found.passed, found


def require_shared_once(made: Made) -> None:
    """The first factor of a group is one initializer, whoever reads it."""
    names = list(load_graph(made.bundle.model_path).graph.initializers)
    for site in made.planned.plan.sites:
        form = site.candidate.form
        if site.group is not None and form != "dense":
            part = {"low_rank": "down", "pivoted": "first", "tied": "weight"}[form]
            assert names.count(f"{site.group}.{part}") == 1
            assert f"{site.name}.{part}" not in names


def test_minilm_embeds_like_the_original(minilm: Path) -> None:
    validation = report_of(minilm).validation
    assert validation is not None
    found = {metric.name: metric.value for metric in validation.metrics}
    assert found["mean_cosine"] >= 0.97
    assert found["spearman"] >= 0.97


def test_minilm_has_fused_attention(minilm: Path) -> None:
    model = onnx.load(minilm / "onnx" / "model.onnx", load_external_data=False)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MultiHeadAttention") == 6
    assert operators.count("SkipLayerNormalization") == 12


def test_minilm_runs_with_onnxruntime_alone(minilm: Path, tmp_path: Path) -> None:
    embed = load_snippet("embed.py", tmp_path)["embed"]
    texts = ["A dog runs.", "A puppy is running.", "Interest rates rose again."]
    first, second, other = np.asarray(embed(minilm, texts))  # type: ignore[operator]
    assert first @ second > first @ other + 0.3


def test_validate_and_measure_work_on_a_finished_bundle(minilm: Path, cache: Cache) -> None:
    edgelr(cache.root, "validate", str(minilm), "--against", model_path("minilm"))
    edgelr(cache.root, "measure", str(minilm), "--repetitions", "3")
    manifest = json.loads((minilm / "edgelr" / "manifest.json").read_text())
    assert manifest["gate_passed"] is True


@pytest.mark.parametrize("recipe", FORMS)
def test_minilm_in_every_form_answers_like_torch(recipe: str, cache: Cache, tmp_path: Path) -> None:
    made = make("minilm", recipe, FORMS[recipe], cache, tmp_path)
    forms = {site.candidate.form for site in made.planned.plan.sites}
    assert forms - {"dense"}
    require_parity(made)
    require_shared_once(made)


@pytest.mark.parametrize("name", ["minilm", pytest.param("smollm2", marks=pytest.mark.slow)])
def test_weights_in_whole_numbers_answer_like_torch(
    name: str, cache: Cache, tmp_path: Path
) -> None:
    made = make(name, "edgelr", 0.2, cache, tmp_path, precision="auto")
    require_parity(made)
    assert made.exact != made.bundle
    stored = {site.candidate.precision for site in made.planned.plan.sites}
    assert stored <= {*LAYOUTS}
    assert made.bundle.weight_bytes < 0.25 * made.planned.dense.bundle.weight_bytes


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES.names())
@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_every_recipe_answers_like_torch(
    name: str, recipe: str, cache: Cache, tmp_path: Path
) -> None:
    made = make(name, recipe, 0.85, cache, tmp_path)
    assert {site.candidate.form for site in made.planned.plan.sites} != {"dense"}
    require_parity(made)
    require_shared_once(made)


@pytest.fixture(scope="module")
def errors(cache: Cache) -> torch.Tensor:
    """Of neighbouring blocks of a real model, at the ranks of 60 % of the parameters.

    Those of stacked coefficients, of fitted ones, and of bases and coefficients solved in turns.
    """
    settings = make_settings(
        model=model_path("smollm2"), profile="generic-cpu", recipe="basis-sharing", keep=0.6,
        calibration_tokens=8192,
    )  # fmt: skip
    device = load_profile("generic-cpu")
    made = pipeline.plan(settings, device, Run(cache, Recorder()))
    model, method = made.subject.model, METHODS.get("svd_llm")
    ranks = {site.group: site.candidate.rank for site in made.plan.sites}
    errors = torch.zeros(3)
    for group in [each for each in made.subject.groups if each.kind == "blocks"][::5]:
        weights = [weight_of(model, site.name).double() for site in group.sites]
        given = [made.costs.statistics.of(site) for site in group.sites]
        metrics = [method.metric(each) for each in given]
        stacked = decompose_group(group, weights, given, method, "stacked")
        fitted = fit_coefficients(stacked, weights, metrics).truncate(ranks[group.name])  # type: ignore[arg-type]
        turns = refine_basis(fitted, weights, metrics)
        plain = stacked.truncate(ranks[group.name])  # type: ignore[union-attr]
        losses = [group_loss(each, weights, metrics) for each in (plain, fitted, turns)]  # type: ignore[arg-type]
        errors += torch.tensor(losses)
    return errors


@pytest.mark.slow
def test_solving_bases_and_coefficients_in_turns_lowers_the_error(errors: torch.Tensor) -> None:
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.slow
@pytest.mark.xfail(reason="8 % on SmolLM2, whose neighbours have little in common", strict=True)
def test_solving_bases_and_coefficients_in_turns_lowers_the_error_by_a_fifth(
    errors: torch.Tensor,
) -> None:
    assert errors[2] <= 0.8 * errors[0]
