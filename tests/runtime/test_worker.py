from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError, ProviderError
from edgelr.runtime.measure import measure, measure_one
from edgelr.runtime.worker_client import Worker
from tests.helpers.paths import ROOT
from tests.helpers.runtime_graphs import decoder_model, encoder_model, write_bundle

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@pytest.fixture
def decoder(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "decoder", decoder_model())


@pytest.fixture
def encoder(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "encoder", encoder_model())


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_opens_runs_and_tells_its_memory(decoder: ExportBundle) -> None:
    with Worker() as worker:
        opened = worker.open(decoder, threads=1)
        assert (opened.provider, opened.threads) == ("CPUExecutionProvider", 1)
        assert opened.load_ms > 0
        assert worker.run_ms("prefill", 1, 8, 0) > 0
        assert worker.run_ms("decode", 2, 1, 8) > 0
        memory = worker.memory()
        assert 0 < opened.baseline_bytes <= memory.peak_bytes
        assert memory.rss_anon_bytes > 1 << 20
        assert memory.rss_file_bytes > 1 << 20
        assert memory.peak_bytes >= memory.resident_bytes
    assert ended(worker.pid)


@pytest.mark.parametrize(
    ("said", "found"), [("{pid}, 851", 851 << 20), ("{pid}, [N/A]", None), ("1, 851", None)]
)
def test_the_driver_tells_what_a_worker_has_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: int | None
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '3, 77'\necho \"{said.format(pid='$PPID')}\"\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with Worker() as worker:
        assert worker.gpu_memory() == found


def test_without_a_driver_nobody_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Worker() as worker:
        assert worker.gpu_memory() is None


def test_errors_cross_the_pipe_and_the_worker_goes_on(
    decoder: ExportBundle, tmp_path: Path
) -> None:
    broken = write_bundle(tmp_path / "broken", encoder_model())
    broken.model_path.write_bytes(b"no graph")
    with Worker() as worker:
        with pytest.raises(InputError, match=r"model.onnx has 8 bytes"):
            worker.open(broken)
        assert worker.open(decoder).load_ms > 0


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="has CUDA")
def test_a_missing_provider_keeps_its_exit_code(decoder: ExportBundle) -> None:
    with Worker() as worker, pytest.raises(ProviderError) as error:
        worker.open(decoder, "cuda")
    assert error.value.exit_code == 5


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (signal.SIGKILL, EnvironmentProblem, "SIGKILL.*memory"),
        (signal.SIGSEGV, EdgelrError, "SIGSEGV"),
    ],
)
def test_a_killed_worker_is_told_with_its_signal(
    number: signal.Signals, kind: type[EdgelrError], message: str
) -> None:
    with Worker() as worker:
        worker.memory()
        os.kill(worker.pid, number)
        with pytest.raises(kind, match=message):
            worker.memory()


def test_a_bug_in_the_worker_keeps_its_traceback() -> None:
    with Worker() as worker, pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError"):
        worker.call("no such function", {})


def test_an_interrupt_leaves_no_worker_behind() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Worker() as worker:
        interrupt()
    assert ended(worker.pid)


def test_a_worker_whose_parent_is_gone_ends() -> None:
    command = [sys.executable, "-m", "edgelr.runtime.worker"]
    done = subprocess.run(command, cwd=ROOT, input="", capture_output=True, timeout=60, check=True)
    assert done.stdout == b""


def test_the_parent_side_loads_no_heavy_library() -> None:
    code = (
        "import sys, edgelr.runtime.calls, edgelr.runtime.measure, edgelr.core.bundle\n"
        "assert not {'onnxruntime', 'torch', 'transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_comparison_holds_both_bundles_and_a_ratio_for_each_phase(
    decoder: ExportBundle, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", decoder_model(seed=1))
    calls: list[tuple[str, int, int]] = []
    found = measure(
        decoder,
        other,
        prefill_tokens=(8, 16),
        context_tokens=(12,),
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
    found = measure_one(encoder, threads=1, repetitions=2)
    assert [(phase.batch, phase.tokens) for phase in found.phases] == [(1, 64), (8, 64)]
    assert found.file_bytes == encoder.weight_bytes
    assert found.memory.peak_bytes > found.memory.baseline_bytes > 0


def test_unequal_tasks_and_long_prompts_are_refused(
    decoder: ExportBundle, encoder: ExportBundle
) -> None:
    with pytest.raises(InputError, match="one task"):
        measure(decoder, encoder, prefill_tokens=(8,), context_tokens=(8,))
    with pytest.raises(InputError, match="64 tokens"):
        measure_one(decoder, prefill_tokens=(65,), context_tokens=(8,))
