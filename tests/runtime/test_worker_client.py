from __future__ import annotations

import os
import signal
from pathlib import Path

import onnxruntime as ort
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError, ProviderError
from edgelr.runtime.requests import Execution, TimedPhase
from edgelr.runtime.worker_client import Worker
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
        opened = worker.open(decoder, Execution(threads=1))
        assert (opened.provider, opened.threads) == ("CPUExecutionProvider", 1)
        assert opened.load_ms > 0
        assert worker.run_ms(TimedPhase("prefill", 1, 8)) > 0
        assert worker.run_ms(TimedPhase("decode", 2, 1, 8)) > 0
        memory = worker.memory()
        assert 0 < opened.baseline_bytes <= memory.peak_bytes
        assert memory.rss_anon_bytes > 1 << 20
        assert memory.rss_file_bytes > 1 << 20
        assert memory.peak_bytes >= memory.resident_bytes
    assert ended(worker.pid)


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
        worker.open(decoder, Execution("cuda"))
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
        worker.call("no such function", (), {})


def test_an_interrupt_leaves_no_worker_behind() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Worker() as worker:
        interrupt()
    assert ended(worker.pid)
