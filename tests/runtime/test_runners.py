"""Every runner keeps the contract of ``Runner``, on a tiny bundle of its modality."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.modality import MODALITIES
from edgelr.core.results import Metric
from edgelr.data.text import EvaluationSize
from edgelr.runtime.requests import DeviceSizes, Execution, PhaseSizes, TimedInputs, TimedPhase
from edgelr.runtime.runners import RUNNERS, numbered, runner_of
from edgelr.runtime.timed_session import TimedSession, operators
from edgelr.runtime.validate import accuracy, padding_error, parity
from tests.helpers.paths import ROOT
from tests.helpers.runtime_bundles import reference_answers, write_modality, write_source
from tests.helpers.runtime_graphs import CONTEXT, IMAGE, MATCHING
from tests.helpers.runtime_sequences import SOUND

every_modality = pytest.mark.parametrize("modality", RUNNERS.names())
ONE_THREAD = Execution(threads=1)
PHASES = {  # phase, batch, tokens, context; of prefills of 8 tokens and contexts of 12
    "decoder": [("prefill", 1, 8, 0), ("decode", 1, 1, 12)],
    "text_encoder": [("forward", 1, CONTEXT, 0), ("forward", 8, CONTEXT, 0)],
    "text_pair": [("forward", 1, CONTEXT, 0), ("forward", 8, CONTEXT, 0)],
    "image_encoder": [("forward", 1, IMAGE.tokens, 0), ("forward", 8, IMAGE.tokens, 0)],
    "encoder_decoder": [("forward", 1, CONTEXT, 0), ("decode", 1, 1, 0), ("decode", 1, 1, 12)],
    "speech": [("forward", 1, SOUND.tokens, 0), ("decode", 1, 1, 0), ("decode", 1, 1, 12)],
    "dual_encoder": [
        ("forward", 1, IMAGE.tokens, 0),
        ("forward", 8, IMAGE.tokens, 0),
        ("text", 1, MATCHING.tokens, 0),
    ],
    "tensors": [("forward", 1, 0, 0)],
}
PROFILED = {
    "decoder": ("prefill", 1, 5, 0),
    "text_encoder": ("forward", 1, 5, 0),
    "text_pair": ("forward", 1, 5, 0),
    "encoder_decoder": ("decode", 1, 1, 0),
    "speech": ("decode", 1, 1, 0),
}
CAPPED = {  # tokens at once, context, phases; of a batch of 2, prefills of 8 and contexts of 20
    "decoder": (8, 20, {("decode", 2, 1, 19): 64}),
    "text_encoder": (8, 20, {("forward", 2, 8, 0): 1}),
    "text_pair": (8, 20, {("forward", 2, 8, 0): 1}),
    "image_encoder": (IMAGE.tokens, IMAGE.tokens, {("forward", 2, IMAGE.tokens, 0): 1}),
    "encoder_decoder": (20, 20, {("forward", 2, 20, 0): 1, ("decode", 2, 1, 19): 64}),
    "speech": (SOUND.tokens, 20, {("forward", 2, SOUND.tokens, 0): 1, ("decode", 2, 1, 19): 64}),
    "dual_encoder": (
        IMAGE.tokens,
        IMAGE.tokens,
        {("text", 2, MATCHING.tokens, 0): 1, ("forward", 2, IMAGE.tokens, 0): 1},
    ),
    "tensors": (0, 0, {("forward", 2, 0, 0): 1}),
}
WITHOUT_ORT = """
import sys
from pathlib import Path
from edgelr.core.bundle import read_bundle
from edgelr.runtime.requests import DeviceSizes, PhaseSizes
from edgelr.runtime.runners import runner_of

for folder in sys.argv[1:]:
    bundle = read_bundle(Path(folder))
    runner = runner_of(bundle)
    assert runner.phases(bundle, PhaseSizes((8,), (8,)))
    assert runner.profiled_phase(bundle, 8)
    assert runner.capped_runs(bundle, DeviceSizes(1, 8, 8)).phases
assert not {"onnxruntime", "PIL", "tokenizers", "torch"} & set(sys.modules)
"""


def told(phase: TimedPhase) -> tuple[str, int, int, int]:
    return phase.phase, phase.batch, phase.tokens, phase.context_tokens


@pytest.fixture
def bundle(modality: str, tmp_path: Path) -> ExportBundle:
    return write_modality(tmp_path / modality, modality)


def test_every_modality_has_a_runner() -> None:
    assert RUNNERS.names() == MODALITIES.names()


def test_a_modality_that_nobody_runs_is_refused(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder")
    unknown = ExportBundle(bundle.folder, replace(bundle.manifest, modality="decodr"))
    with pytest.raises(InputError, match=r"Unknown runner 'decodr'. Did you mean decoder"):
        runner_of(unknown)


@every_modality
def test_the_phases_are_those_of_the_modality(modality: str, bundle: ExportBundle) -> None:
    runner = runner_of(bundle)
    phases = runner.phases(bundle, PhaseSizes((8,), (12,)))
    assert [*map(told, phases)] == PHASES[modality]
    usual = told(runner.phases(bundle, PhaseSizes())[0]) if modality != "decoder" else None
    assert told(runner.profiled_phase(bundle, 5)) == PROFILED.get(modality, usual)


@every_modality
def test_the_largest_runs_are_those_that_a_device_has_to_bear(
    modality: str, bundle: ExportBundle
) -> None:
    runs = runner_of(bundle).capped_runs(bundle, DeviceSizes(2, 8, 20))
    found = [*map(told, runs.phases)]
    counted = {phase: found.count(phase) for phase in found}
    assert (runs.tokens, runs.context_tokens, counted) == CAPPED[modality]
    assert [*counted] == [*CAPPED[modality][2]], "in this order"
    session = TimedSession(bundle, ONE_THREAD, TimedInputs(max(1, runs.tokens)))
    assert all(session.run_ms(phase) > 0 for phase in runs.phases)


def test_what_a_parent_asks_for_loads_no_onnxruntime(tmp_path: Path) -> None:
    folders = [tmp_path / modality for modality in RUNNERS.names()]
    for folder in folders:
        write_modality(folder, folder.name)
    command = [sys.executable, "-c", WITHOUT_ORT, *map(str, folders)]
    subprocess.run(command, cwd=ROOT, check=True)


@every_modality
def test_all_phases_are_timed_without_a_tokenizer(modality: str, bundle: ExportBundle) -> None:
    session = TimedSession(bundle, ONE_THREAD, TimedInputs(piece_tokens=5))
    (bundle.folder / "tokenizer.json").unlink()
    for phase in runner_of(bundle).phases(bundle, PhaseSizes((8,), (12,))):
        assert session.run_ms(phase) > 0
        assert session.run_ms(phase) > 0


@every_modality
def test_operators_are_those_of_the_profiled_phase(modality: str, bundle: ExportBundle) -> None:
    found = {each.operator for each in operators(bundle, 5, ONE_THREAD, runs=2)}
    others = {"text_encoder": "Gather", "text_pair": "Gather", "dual_encoder": "ReduceMean"}
    expected = others.get(modality, "MatMul")
    assert expected in found
    assert ("CumSum" in found) == (modality in ("decoder", "encoder_decoder", "speech"))


@every_modality
def test_answers_are_those_of_numpy(modality: str, bundle: ExportBundle, tmp_path: Path) -> None:
    answers = reference_answers(modality)
    np.savez(tmp_path / "answers.npz", **answers)
    found = parity(bundle, tmp_path / "answers.npz", 1e-4, ONE_THREAD)
    assert found.passed
    assert (found.max_abs_error_limit, found.against) == (1e-4, "torch")
    generates = modality in ("decoder", "encoder_decoder", "speech")
    assert (found.greedy_prompts, found.greedy_tokens) == ((5, 6) if generates else (0, 0))
    changed = next(name for name in answers if name.startswith(("output_1", "logits_1")))
    answers[changed] = answers[changed] + np.float32(0.5)
    np.savez(tmp_path / "answers.npz", **answers)
    other = parity(bundle, tmp_path / "answers.npz", 1e-4, ONE_THREAD)
    assert other.max_abs_error == pytest.approx(0.5, abs=1e-4)
    assert not other.passed


@every_modality
def test_rows_together_answer_like_rows_alone(modality: str, bundle: ExportBundle) -> None:
    runner = runner_of(bundle).open(bundle, ONE_THREAD)
    rows = [each.row for each in runner.read_answers(reference_answers(modality))]
    alone = [runner.run_alone(row) for row in rows]
    together = runner.run_together(rows)
    assert len(together) == (0 if modality == "tensors" else len(rows))
    assert [each.shape for each in together] in ([], [each.shape for each in alone])
    assert padding_error(runner, rows, alone) < 1e-5


@every_modality
def test_answers_of_another_modality_are_refused(
    modality: str, bundle: ExportBundle, tmp_path: Path
) -> None:
    np.savez(tmp_path / "answers.npz", other=np.zeros(1))
    with pytest.raises(InputError, match="it lacks "):
        parity(bundle, tmp_path / "answers.npz")


@every_modality
def test_a_bundle_is_as_accurate_as_its_twin_and_not_as_another(
    modality: str, bundle: ExportBundle, tmp_path: Path
) -> None:
    source, size = write_source(tmp_path / "source", modality), EvaluationSize(2, 16, 8, 4, 4)
    twin = write_modality(tmp_path / "twin", modality)
    other = write_modality(tmp_path / "other", modality, seed=1)

    def judged(reference: ExportBundle, candidate: ExportBundle) -> Metric:
        return accuracy(reference, candidate, source, ONE_THREAD, size)[0]

    same, changed = judged(twin, bundle), judged(other, bundle)
    if same.baseline is None:
        assert same.value == pytest.approx(1)
        assert changed.value < 0.9
    else:
        assert same.value == same.baseline
        assert changed.value != pytest.approx(changed.baseline, rel=0.01)
    assert min(same.samples, changed.samples) > 0


def test_arrays_are_numbered_from_zero() -> None:
    arrays = {f"row_{index}": np.array(index) for index in (0, 10, 2, 1, *range(3, 10))}
    assert [int(each) for each in numbered(arrays, "row")] == [*range(11)]
    assert numbered(arrays, "ro") == []
