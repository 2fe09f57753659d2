"""The tests of a bundle: they pass where it is whole, and fail on each of twelve faults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from edgelr import pipeline
from edgelr.cli import app
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.pytest_plugin import assert_no_regression
from edgelr.runtime.reference_tests import SUITES
from edgelr.runtime.reference_tests.write import ARRAYS, FACTS, TESTS
from edgelr.stages.bundle_tests import write_tests
from tests.conftest import SENTENCES, write_tiny
from tests.helpers.bundles import Outcomes, run_bundle_tests
from tests.helpers.fault_injection import (
    FAULTS,
    Fault,
    nothing,
    random_head,
    swapped_sites,
    truncated_sidecar,
    wrong_zero_point,
)
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import Recorder, quick_settings, session_cache
from tests.helpers.runtime_bundles import write_modality, write_source

whole = pytest.mark.whole

CHECKSUMS = "test_the_files_are_those_that_were_exported"
PLANTED = [
    *((kind, fault) for kind in ("decoder", "encoder") for fault in FAULTS),
    ("decoder", random_head),
    ("quantized", wrong_zero_point),
]
KINDS = ("decoder", "encoder", "quantized")
USERS_TEST = """
import sys
from edgelr.pytest_plugin import assert_no_regression

def test_against_what_is_stored(edgelr_bundle):
    assert_no_regression(edgelr_bundle)

def test_against_another_bundle(edgelr_bundle):
    found = assert_no_regression(edgelr_bundle, against={against!r}, max_drop=0.05)
    assert found.gate.metric == "perplexity"
    assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
Bundles = dict[str, Path]


@pytest.mark.parametrize("modality", ["text_encoder", "tensors"])
def test_tests_are_written_beside_what_they_compare_with(modality: str, tmp_path: Path) -> None:
    """A graph's inputs are in its bundle; others are judged on a text that is given."""
    original, bundle = (write_modality(tmp_path / name, modality) for name in ("old", "new"))
    bundle = ExportBundle(bundle.folder, replace(bundle.manifest, max_drop=0.01))
    listener, before = Recorder(), set(bundle.folder.rglob("*"))
    text = write_source(tmp_path / "source", modality)
    write_tests(original, bundle, text, Run(Cache(tmp_path / "cache"), listener))
    written = {path.name: path for path in set(bundle.folder.rglob("*")) - before if path.is_file()}
    assert written.keys() == {"conftest.py", "test_files.py", TESTS, ARRAYS, FACTS}
    assert {path.parent for path in written.values()} == {bundle.folder / "tests"}
    for name, suite in (("conftest.py", "conftest.py"), ("test_files.py", "files.py")):
        assert written[name].read_bytes() == (SUITES / suite).read_bytes()
    assert json.loads(written[FACTS].read_text())["at_export"] == pytest.approx(1)
    assert listener.stages == ["tests"]


# --- they pass where nothing is wrong, and fail where something is --------------------------------


def write_biased(folder: Path, name: str) -> Path:
    """Write a tiny model whose biases are not zero: one that is dropped has to be missed."""
    write_tiny(folder, name)
    path, generator = folder / "model.safetensors", np.random.default_rng(0)
    weights = load_file(path)
    for key, values in weights.items():
        if key.endswith("bias"):
            weights[key] = 0.1 * generator.standard_normal(values.shape).astype(values.dtype)
    save_file(weights, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    root, cache = tmp_path_factory.mktemp("regression"), session_cache(tmp_path_factory)
    decoder, encoder = (write_biased(root / f"model-{name}", name) for name in ("qwen2", "bert"))
    wanted = {"decoder": (decoder, {}), "encoder": (encoder, {}),
              "quantized": (decoder, {"precision": "int8", "keep": 0.45})}  # fmt: skip
    found = {"original decoder": decoder}
    for name, (model, changes) in wanted.items():
        found[name] = root / name
        settings = quick_settings(model, **{"keep": 0.6, "with_tests": True, **changes})
        device = load_profile("generic-cpu")
        pipeline.export(settings, device, found[name], Run(cache, Recorder()))
    return found


@pytest.fixture(scope="module")
def planted(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Copy a bundle, and plant a fault into the copy."""
    root = tmp_path_factory.mktemp("planted")

    def plant(kind: str, fault: Fault) -> Path:
        folder = root / f"{kind}-{fault.__name__}"
        if not folder.exists():
            shutil.copytree(bundles[kind], folder, ignore=shutil.ignore_patterns("__pycache__"))
            fault(folder)
        return folder

    return plant


@pytest.fixture(scope="module")
def outcomes(bundles: Bundles, planted: Callable[..., Path]) -> Outcomes:
    """Run the tests of every bundle, whole and faulty, in one process."""
    faulty = [planted(kind, fault) for kind, fault in PLANTED]
    again = [planted(kind, nothing) for kind in KINDS]
    return run_bundle_tests([*(bundles[kind] for kind in KINDS), *again, *faulty])


@whole
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_bundle_passes_its_tests(
    kind: str, bundles: Bundles, planted: Callable[..., Path], outcomes: Outcomes
) -> None:
    """Again as a copy in another folder, with its checksums written again."""
    for folder in (bundles[kind], planted(kind, nothing)):
        found = outcomes[str(folder)]
        assert len(found) >= 7
        assert all(found.values()), found


@whole
@pytest.mark.parametrize(
    ("kind", "fault"), PLANTED, ids=[f"{fault.__name__}-{kind}" for kind, fault in PLANTED]
)
def test_a_fault_is_found_by_its_answers(
    kind: str, fault: Fault, planted: Callable[..., Path], outcomes: Outcomes
) -> None:
    """And not by the checksums, which say that all is well; but for a file that is cut."""
    found = outcomes[str(planted(kind, fault))]
    assert found[CHECKSUMS] == (fault is not truncated_sidecar)
    others = {name: passed for name, passed in found.items() if name != CHECKSUMS}
    assert not all(others.values())


@whole
@pytest.mark.slow
def test_a_whole_bundle_passes_twenty_times_of_twenty(bundles: Bundles) -> None:
    for _ in range(20):
        outcomes = run_bundle_tests([bundles[kind] for kind in KINDS])
        assert all(passed for found in outcomes.values() for passed in found.values())


@whole
def test_the_tests_are_listed_in_the_manifest(bundles: Bundles) -> None:
    files = {file.path for file in read_bundle(bundles["decoder"], verify=True).manifest.files}
    names = ("conftest.py", "test_files.py", "test_accuracy.py", "references.npz", "expected.json")
    assert {f"tests/{name}" for name in names} <= files


# --- in tests of one's own -----------------------------------------------------------------------


@whole
@pytest.mark.parametrize(("fault", "failed"), [(nothing, 0), (swapped_sites, 2)])
def test_a_users_test_finds_what_the_bundles_own_find(
    fault: Fault, failed: int, bundles: Bundles, planted: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "test_mine.py").write_text(USERS_TEST.format(against=str(bundles["decoder"])))
    options = ["-q", "-p", "edgelr.pytest_plugin", "--edgelr-bundle", planted("decoder", fault)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, options), "test_mine.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = f"{failed} failed" if failed else "2 passed"
    assert told in done.stdout, done.stdout + done.stderr
    assert ("Accuracy gate FAILED: perplexity" in done.stdout) == bool(failed)


def test_a_bundle_without_tests_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--with-tests"):
        assert_no_regression(tmp_path)
    with pytest.raises(InputError, match="against as well"):
        assert_no_regression(tmp_path, max_drop=0.1)


@whole
@pytest.mark.parametrize(("fault", "code"), [(nothing, 0), (swapped_sites, 3)])
def test_validation_against_the_model_ends_with_3_where_the_gate_fails(
    fault: Fault,
    code: int,
    bundles: Bundles,
    planted: Callable[..., Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGELR_CACHE", str(session_cache(tmp_path_factory).root))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(SENTENCES * 40))
    words = ["validate", planted("decoder", fault), "--against", bundles["original decoder"],
             "--data", text, "--max-drop", "0.1", "--json"]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code, done.output
    gate = json.loads(done.stdout)["gate"]
    assert (gate["worst"] <= gate["limit"]) == (code == 0)
