"""Latency and memory of bundles, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import load

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.data.tensors import SAMPLES, write_samples
from edgelr.graph.plain import PlainGraph
from edgelr.runtime.measure import SAME_GRAPH, graph_hashes, measure, measure_one, ratio_interval
from edgelr.runtime.requests import Execution, PhaseSizes
from tests.helpers.paths import ROOT
from tests.helpers.runtime_bundles import write_modality
from tests.helpers.runtime_graphs import decoder_model, encoder_model, write_bundle

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

WIDTH = 384
WITHOUT_ORT = """
import sys
from pathlib import Path
from edgelr.core.bundle import read_bundle
from edgelr.runtime.measure import measure_one
from edgelr.runtime.requests import PhaseSizes

found = measure_one(read_bundle(Path(sys.argv[1])), sizes=PhaseSizes((8,), (8,)), repetitions=1)
assert [phase.key for phase in found.phases] == ["prefill 8", "decode 8"]
assert not {"onnxruntime", "torch", "transformers", "onnx"} & set(sys.modules)
"""


@pytest.fixture
def decoder(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "decoder", decoder_model())


@pytest.fixture
def encoder(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "encoder", encoder_model())


def test_a_comparison_holds_both_bundles_and_a_ratio_for_each_phase(
    decoder: ExportBundle, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", decoder_model(seed=1))
    calls: list[tuple[str, int, int]] = []
    found = measure(
        decoder,
        other,
        sizes=PhaseSizes((8, 16), (12,)),
        repetitions=3,
        progress=lambda *call: calls.append(call),
    )
    assert list(found.ratios) == ["prefill 8", "prefill 16", "decode 12"]
    assert all(ratio > 0 for ratio in found.ratios.values())
    assert (found.dense.name, found.bundle.name) == ("decoder", "other")
    assert calls[-1] == ("measure decode 12", 3, 3)
    decode = found.bundle.phases[-1]
    assert (decode.phase, decode.tokens, decode.context_tokens) == ("decode", 1, 12)
    assert decode.repetitions == 3
    assert decode.p50_ms <= decode.p90_ms <= decode.p99_ms
    assert decode.tokens_per_second == pytest.approx(1e3 / decode.p50_ms)


def test_encoders_are_measured_forward(encoder: ExportBundle) -> None:
    found = measure_one(encoder, Execution(threads=1), repetitions=2)
    assert [(phase.batch, phase.tokens) for phase in found.phases] == [(1, 64), (8, 64)]
    assert found.file_bytes == encoder.weight_bytes
    assert found.memory.peak_bytes > found.memory.baseline_bytes > 0


def test_unequal_tasks_and_long_prompts_are_refused(
    decoder: ExportBundle, encoder: ExportBundle
) -> None:
    with pytest.raises(InputError, match="one task"):
        measure(decoder, encoder, sizes=PhaseSizes((8,), (8,)))
    with pytest.raises(InputError, match="64 tokens"):
        measure_one(decoder, sizes=PhaseSizes((65,), (8,)))


def test_a_graph_from_anywhere_is_timed_on_the_samples_of_the_bundle(tmp_path: Path) -> None:
    """Its original has none of its own."""
    bundle = write_modality(tmp_path / "bundle", "tensors")
    original = write_modality(tmp_path / "original", "tensors", seed=1)
    (original.folder / "edgelr" / "inputs.npz").unlink()
    found = measure(original, bundle, Execution(threads=1), repetitions=2)
    assert list(found.ratios) == ["forward"]
    assert found.dense.memory.predicted_bytes is None


def test_who_measures_loads_no_onnxruntime(decoder: ExportBundle) -> None:
    command = [sys.executable, "-c", WITHOUT_ORT, str(decoder.folder)]
    subprocess.run(command, cwd=ROOT, check=True)


def test_the_ratio_is_that_of_the_medians_and_lies_in_its_interval(
    decoder: ExportBundle, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", decoder_model(seed=1))
    found = measure(decoder, other, sizes=PhaseSizes((8,), (12,)), repetitions=5)
    for dense, bundle in zip(found.dense.phases, found.bundle.phases, strict=True):
        ratio, interval = found.ratios[dense.key], found.intervals[dense.key]
        assert ratio == bundle.p50_ms / dense.p50_ms
        assert interval.low < ratio < interval.high
        assert interval.units == 5


def test_two_copies_of_a_graph_are_neither_faster_nor_slower(
    decoder: ExportBundle, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "copy", decoder_model())
    found = measure(decoder, other, sizes=PhaseSizes((32,), (16,)), repetitions=10)
    assert graph_hashes(decoder) == graph_hashes(other) != {}
    assert [found.faster(key) for key in found.ratios] == [None, None]
    assert SAME_GRAPH in found.notes


BURN = "while True: pass"


def chain(folder: Path, name: str) -> ExportBundle:
    """Sixteen products of some milliseconds; the name makes it another file."""
    generator, value = np.random.default_rng(0), "x"
    graph = PlainGraph(name, "float32", (32, WIDTH), ["x"])
    for index in range(16):
        weight = generator.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5)
        value = graph.node("MatMul", [value, graph.constant(f"w{index}", weight)])
    graph.save(folder / f"{name}.onnx", value)
    options = {"modality": "tensors", "task": "tensors", "pooling": None, "context_tokens": 0}
    bundle = write_bundle(folder / name, load(folder / f"{name}.onnx"), **options)
    write_samples(bundle.folder / SAMPLES, {"x": np.ones((1, 32, WIDTH), np.float32)})
    return bundle


@pytest.mark.whole
@pytest.mark.parametrize("threads", [1, 2])
def test_on_a_busy_machine_equal_graphs_are_neither_faster_nor_slower(
    tmp_path: Path, threads: int
) -> None:
    """A loop keeps one core busy. Nothing tells that the files are copies: their hashes differ."""
    first, second = (chain(tmp_path, name) for name in ("first", "second"))
    assert graph_hashes(first) != graph_hashes(second)
    with subprocess.Popen([sys.executable, "-c", BURN]) as burner:
        for _ in range(2):
            found = measure(first, second, Execution("cpu", threads))
            assert found.faster("forward") is None, found
            assert "The machine was busy" in found.notes[0]
        burner.kill()


def test_what_takes_a_tenth_of_the_time_is_faster_on_a_busy_machine() -> None:
    dense, bundle = [10.0, 11.0, 9.0, 10.0], [1.0, 1.1, 0.9, 1.0]
    calm, busy = (ratio_interval(dense, bundle, others) for others in (0.05, 0.5))
    assert calm is not None
    assert busy is not None
    assert busy.high == pytest.approx(2 * calm.high)
    assert busy.low == pytest.approx(calm.low / 2)
    assert busy.high < 1


def test_what_takes_half_the_time_is_faster() -> None:
    noise = np.random.default_rng(0).normal(1.0, 0.05, (2, 10))
    interval = ratio_interval([10 * each for each in noise[0]], [5 * each for each in noise[1]])
    assert interval is not None
    assert 0.4 < interval.low < 0.5 < interval.high < 0.6
    assert ratio_interval([1.0], [1.0]) is None


@pytest.mark.whole
def test_drawn_from_one_distribution_hardly_any_pair_is_called_different() -> None:
    drawn = np.random.default_rng(0).lognormal(0.0, 0.05, (200, 2, 10))
    found = [ratio_interval(*pair) for pair in drawn]
    decided = sum(each is None or not each.low <= 1 <= each.high for each in found)
    assert decided <= 4
