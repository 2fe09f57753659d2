"""What a report says of a model: a prediction for each graph, what calibrated, and its hashes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgelr import pipeline
from edgelr.core.bundle import ExportBundle
from edgelr.core.run import Run
from edgelr.device.latency import LatencyModel, PhaseSize, device_runs
from edgelr.device.profile import load_profile
from edgelr.graph.workload import read_workload
from edgelr.model.loaded import LoadedModel
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.report import (
    TOLD_PROMPTS,
    calibration_notes,
    origin,
    predicted_latency,
)
from edgelr.stages.transformers.subject import ModelSubject, examine
from tests.conftest import with_prompts
from tests.helpers.run_exports import (
    MATCH_PIVOT,
    PAIR_PIVOT,
    Recorder,
    quick_settings,
    session_cache,
)
from tests.helpers.runtime_bundles import write_modality

Models = dict[str, LoadedModel]
BOARD = "raspberry-pi-5-8gb"


def subject_of(model: LoadedModel, profile: str = BOARD) -> ModelSubject:
    settings = quick_settings(model.folder, profile=profile, precision="float32")
    return examine(model, settings, load_profile(profile))


# --- predictions ---------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> ExportBundle:
    return write_modality(tmp_path / "pair", "encoder_decoder")


def test_each_graph_of_a_pair_is_predicted_at_its_own_runs(
    tiny_models: Models, pair: ExportBundle
) -> None:
    """The encoder reads the source without any cache; the decoder writes one token at a time."""
    subject = subject_of(tiny_models[PAIR_PIVOT])
    runs = device_runs(subject.device, subject.shape, subject.context_tokens)
    found = predicted_latency(subject, pair, pair, runs, 77)
    assert found is not None
    assert found.resident_bytes == 77
    forward, decode = found.phases
    assert forward.key == f"forward {runs[0].tokens}"
    assert decode.key == f"decode {subject.context_tokens}"
    reader = replace(subject.shape, kv_heads=0, source_tokens=0)
    assert pair.encoder_path is not None
    for phase, shape, path, run in (
        (forward, reader, pair.encoder_path, runs[0]),
        (decode, subject.shape, pair.model_path, runs[1]),
    ):
        clock = LatencyModel(subject.device, shape, subject.precision)
        expected = clock.milliseconds(read_workload(path), run)
        assert (phase.dense_ms, phase.bundle_ms) == (expected, expected)


def test_one_graph_is_predicted_for_the_original_and_the_bundle(
    tiny_models: Models, tmp_path: Path
) -> None:
    subject = subject_of(tiny_models["llama"])
    large, small = (write_modality(tmp_path / name, name) for name in ("decoder", "text_encoder"))
    found = predicted_latency(subject, large, small, [PhaseSize(1, 1, 9), PhaseSize(1, 8, 8)], 5)
    assert found is not None
    assert [phase.key for phase in found.phases] == ["decode 9", "prefill 8"]
    assert all(phase.bundle_ms < phase.dense_ms for phase in found.phases)


@pytest.mark.parametrize("name", [PAIR_PIVOT, "llama"])
def test_without_rates_nothing_is_predicted(
    tiny_models: Models, pair: ExportBundle, name: str
) -> None:
    subject = subject_of(tiny_models[name], "generic-cpu")
    assert predicted_latency(subject, pair, pair, [PhaseSize(1, 8, 8)], 5) is None


# --- what calibrated -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    settings = quick_settings(tiny_encoder.folder, keep=0.6)
    run = Run(session_cache(tmp_path_factory), Recorder())
    return pipeline.plan(settings, load_profile("generic-cpu"), run)


def test_every_part_of_the_calibration_is_named_with_its_tokens(made: Planned) -> None:
    (part,) = made.costs.calibration
    assert calibration_notes(made) == (
        f"Calibrated on: {part.description} ({part.tokens:,} tokens).",
    )
    twice = replace(made, costs=replace(made.costs, calibration=[part, part.first(64)]))
    (note,) = calibration_notes(twice)
    assert note.count(" tokens)") == 2


@pytest.mark.parametrize("count", [2, TOLD_PROMPTS, TOLD_PROMPTS + 1])
def test_prompts_are_told_as_far_as_they_are_few(
    tiny_models: Models, made: Planned, count: int
) -> None:
    prompts = tuple(f"a photo of {index}" for index in range(count))
    model = with_prompts(tiny_models[MATCH_PIVOT], prompts)
    _, note = calibration_notes(replace(made, subject=replace(made.subject, model=model)))
    assert note.startswith(f"Every image is compared with {count} prompts: “a photo of 0”")
    assert note.count("“") == min(count, TOLD_PROMPTS)
    assert note.endswith("”, …." if count > TOLD_PROMPTS else "”.")


def test_the_origin_has_the_hashes_of_the_model_and_of_its_rows(made: Planned) -> None:
    (part,), model = made.costs.calibration, made.subject.model
    assert origin(made) == {
        "model": {"digest": model.digest, "revision": model.revision},
        "calibration": [
            {"text": part.description, "tokens": part.tokens, "sha256": part.key},
        ],
    }
