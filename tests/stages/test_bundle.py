"""A bundle is judged and timed beside its original, by files that this machine can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.errors import ProviderError
from edgelr.core.results import Validation
from edgelr.core.run import Run
from edgelr.data.text import EvaluationSize
from edgelr.model.loaded import LoadedModel
from edgelr.runtime import calls
from edgelr.runtime.requests import Execution
from edgelr.stages import bundle as stage
from edgelr.stages.bundle import measure_both, require_provider, validate
from tests.helpers.planned_bundles import PlannedBundle, PlannedBundles
from tests.helpers.run_exports import Recorder, session_cache

FEW = 24  # sentences
NOTES = {
    "float32": [],
    "float16": ["The bundle ships in float16. Parity and accuracy are those of the same plan in"],
    "int8": ["MatMulNBits multiplies in eight bits (accuracy level 4). Parity is that of the same"],
}

whole = pytest.mark.whole
without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has the CUDA provider",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def bundles(
    tiny_encoder: LoadedModel, cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlannedBundles]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "EVALUATION", EvaluationSize(sentences=FEW))
        yield PlannedBundles(tiny_encoder, cache, tmp_path_factory.mktemp("bundles"))


def judged(made: PlannedBundle, cache: Cache, listener: Recorder | None = None) -> Validation:
    run = Run(cache, listener or Recorder())
    return validate(made.source, made.planned, made.written, made.place, run)


def asking_for(made: PlannedBundle, provider: str) -> PlannedBundle:
    subject = made.planned.subject
    subject = replace(subject, settings=replace(subject.settings, provider=provider))
    return replace(made, planned=replace(made.planned, subject=subject))


# --- accuracy ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["float16", *(pytest.param(each, marks=whole) for each in ("float32", "int8"))]
)
def test_a_validation_says_which_file_its_figures_are_of(
    bundles: PlannedBundles, cache: Cache, kind: str
) -> None:
    """On a CPU they are in float32, whatever ships."""
    made, listener = bundles[kind], Recorder()
    subject = made.planned.subject
    found = judged(made, cache, listener)
    assert (found.precision, found.provider) == ("float32", "CPUExecutionProvider")
    assert found.text == subject.judged_on
    assert len(found.notes) == len(NOTES[kind])
    assert all(map(str.startswith, found.notes, NOTES[kind]))
    assert found.parity is not None
    assert found.parity.passed
    metrics = {metric.name: metric for metric in found.metrics}
    assert metrics["mean_cosine"].samples == FEW
    assert metrics["mean_cosine"].value < 0.99999  # it is compressed
    assert found.gate is not None
    assert (found.gate.metric, found.gate.limit) == ("mean_cosine", 1 - subject.max_drop)
    assert "parity" in listener.stages


@whole
def test_what_ships_to_a_gpu_is_judged_on_a_gpu(
    bundles: PlannedBundles, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a machine without one can show it: the CPU answers in its place."""
    accuracy, seen = calls.accuracy, []

    def answer(
        dense: ExportBundle, bundle: ExportBundle, text: Path, execution: Execution, **rest: Any
    ) -> Any:
        seen.append((bundle.manifest.precision, execution.provider))
        return accuracy(dense, bundle, text, **rest)

    monkeypatch.setattr(calls, "accuracy", answer)
    found = judged(bundles["float16"], cache)
    assert seen == [("float16", "cuda")]
    assert (found.provider, found.precision) == ("CUDAExecutionProvider", "float16")
    (note,) = found.notes
    assert "Accuracy was measured on the file that ships, on this machine's GPU." in note
    assert "with which the float16 file was compared there" in note


# --- latency and memory --------------------------------------------------------------------------


@whole
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_both_are_timed_at_the_same_sizes_by_files_of_one_precision(
    bundles: PlannedBundles, cache: Cache, kind: str
) -> None:
    made = bundles[kind]
    original = made.planned.dense.bundle
    found, dense = measure_both(made.source, made.planned, made.written, Run(cache, Recorder()))
    timed = (found.dense, found.bundle)
    assert [each.precision for each in timed] == ["float32", "float32"]
    assert [each.provider for each in timed] == ["CPUExecutionProvider"] * 2
    keys = [[phase.key for phase in each.phases] for each in timed]
    context = made.planned.subject.context_tokens
    assert keys[0] == keys[1] == list(found.ratios)
    assert all(phase.tokens <= context for phase in found.bundle.phases)
    assert dense.manifest.precision == kind  # whose file the bundle's is compared with
    assert (dense == original) == (kind == "float32")
    assert dense.manifest.digest == original.manifest.digest


# --- providers -----------------------------------------------------------------------------------


@whole
@without_cuda
def test_a_provider_that_is_asked_for_has_to_be_there(
    bundles: PlannedBundles, cache: Cache
) -> None:
    """Where only the device has it, figures of the CPU are taken instead."""
    made = asking_for(bundles["float16"], "cuda")
    subject, run = made.planned.subject, Run(cache, Recorder())
    with pytest.raises(ProviderError, match="Asked for CUDAExecutionProvider"):
        require_provider(subject.settings, made.planned.dense)
    with pytest.raises(ProviderError, match="Asked for CUDAExecutionProvider"):
        judged(made, cache)
    with pytest.raises(ProviderError, match="asked for with --provider, and is not used"):
        measure_both(made.source, made.planned, made.written, run)


def test_the_cpu_runs_every_original(bundles: PlannedBundles) -> None:
    made = asking_for(bundles["float16"], "cpu")
    require_provider(made.planned.subject.settings, made.planned.dense)
