"""From a folder with an encoder and a decoder to a bundle, its proof, and what users call."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from edgelr import pipeline
from edgelr.cli import app
from edgelr.compress.reference_outputs import write_answers
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.data.audio import log_mel
from edgelr.device.budget import activation_bytes, cache_bytes
from edgelr.device.profile import load_profile
from edgelr.graph.save import load_graph
from edgelr.graph.workload import read_workload
from edgelr.model.loaded import LoadedModel
from edgelr.runtime.measure import measure_one
from edgelr.runtime.memory_cap import run_under_cap
from edgelr.runtime.runners.encoder_decoder import EncoderDecoderRunner
from edgelr.runtime.runners.speech import SpeechRunner
from edgelr.runtime.validate import parity
from tests.conftest import random_ids
from tests.helpers.audio import chirp, write_said
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.fault_injection import rewrite_checksums
from tests.helpers.paths import SNIPPETS
from tests.helpers.run_exports import (
    PAIR_PIVOT,
    PAIRS,
    SLOW,
    Recorder,
    quick_settings,
    session_cache,
)

pytestmark = pytest.mark.whole

VOCABULARY = 160  # of the tiny models
OTHERS = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.breadth)
    for name in PAIRS
    if name != PAIR_PIVOT
]
CASES = [
    f"{PAIR_PIVOT}/generic-cpu/fp32",
    pytest.param(f"{PAIR_PIVOT}/jetson/fp16", marks=pytest.mark.breadth),
    pytest.param(f"{PAIR_PIVOT}/generic-cpu/int8", marks=pytest.mark.breadth),
    *(pytest.param(f"{name.values[0]}/generic-cpu/fp32", marks=name.marks) for name in OTHERS),
]


@dataclass(frozen=True)
class Exported:
    model: LoadedModel
    bundle: ExportBundle
    dense: ExportBundle
    report: Report
    said: Path | None = None  # sounds, and what is said in them

    @property
    def source_tokens(self) -> int:
        return self.model.sound.tokens if self.model.sound else 72


@pytest.fixture(scope="module", params=CASES)
def exported(
    request: pytest.FixtureRequest,
    tiny_models: dict[str, LoadedModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    name, profile, precision = request.param.split("/")
    model, cache = tiny_models[name], session_cache(tmp_path_factory)
    folder = tmp_path_factory.mktemp("pair") / "bundle"
    weights = {"fp32": "float32", "fp16": "float16"}.get(precision, precision)
    aim = {} if precision == "int8" else {"keep": 0.8}
    aim |= {} if model.sound else {"with_tests": True}
    said = write_said(folder.parent, 24) if model.sound else None
    read = {"calibration": (str(said),), "calibration_length": None} if said else {}
    settings = quick_settings(model.folder, profile=profile, precision=weights, **aim, **read)
    report = pipeline.export(settings, load_profile(profile), folder, Run(cache, Recorder()))
    dense = pipeline.dense_bundle(settings, Run(cache, Recorder()))
    return Exported(model, read_bundle(folder, verify=True), dense, report, said)


def test_both_graphs_share_one_file_of_weights(exported: Exported) -> None:
    bundle = exported.bundle
    suffix = "_fp16" if bundle.manifest.precision == "float16" else ""
    names = (f"decoder_with_past_model{suffix}.onnx", f"encoder_model{suffix}.onnx")
    found = {path.name for path in (bundle.folder / "onnx").iterdir()}
    assert found == {*names, f"{names[0]}.data"}
    stored = {}
    for name in names:
        for value in load_graph(bundle.folder / "onnx" / name).graph.initializers.values():
            tensor: Any = value.const_value
            if tensor.nbytes > 1024:
                assert tensor.location == f"{names[0]}.data"
                stored.setdefault((tensor.dtype, tensor.tobytes()), set()).add(tensor.offset)
    assert all(len(offsets) == 1 for offsets in stored.values())
    assert exported.report.bundle_file_bytes == sum(
        path.stat().st_size for path in (bundle.folder / "onnx").iterdir()
    )


def test_the_report_judges_what_the_original_answers(exported: Exported) -> None:
    report = exported.report
    assert report.validation is not None
    assert report.validation.passed
    assert report.validation.parity is not None
    assert report.validation.parity.greedy_identical == 5
    metrics = {metric.name: metric for metric in report.validation.metrics}
    perplexity, baseline = metrics["perplexity"].value, metrics["perplexity"].baseline
    assert baseline is not None
    # drawn from the original: the logarithm of the ratio is expected to be the divergence
    assert np.log(perplexity / baseline) == pytest.approx(metrics["kl_divergence"].value, abs=0.01)
    assert report.comparison is not None
    assert list(report.comparison.ratios) == [
        f"forward {exported.source_tokens}",
        "decode 0",
        "decode 36",
    ]
    assert report.plan.kept <= 0.8


def scale_a_weight(folder: Path) -> None:
    """Scale the largest matrix of the decoder but its table, where it lies in the common file."""
    (path,) = (folder / "onnx").glob("decoder*.onnx")
    weights = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and VOCABULARY not in tensor.dims
    ]
    place = max(weights, key=lambda each: int(each.get("length", 0)))
    start, length = int(place["offset"]), int(place["length"])
    file = path.with_name(place["location"])
    content = bytearray(file.read_bytes())
    values = np.frombuffer(content, np.float32, length // 4, start) * 1.5
    content[start : start + length] = values.tobytes()
    file.write_bytes(content)
    rewrite_checksums(folder)


def test_the_bundles_own_tests_see_a_scaled_weight(exported: Exported, tmp_path: Path) -> None:
    folder, faulty = exported.bundle.folder, tmp_path / "faulty"
    if exported.model.sound or exported.report.plan.sites[0].candidate.precision != "float32":
        pytest.skip("it has no tests of its own, or its weights are no float32")
    shutil.copytree(folder, faulty)
    scale_a_weight(faulty)
    whole, found = run_bundle_tests([folder, faulty]).values()
    assert len(whole) == 9
    assert all(whole.values()), whole
    assert found["test_the_files_are_those_that_were_exported"]
    assert not found["test_logits_are_those_of_the_export"]
    assert not found["test_losses_are_those_of_the_export"]


def test_the_errors_of_transcripts_are_counted(exported: Exported) -> None:
    assert exported.report.validation is not None
    found = {metric.name: metric for metric in exported.report.validation.metrics}
    assert ("wer" in found) == (exported.said is not None)
    if exported.said is not None:
        rate = found["wer"]
        assert rate.samples == 2 * 24 // 4  # two words in every fourth sound
        assert rate.baseline is not None
        assert rate.interval is not None
        lines = (exported.bundle.folder / "README.md").read_text(encoding="utf-8")
        assert "| wer |" in lines


def test_the_first_convolution_of_a_sound_runs_twice_for_every_position(exported: Exported) -> None:
    sound, path = exported.model.sound, exported.bundle.encoder_path
    assert path is not None
    tokens = sound.tokens if sound else None
    found = [each.positions_per_token for each in read_workload(path, tokens).products]
    assert found == [2.0 if sound else 1.0] + [1.0] * (len(found) - 1)


def test_the_example_of_the_card_transcribes_like_the_runner(exported: Exported) -> None:
    if exported.model.sound is None:
        pytest.skip("it reads text: see the next test")
    folder = exported.bundle.folder
    example = runpy.run_path(str(SNIPPETS / "transcribe.py"))
    code = (SNIPPETS / "transcribe.py").read_text(encoding="utf-8")
    assert code in (folder / "README.md").read_text(encoding="utf-8")
    transcriber, runner = example["Transcriber"](folder), SpeechRunner.open(exported.bundle)
    samples = [chirp(0.5, seed) for seed in range(3)]
    features = [log_mel(each, exported.model.sound) for each in samples]
    tokens = [transcriber.transcribe(each) for each in samples]
    assert runner.tokenizer is not None
    assert runner.answers(features) == runner.tokenizer.decode_batch(tokens)
    assert any(tokens)


def test_the_example_of_the_card_answers_like_the_runner(exported: Exported) -> None:
    if exported.model.sound is not None:
        pytest.skip("it reads sounds: see the test before")
    folder = exported.bundle.folder
    code = (SNIPPETS / "answer.py").read_text(encoding="utf-8")
    assert code in (folder / "README.md").read_text(encoding="utf-8")
    answer = runpy.run_path(str(SNIPPETS / "answer.py"))["answer"]
    runner = EncoderDecoderRunner.open(exported.bundle)
    for source in random_ids(3, 9, seed=4):
        (whole,) = runner.greedy([source], 12)
        ended = [token for token in runner.start.until_end(whole) if token not in runner.start.ends]
        assert answer(folder, source.tolist(), 12) == ended


def test_it_is_validated_and_measured_again_without_torch(exported: Exported) -> None:
    done = CliRunner().invoke(
        app,
        [
            "validate",
            str(exported.bundle.folder),
            "--against",
            str(exported.dense.folder),
            "--json",
            *(["--data", str(exported.said)] if exported.said else []),
        ],
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["gate"]["metric"] == "perplexity"
    found = measure_one(exported.bundle, repetitions=3)
    read = f"forward {exported.source_tokens}"
    assert [phase.key for phase in found.phases] == [read, "decode 0", "decode 71"]


def test_it_runs_in_the_memory_that_its_device_leaves(exported: Exported) -> None:
    device = load_profile(exported.bundle.manifest.profile or "")
    if exported.bundle.manifest.precision == "float16":
        pytest.skip("this machine's CPU does not run float16")
    found = run_under_cap(exported.bundle, device)
    assert found.passed, found.problem
    assert (found.context_tokens, found.prefill_tokens) == (72, exported.source_tokens)


@pytest.fixture(scope="module")
def pivot(tiny_models: dict[str, LoadedModel]) -> LoadedModel:
    return tiny_models[PAIR_PIVOT]


def test_parity_sees_a_wrong_answer_and_lost_padding(
    pivot: LoadedModel, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = session_cache(tmp_path_factory)
    dense = pipeline.dense_bundle(quick_settings(pivot.folder), Run(cache, Recorder()))
    path = tmp_path / "answers.npz"
    write_answers(pivot, {}, [*random_ids(3, 9), random_ids(1, 4)[0]], 8, path)
    assert parity(dense, path).passed
    arrays = dict(np.load(path))
    arrays["target_1"][-1] += 1  # which is predicted, and not read
    np.savez(path, **arrays)
    changed = parity(dense, path)
    assert (changed.passed, changed.greedy_identical) == (False, 3)
    runner = EncoderDecoderRunner.open(dense)
    sources = np.concatenate([random_ids(1, 9), random_ids(1, 9, seed=1)])
    mask = np.ones_like(sources)
    mask[1, 4:] = 0
    target = random_ids(2, 6, seed=2)
    alone = runner.forced(sources[1:, :4], target[1:])
    np.testing.assert_allclose(runner.forced(sources, target, mask)[1:], alone, atol=1e-5)
    assert np.abs(runner.forced(sources, target)[1:] - alone).max() > 0.01


def test_steps_with_a_past_give_the_logits_of_the_whole(
    pivot: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = session_cache(tmp_path_factory)
    runner = EncoderDecoderRunner.open(
        pipeline.dense_bundle(quick_settings(pivot.folder), Run(cache, Recorder()))
    )
    target, source = random_ids(2, 7, seed=3), runner.read(random_ids(2, 5))
    whole, _ = runner.logits(target, source)
    parts, past = [], None
    for start, stop in ((0, 1), (1, 5), (5, 7)):
        logits, past = runner.logits(target[:, start:stop], source, past)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


def test_memory_counts_the_source_once_and_the_past_twice(pivot: LoadedModel) -> None:
    shape, longest = pivot.dimensions, pivot.longest_text
    assert (shape.source_tokens, longest) == (72, 72)
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, blocks, heads, head size, bytes
    assert cache_bytes(shape, 1, 10, "float32") == per_token * (2 * 10 + 72)
    short = replace(shape, source_tokens=8)
    assert activation_bytes(short, 1, 8, 10, "float32") < activation_bytes(
        shape, 1, 8, 10, "float32"
    )


@pytest.mark.parametrize("command", [("bench", "methods"), ("sweep",)])
def test_comparisons_are_refused_for_pairs(
    pivot: LoadedModel, command: tuple[str, ...], tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        app, [*command, str(pivot.folder), "--keep", "0.8", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 2
    assert "an encoder and a decoder" in " ".join(done.stderr.split())


def test_the_pair_writes_and_predicts_the_same_text_in_every_way(
    pivot: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = session_cache(tmp_path_factory)
    runner = EncoderDecoderRunner.open(
        pipeline.dense_bundle(quick_settings(pivot.folder), Run(cache, Recorder()))
    )
    sources = [random_ids(1, 9)[0], random_ids(1, 5)[0]]  # answered together, one with padding
    found = runner.continued(sources, 8)
    assert found.tolist() == runner.greedy(sources, 8)
    for source, text in zip(sources, found, strict=True):
        at_once = runner.predicted(source, text)
        scores = at_once.copy()
        for generated, rows in enumerate((scores[:1], scores[1:])):
            runner.start.allowed(rows, generated)
        assert scores.argmax(-1).tolist() == text.tolist()
        np.testing.assert_allclose(runner.predicted(source, text, True), at_once, atol=1e-5)
