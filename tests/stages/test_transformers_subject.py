"""Models as subjects: settings become precisions, groups and texts, and the original a graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.compress.spectra import SpectrumTable
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import LAYOUTS, AskedPrecision
from edgelr.device.profile import load_profile
from edgelr.graph.residency import read_residencies
from edgelr.model.loaded import LoadedModel
from edgelr.stages.subject import make_search
from edgelr.stages.transformers.cost_model import spectra, statistics
from edgelr.stages.transformers.dense import dense_export
from edgelr.stages.transformers.subject import (
    ModelSubject,
    examine,
    fixed_residency,
)
from tests.conftest import MakeModel, random_rows
from tests.helpers.run_exports import PIVOTS, Recorder, quick_settings, session_cache

Models = dict[str, LoadedModel]

every_pivot = pytest.mark.parametrize("name", PIVOTS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


def subject_of(model: LoadedModel, **changes: object) -> ModelSubject:
    settings = quick_settings(model.folder, **changes)
    return examine(model, settings, load_profile(settings.profile))


def table_of(subject: ModelSubject, cache: Cache) -> SpectrumTable:
    texts, run = [random_rows(subject.model, 4, 12)], Run(cache, Recorder())
    return spectra(subject, statistics(subject, texts, run), run, texts)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "asked", "values", "weights"),
    [
        ("generic-cpu", "float32", "float32", ["float32"]),
        ("generic-cpu", None, "float32", ["float32", *LAYOUTS]),
        ("jetson", "float32", "float32", ["float32"]),
        ("generic-cpu", "float16", "float16", ["float16"]),
        ("jetson", "int4", "float16", ["int4"]),
        ("generic-cpu", "int8", "float32", ["int8"]),
        ("raspberry-pi-5-8gb", "int2_b64", "float32", ["int2_b64"]),
        ("jetson", "auto", "float16", ["float16", *LAYOUTS.keys() - {"int2_b64"}]),
    ],
)
def test_integers_are_for_weights_and_the_device_multiplies_in_floats(
    tiny_encoder: LoadedModel,
    profile: str,
    asked: AskedPrecision | None,
    values: str,
    weights: list[str],
) -> None:
    found = subject_of(tiny_encoder, profile=profile, precision=asked)
    assert (found.precision, set(found.weights)) == (values, set(weights))
    assert found.weights[0] == weights[0]


def test_other_recipes_than_the_default_keep_the_precision_of_the_profile(
    tiny_encoder: LoadedModel,
) -> None:
    found = subject_of(tiny_encoder, recipe="spectral-surgery", profile="jetson", precision=None)
    assert found.weights == ("float16",)


def test_what_has_no_fast_kernel_is_refused(tiny_encoder: LoadedModel) -> None:
    with pytest.raises(InputError, match="no fast kernels on cuda at accuracy level"):
        subject_of(tiny_encoder, profile="jetson", precision="int2_b64")


def test_one_knob_cannot_choose_precisions(tiny_decoder: LoadedModel) -> None:
    with pytest.raises(InputError, match="'uniform' has one knob for all"):
        subject_of(tiny_decoder, precision="auto", recipe="svd-llm")
    assert subject_of(tiny_decoder, precision="int8", recipe="svd-llm").weights == ("int8",)


def test_linears_are_grouped_as_the_recipe_or_the_settings_say(tiny_decoder: LoadedModel) -> None:
    def sizes(**changes: str) -> list[int]:
        return [len(group.sites) for group in subject_of(tiny_decoder, **changes).groups]

    block = [3, 1, 2, 1]  # queries, keys and values; their output; gate and up; down
    assert sizes(recipe="svd-llm") == [1] * 14
    assert sorted(sizes(recipe="input-sharing")) == sorted(2 * block)
    assert sizes(recipe="svd-llm", grouping="input") == sizes(recipe="input-sharing")


def test_what_is_judged_on_has_a_key_of_its_own(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / f"{name}.txt").write_text(f"This is the {name} text. " * 20)
    one, other = str(tmp_path / "one.txt"), str(tmp_path / "other.txt")
    subject = subject_of(tiny_decoder, evaluation=one)
    assert subject.judged_key == subject_of(tiny_decoder, evaluation=one, keep=0.5).judged_key
    assert subject.judged_key != subject_of(tiny_decoder, evaluation=other).judged_key
    assert one in subject.judged_on
    written = subject.write_judged(tmp_path).read_text(encoding="utf-8")
    assert written == subject.texts.evaluation  # and nothing that plans were chosen by


# --- the table of embeddings ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("llama", "tied_table"), ("bert", "table")])
def test_the_table_is_planned_where_its_precision_is_chosen(
    make_model: MakeModel, name: str, kind: str
) -> None:
    model = make_model(name, hidden_size=96)  # rows of whole blocks
    floats, whole = (subject_of(model, precision=each) for each in ("float32", "int8"))
    table = model.table
    assert table is not None
    assert floats.table is None
    assert floats.planned_groups == floats.groups == whole.groups
    assert floats.multiplied == whole.sites == model.sites
    assert whole.planned_groups == [*whole.groups, SiteGroup(table.name, (table,), kind)]
    assert whole.planned_parameters == floats.planned_parameters + table.parameters
    tied = (table,) if kind == "tied_table" else ()  # others are only gathered from
    assert whole.multiplied == (*model.sites, *tied)


# --- the original as a graph ---------------------------------------------------------------------


@every_pivot
def test_an_export_is_made_once_and_describes_its_model(
    tiny_models: Models, cache: Cache, name: str
) -> None:
    model, recorder = tiny_models[name], Recorder()
    first, again = dense_export(model, Run(cache)), dense_export(model, Run(cache, recorder))
    assert again == first
    assert recorder.stages == []
    manifest = read_bundle(first.bundle.folder).manifest
    assert (manifest.task, manifest.modality, manifest.precision) == (
        model.task,
        model.modality,
        "float32",
    )
    assert manifest.digest == model.digest
    assert (manifest.pooling, manifest.context_tokens) == (model.pooling, model.longest_text)
    assert manifest.shape == model.dimensions
    assert manifest.residency == read_residencies(first.bundle.model_path, "cpu")
    assert (manifest.profile, manifest.max_drop, manifest.gate_passed) == (None, None, None)
    for file in ("config.json", "tokenizer.json"):
        assert (first.bundle.folder / file).is_file()


@every_pivot
def test_a_traced_graph_is_kept_beside_the_export_where_that_is_fused(
    tiny_models: Models, cache: Cache, name: str
) -> None:
    dense = dense_export(tiny_models[name], Run(cache))
    graphs = [path for path in dense.folder.rglob("*.onnx") if path != dense.bundle.model_path]
    fused = tiny_models[name].exporter.fuse is not None
    assert graphs == ([dense.traced] if fused else [])
    assert (dense.traced == dense.bundle.model_path) == (not fused)


@every_pivot
@pytest.mark.parametrize("profile", ["generic-cpu", "jetson"])
def test_memory_is_that_of_the_planned_weights_and_of_the_others(
    tiny_models: Models, cache: Cache, name: str, profile: str
) -> None:
    """A plan that leaves everything dense takes what the dense export takes."""
    model = tiny_models[name]
    dense = dense_export(model, Run(cache))
    subject = subject_of(model, profile=profile, precision="float32")
    search = make_search(subject, table_of(subject, cache))
    plan, fixed_bytes = search.plan(search.dense_bytes), fixed_residency(subject, dense)
    whole = read_residencies(dense.bundle.model_path, subject.device.provider)
    assert plan.kept == 1
    assert fixed_bytes + plan.resident_bytes == whole.bytes
    half = subject_of(model, profile=profile, precision="float16")
    assert fixed_residency(half, dense) == fixed_bytes // 2


@pytest.mark.whole
@pytest.mark.parametrize(("name", "copies"), [("llama", 2), ("bert", 1)])
def test_memory_of_a_planned_table_is_counted_by_its_plan(
    make_model: MakeModel, tmp_path: Path, name: str, copies: int
) -> None:
    """A CPU has two of a table that is gathered from and multiplied with as well."""
    model = make_model(name, hidden_size=96)
    dense, table = dense_export(model, Run(Cache(tmp_path))), model.table
    assert table is not None
    floats, whole = (subject_of(model, precision=each) for each in ("float32", "int8"))
    left = fixed_residency(floats, dense) - fixed_residency(whole, dense)
    assert left == copies * 4 * table.parameters
