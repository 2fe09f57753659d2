"""Compare a bundle with the original, and time both."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import ProviderError
from edgelr.core.measurement import Comparison
from edgelr.core.results import Metric, Validation
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.data.labels import truth_notes
from edgelr.data.text import EvaluationSize
from edgelr.device.gate import make_gate
from edgelr.runtime import calls, measure
from edgelr.runtime.requests import Execution, PhaseSizes
from edgelr.runtime.worker_client import Worker
from edgelr.stages.source import Source, Written
from edgelr.stages.staging import Staging
from edgelr.stages.subject import DenseExport, Planned, Subject

EVALUATION = EvaluationSize(chunks=8, length=1024, sentences=500)
QUANTIZED_NOTE = (
    "MatMulNBits multiplies in eight bits (accuracy level {level}). Parity is that of the same "
    "weights at level 1, in float32; accuracy and latency are those of the file that ships."
)
HALF_NOTE = (
    "The bundle ships in float16. Parity and accuracy are those of the same plan in float32 on the "
    "CPU; the float16 file was loaded there and compared with it."
)
GPU_NOTE = (
    "Parity was checked in float32 on the CPU{compared}. Accuracy was measured on the file that "
    "ships, on this machine's GPU."
)


def require_provider(settings: Settings, dense: DenseExport) -> None:
    """Make sure that a provider that was asked for by name really runs the model.

    Raises:
        ProviderError: it would not.
    """
    if settings.provider is not None:
        with Worker() as worker:
            worker.open(dense.bundle, Execution(settings.provider))


def validate(
    source: Source, made: Planned[Any, Any], written: Written, place: Staging, run: Run
) -> Validation:
    """Compare with what the factors compute (parity) and with the original (accuracy).

    What the bundle answers is stored in it, for 'edgelr validate' on a board.
    """
    subject, bundle = made.subject, written.bundle
    run.progress("parity", 0, 1)
    parity = source.parity(made, written, place)
    calls.store_answers(bundle, place.answers)
    run.progress("parity", 1, 1)
    data = subject.write_judged(place.scratch)
    metrics, on_gpu = accuracy(subject, made.dense, written, data, run)
    precision = bundle.manifest.precision
    return Validation(
        parity=parity,
        metrics=metrics,
        gate=make_gate(subject.task, metrics, subject.max_drop),
        precision=precision if on_gpu or written.twin is None else "float32",
        provider="CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider",
        text=subject.judged_on,
        notes=(*_notes(made, written, on_gpu), *truth_notes(subject.task, metrics)),
        dense_parity=made.dense.parity,
    )


def _notes(made: Planned[Any, Any], written: Written, on_gpu: bool) -> tuple[str, ...]:
    """Say which file the figures are of, where there is more than one."""
    half = written.bundle.manifest.precision == "float16"
    if on_gpu:
        compared = ", with which the float16 file was compared there" if half else ""
        return (GPU_NOTE.format(compared=compared),)
    if written.twin is None:
        return ()
    level = made.subject.device.accuracy_level
    return (HALF_NOTE if half else QUANTIZED_NOTE.format(level=level),)


def accuracy(
    subject: Subject, dense: DenseExport, written: Written, data: Path, run: Run
) -> tuple[tuple[Metric, ...], bool]:
    """Compare with the original: what ships on a GPU, where the device and this machine have one.

    Returns:
        The metrics, and whether they were measured on a GPU.
    """
    original, asked = dense.bundle, subject.settings.provider
    options: dict[str, Any] = {"size": EVALUATION, "progress": run.progress}
    if (asked or subject.device.provider) == "cuda":
        with nullcontext() if asked == "cuda" else suppress(ProviderError):
            on_gpu = Execution("cuda")
            return calls.accuracy(original, written.bundle, data, on_gpu, **options), True
    return calls.accuracy(original, runnable(written), data, **options), False


def runnable(written: Written) -> ExportBundle:
    """What this machine's CPU can run: the twin of what ships in float16."""
    half = written.bundle.manifest.precision == "float16"
    return written.twin if half and written.twin is not None else written.bundle


def measure_both(
    source: Source, made: Planned[Any, Any], written: Written, run: Run
) -> tuple[Comparison, ExportBundle]:
    """Time the dense export and the bundle in turns, on the device's provider where it is usable.

    Returns:
        The comparison, and the dense export in the precision that ships.

    Raises:
        ProviderError: a provider was asked for by name, and is not used on this machine.
    """
    subject, bundle = made.subject, written.bundle
    precision = bundle.manifest.precision
    dense = source.baseline(subject, made.dense, precision, precision, run)
    assert dense is not None, "the original can be exported in the precision of its bundle"
    asked = subject.settings.provider
    lengths = (min(128, subject.context_tokens // 2),)
    options: dict[str, Any] = {
        "sizes": PhaseSizes(lengths, lengths),
        "progress": run.progress,
    }
    if (asked or subject.device.provider) == "cuda":
        with suppress(ProviderError):
            return measure.measure(dense, bundle, Execution("cuda"), **options), dense
        if asked == "cuda":
            raise ProviderError("CUDA was asked for with --provider, and is not used on this host.")
    both = (made.dense.bundle, runnable(written))
    return measure.measure(*both, **options), dense
