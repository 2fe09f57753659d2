"""A finished bundle is judged again: on what, against which original, and by which limit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import save

from edgelr.commands.validate import validate_again
from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.results import Validation
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.data.text import DEFAULT_TEXT
from edgelr.stages.source import open_source
from tests.helpers.run_exports import Recorder
from tests.helpers.runtime_bundles import write_modality, write_source
from tests.helpers.runtime_graphs import tensors_model


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(Cache(tmp_path / "cache"), Recorder())


def judged(
    run: Run, folder: Path, data: Path | None, limits: tuple[float | None, float | None]
) -> Validation:
    """Judge a bundle of other weights by the limit in its manifest, and the one that is asked."""
    original = write_modality(folder / "original", "text_encoder")
    bundle = write_modality(folder / "bundle", "text_encoder", seed=1)
    limit, max_drop = limits
    known = ExportBundle(bundle.folder, replace(bundle.manifest, max_drop=limit))
    return validate_again(known, str(original.folder), data, max_drop, "cpu", run)


@pytest.mark.parametrize(("limits", "least"), [((0.25, None), 0.75), ((0.25, 0.0), 1.0)])
def test_the_limit_is_that_of_the_bundle_unless_another_is_asked_for(
    run: Run, tmp_path: Path, limits: tuple[float | None, float | None], least: float
) -> None:
    data = write_source(tmp_path / "data", "text_encoder")
    found = judged(run, tmp_path, data, limits)
    assert found.gate is not None
    assert (found.gate.metric, found.gate.limit) == ("mean_cosine", least)
    assert found.gate.value == found.metrics[0].value
    assert not found.passed
    assert found.text == str(data)


def test_without_a_limit_figures_are_told_and_nothing_is_failed(run: Run, tmp_path: Path) -> None:
    found = judged(run, tmp_path, None, (None, None))
    assert found.gate is None
    assert found.passed
    assert found.metrics[0].value < 0.9
    assert (found.text, found.provider, found.precision) == (DEFAULT_TEXT, "cpu", "float32")


@pytest.fixture
def traced(run: Run, tmp_path: Path) -> ExportBundle:
    """A bundle that names ``source.onnx`` as its source, and computes the same."""
    source = tmp_path / "source.onnx"
    save(tensors_model(), source)
    settings = make_settings(model=str(source))
    digest = open_source(settings).dense_bundle(settings, run).manifest.digest
    bundle = write_modality(tmp_path / "bundle", "tensors")
    manifest = replace(bundle.manifest, source=str(source), digest=digest, max_drop=1e-3)
    return ExportBundle(bundle.folder, manifest)


def test_without_another_original_a_bundle_is_compared_with_its_source(
    traced: ExportBundle, run: Run
) -> None:
    found = validate_again(traced, None, None, None, "cpu", run)
    assert found.gate is not None
    assert found.passed
    assert found.text == "samples of the bundle"


def test_a_source_that_has_changed_is_refused_until_the_original_is_named(
    traced: ExportBundle, run: Run, tmp_path: Path
) -> None:
    original = shutil.copy(traced.manifest.source, tmp_path / "original.onnx")
    save(tensors_model(seed=1), traced.manifest.source)
    with pytest.raises(InputError, match=r"source\.onnx has changed since the bundle was made"):
        validate_again(traced, None, None, None, "cpu", run)
    assert validate_again(traced, str(original), None, None, "cpu", run).passed
    assert not validate_again(traced, traced.manifest.source, None, None, "cpu", run).passed
