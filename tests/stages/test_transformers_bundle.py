"""Bundles of models: one plan in the precision that ships, and a twin to compare with torch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgelr import pipeline
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.data.text import PROMPTS
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.stages.transformers.bundle import (
    FLOAT16_LIMIT,
    PARITY_LIMIT,
    QUANTIZED_LIMIT,
    compare_with_torch,
    write_bundle,
)
from edgelr.stages.transformers.factorize import make_factors
from tests.helpers.fault_injection import scaled_factor
from tests.helpers.planned_bundles import KINDS, NOTE, OPSET, PlannedBundles
from tests.helpers.run_exports import Recorder, make_place, quick_settings, session_cache

CONTEXT = 40

whole = pytest.mark.whole
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "float32" else whole) for kind in KINDS]
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def exports(
    tiny_encoder: LoadedModel, cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> PlannedBundles:
    return PlannedBundles(tiny_encoder, cache, tmp_path_factory.mktemp("exports"))


@every_kind
def test_a_manifest_describes_the_plan_its_device_and_its_gate(
    exports: PlannedBundles, kind: str
) -> None:
    made = exports[kind]
    subject, manifest = made.planned.subject, made.written.bundle.manifest
    assert (manifest.profile, manifest.precision) == (subject.device.id, subject.precision)
    assert manifest.max_drop == subject.max_drop
    assert manifest.gate_passed is None  # nothing was judged so far
    assert manifest.context_tokens == subject.context_tokens
    assert manifest.shape == subject.shape
    assert manifest.opset == OPSET < subject.device.max_opset
    assert made.written.notes == (NOTE,)


@every_kind
def test_what_cannot_be_compared_to_the_last_digits_has_a_twin_that_can(
    exports: PlannedBundles, kind: str
) -> None:
    made = exports[kind]
    twin, folder = made.written.twin, made.place.bundle
    assert made.written.bundle.folder == folder
    if kind == "float32":
        assert twin is None
        return
    assert twin is not None
    assert twin.folder.is_relative_to(made.place.scratch)
    assert twin.manifest.precision == "float32"
    nodes = onnx.load(twin.model_path, load_external_data=False).graph.node
    assert not [node for node in nodes if node.op_type == "MatMulNBits"]


@every_kind
def test_what_torch_answers_is_kept_beside_the_bundle_and_not_in_it(
    exports: PlannedBundles, kind: str
) -> None:
    place = exports[kind].place
    with np.load(place.answers) as answers:
        assert {f"output_{index}" for index in range(len(PROMPTS))} <= set(answers.files)
    assert not list(place.bundle.rglob(place.answers.name))


@every_kind
def test_a_bundle_answers_like_torch_and_a_twin_like_its_bundle(
    exports: PlannedBundles, kind: str
) -> None:
    found = compare_with_torch(exports[kind].written, exports[kind].place)
    assert found.passed
    assert found.max_abs_error < found.max_abs_error_limit == PARITY_LIMIT
    assert (found.twin_max_error is None) == (kind == "float32")
    limits = {"float32": None, "float16": FLOAT16_LIMIT, "int8": QUANTIZED_LIMIT}
    assert found.twin_limit == limits[kind]


def test_a_factor_that_is_scaled_is_noticed(exports: PlannedBundles, tmp_path: Path) -> None:
    made = exports["float32"]
    bundle = made.written.bundle
    faulty = replace(bundle, folder=shutil.copytree(bundle.folder, tmp_path / "faulty"))
    scaled_factor(faulty.folder)
    found = compare_with_torch(replace(made.written, bundle=faulty), made.place)
    assert not found.passed
    assert found.max_abs_error > PARITY_LIMIT


@whole
def test_a_bundle_that_differs_from_its_twin_fails(exports: PlannedBundles, tmp_path: Path) -> None:
    """Its twin answers like torch, and says nothing about the file that ships."""
    made = exports["float16"]
    bundle = made.written.bundle
    faulty = replace(bundle, folder=shutil.copytree(bundle.folder, tmp_path / "faulty"))
    for _ in range(20):  # by half
        scaled_factor(faulty.folder)
    found = compare_with_torch(replace(made.written, bundle=faulty), made.place)
    assert found.max_abs_error < PARITY_LIMIT
    assert found.twin_max_error is not None
    assert found.twin_max_error > FLOAT16_LIMIT
    assert not found.passed


def test_a_decoder_is_told_to_genai_as_it_was_planned(
    tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    run, place = Run(cache, Recorder()), make_place(tmp_path / "made")
    settings = quick_settings(
        tiny_decoder.folder, keep=0.7, recipe="svd-llm", context_tokens=CONTEXT
    )
    made = pipeline.plan(settings, load_profile("generic-cpu"), run)
    bundle = write_bundle(made, make_factors(made, run), place).bundle
    told = json.loads((bundle.folder / "genai_config.json").read_text())
    assert told["search"]["max_length"] == CONTEXT
    assert told["model"]["decoder"]["filename"] == bundle.manifest.model_file
