"""Functions in a fresh process: they find there what they find here."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.data.text import EvaluationSize
from edgelr.runtime import calls, sampling, validate
from edgelr.runtime.requests import Execution, TextRequest
from edgelr.runtime.worker_client import Worker
from tests.helpers.paths import ROOT
from tests.helpers.runtime_bundles import reference_answers, write_modality, write_source

ONE_THREAD = Execution(threads=1)


@pytest.fixture
def decoder(tmp_path: Path) -> ExportBundle:
    return write_modality(tmp_path / "decoder", "decoder")


def function(name: str) -> Any:
    return getattr(import_module(f"edgelr.runtime.{calls.CALLS[name].module}"), name)


@pytest.mark.parametrize("name", calls.CALLS)
def test_every_call_names_a_function_whose_arguments_are_annotated(name: str) -> None:
    kinds = get_type_hints(function(name))
    assert set(inspect.signature(function(name)).parameters) < set(kinds)
    assert callable(getattr(calls, name))


def test_a_name_that_is_no_call_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'acuracy'"):
        _ = calls.acuracy  # type: ignore[attr-defined]


def test_a_child_finds_the_same_accuracy(decoder: ExportBundle, tmp_path: Path) -> None:
    other = write_modality(tmp_path / "other", "decoder", seed=1)
    text, size = write_source(tmp_path, "decoder"), EvaluationSize(2, 16)
    told: list[tuple[str, int, int]] = []
    found = calls.accuracy(
        decoder, other, text, ONE_THREAD, size, progress=lambda *call: told.append(call)
    )
    assert found == validate.accuracy(decoder, other, text, ONE_THREAD, size)
    assert told[0] == ("evaluate", 1, 2)
    assert told[-1] == ("generate", 4, 4)


def test_a_child_finds_the_same_parity(decoder: ExportBundle, tmp_path: Path) -> None:
    other = write_modality(tmp_path / "other", "decoder", seed=1)
    path = tmp_path / "answers.npz"
    np.savez(path, **reference_answers("decoder"))
    assert calls.parity(decoder, path) == validate.parity(decoder, path)
    apart = validate.twin_error(other, decoder, path)
    assert calls.twin_error(other, decoder, path) == apart > 0


def test_a_child_samples_the_same_rows(decoder: ExportBundle) -> None:
    request = TextRequest(64, 16, 4, seed=3, prefix=(1,))
    rows = calls.sample_tokens(decoder, request)
    assert (rows.dtype, rows.shape) == (np.int64, (4, 16))
    np.testing.assert_array_equal(rows, sampling.sample_tokens(decoder, request))


def test_a_child_profiles_and_leaves_nothing_behind(decoder: ExportBundle, tmp_path: Path) -> None:
    found = {each.operator: each for each in calls.operators(decoder, 5, ONE_THREAD, runs=3)}
    assert found["MatMul"].nodes == 1
    assert {each.provider for each in found.values()} == {"CPUExecutionProvider"}
    assert all(each.milliseconds >= 0 for each in found.values())
    assert list(tmp_path.glob("**/nodes*")) == []


def test_one_worker_can_be_called_again_and_its_errors_keep_their_class(
    decoder: ExportBundle, tmp_path: Path
) -> None:
    with Worker() as worker:
        for _ in range(2):
            with pytest.raises(InputError, match="Cannot read the reference answers"):
                calls.call_in(worker, "parity", decoder, tmp_path / "none.npz")
        assert worker.memory().resident_bytes > 1 << 20


def test_the_parent_side_loads_no_heavy_library() -> None:
    code = (
        "import sys, edgelr.runtime.calls, edgelr.runtime.measure, edgelr.core.bundle\n"
        "import edgelr.runtime.memory_cap, edgelr.runtime.runners\n"
        "assert not {'onnxruntime', 'torch', 'transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
