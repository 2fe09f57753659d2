"""Values for the tests of a bundle, and the tests that ship: they pass where nothing changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle, read_bundle, write_manifest
from edgelr.core.errors import InputError
from edgelr.runtime.reference_tests import REFERENCE_TESTS, SUITES
from edgelr.runtime.reference_tests.values import columns_of, leads_of
from edgelr.runtime.reference_tests.write import ARRAYS, FACTS, TESTS, write_references
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.runtime_bundles import write_modality, write_source

every_test = pytest.mark.parametrize("modality", REFERENCE_TESTS.names())


def with_tests(folder: Path, modality: str) -> ExportBundle:
    """Write a bundle with its tests, compared with itself, and seal it."""
    bundle, source = write_modality(folder, modality), write_source(folder / "source", modality)
    bundle = ExportBundle(folder, replace(bundle.manifest, max_drop=0.01, gate_passed=True))
    write_manifest(folder, bundle.manifest)
    (folder / "tests").mkdir()
    write_references(bundle, bundle, source, folder / "tests")
    for name, file in {"conftest.py": "conftest.py", "test_files.py": "files.py"}.items():
        shutil.copyfile(SUITES / file, folder / "tests" / name)
    return read_bundle(folder)


def stored(bundle: ExportBundle) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(bundle.folder / "tests" / ARRAYS) as arrays:
        return dict(arrays), json.loads((bundle.folder / "tests" / FACTS).read_text())


def test_the_modalities_that_have_tests_are_known() -> None:
    names = ["decoder", "encoder_decoder", "image_encoder", "tensors", "text_encoder"]
    names.append("text_pair")
    assert REFERENCE_TESTS.names() == names
    assert all(test.suite.is_file() for _, test in REFERENCE_TESTS.items())


def test_bundles_pass_the_tests_that_are_written_for_them(tmp_path: Path) -> None:
    folders = [with_tests(tmp_path / name, name).folder for name in REFERENCE_TESTS.names()]
    for folder, found in run_bundle_tests(folders).items():
        assert len(found) >= 3, folder
        assert all(found.values()), (folder, found)


@every_test
def test_a_bundle_agrees_with_itself(modality: str, tmp_path: Path) -> None:
    bundle = with_tests(tmp_path / modality, modality)
    arrays, facts = stored(bundle)
    rises = facts["metric"] == "perplexity_ratio"
    assert facts["at_export"] == pytest.approx(1)
    assert facts["limit"] >= 1 if rises else facts["limit"] <= 1
    assert facts["tolerance"] <= facts["tolerance_elsewhere"] == 1e-2
    assert facts["scale"] > 0
    suite = REFERENCE_TESTS.get(modality).suite
    assert (bundle.folder / "tests" / TESTS).read_bytes() == suite.read_bytes()
    for name in ("losses", "answers"):
        if name in arrays:
            np.testing.assert_array_equal(arrays[name], arrays[f"original_{name}"])


def test_a_modality_without_tests_is_refused(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "speech")
    with pytest.raises(InputError, match="Unknown reference test 'speech'"):
        write_references(bundle, bundle, None, tmp_path)


def test_columns_are_spread_over_the_vocabulary() -> None:
    assert columns_of(5).tolist() == [0, 1, 2, 3, 4]
    found = columns_of(50_000)
    assert (found[0], found[-1], len(found)) == (0, 49_999, 2048)


def test_a_lead_is_that_of_the_likeliest_over_the_second() -> None:
    logits = np.array([[1.0, 4.0, 3.5], [2.0, 2.0, -9.0]])
    assert leads_of(logits).tolist() == [0.5, 0.0]
