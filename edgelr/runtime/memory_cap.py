"""What a bundle takes in memory while it runs: predicted from its files, and proved under a cap.

A cap is real: the process that runs the bundle cannot get more. With a control group (version 2)
everything is counted that the kernel counts as memory. Without one that can be written, the limit
is RLIMIT_DATA: it counts what belongs to the process alone. RLIMIT_AS would count addresses, of
which a file that is mapped and an arena that is reserved take many without taking any memory. Pages
of files are taken off the limit beforehand, as if all of them stayed. On a GPU the arena of ONNX
Runtime is limited, which holds the weights, the cache and the buffers; what the driver and the
process take beside it is the device's figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import EdgelrError, ProviderError
from edgelr.core.measurement import CapCheck
from edgelr.core.vocabulary import MIB
from edgelr.device.budget import activation_bytes, cache_bytes
from edgelr.device.profile import DeviceProfile
from edgelr.runtime.memory import ProcessMemory
from edgelr.runtime.requests import ON_CPU, CappedRuns, DeviceSizes, Execution, TimedInputs
from edgelr.runtime.runners import runner_of
from edgelr.runtime.worker_client import Worker

# What ONNX Runtime takes beside weights, buffers and cache: its libraries' pages as they are used,
# the graph, threads. 20 to 28 MiB with MiniLM and SmolLM2-135M in float32 (release 1.31, x86-64).
SESSION_BYTES = 26 * MIB
# What packing quantized weights leaves to the process, and products in eight bits work with: up to
# 4 MiB more with the same models.
QUANTIZED_BYTES = 4 * MIB
# What a process has on a GPU beside weights, buffers and cache: the driver's context and libraries,
# 600 MiB as soon as a graph is loaded, and their workspaces. 718 to 732 MiB with SmolLM2-135M in
# float16 (release 1.31, CUDA 13, cuDNN 9, an H200 with driver 580).
GPU_CONTEXT_BYTES = 720 * MIB
_GROUPS = Path("/sys/fs/cgroup")


def predict_peak(
    bundle: ExportBundle,
    provider: str,
    baseline_bytes: int,
    batch: int,
    tokens: int,
    context_tokens: int,
) -> int | None:
    """Predict the most memory of a process that runs a bundle: the GPU's, on a GPU.

    Args:
        bundle: bundle whose manifest tells the shape of the model, and how its weights are held.
        provider: execution provider, ``"cpu"`` or ``"cuda"``.
        baseline_bytes: resident memory of the process before the bundle is loaded.
        batch: sequences that run together.
        tokens: tokens that are read at once, at most.
        context_tokens: tokens that the cache holds, at most.

    Returns:
        Bytes; None for a bundle whose manifest does not tell.
    """
    held = _held_bytes(bundle, provider, batch, tokens, context_tokens)
    residency = bundle.manifest.residency
    if provider != "cpu":
        return None if held is None else GPU_CONTEXT_BYTES + held
    if held is None or residency is None:
        return None
    extra = QUANTIZED_BYTES if residency.quantized else 0
    return baseline_bytes + SESSION_BYTES + extra + held


def _held_bytes(
    bundle: ExportBundle, provider: str, batch: int, tokens: int, context_tokens: int
) -> int | None:
    """Add up weights, cache and buffers: what a provider's arena holds."""
    shape, weights = bundle.manifest.shape, bundle.resident_bytes(provider)
    if shape is None or weights is None:
        return None
    precision = bundle.manifest.precision
    shape = replace(shape, source_tokens=min(shape.source_tokens, tokens))
    cache = cache_bytes(shape, batch, context_tokens, precision)
    counted = bundle.manifest.cache_in_place or shape.source_tokens > 0
    copies = 1 if counted else 2  # past and present
    buffers = activation_bytes(shape, batch, tokens, context_tokens, precision)
    return weights + copies * cache + buffers


def run_under_cap(
    bundle: ExportBundle, device: DeviceProfile, execution: Execution = ON_CPU
) -> CapCheck:
    """Run a bundle in a process whose memory is limited to what a device leaves.

    The runs are the largest of the device's workload: see ``Runner.capped_runs``.

    Args:
        bundle: bundle that is run.
        device: profile whose memory, less what is reserved, is the limit.
        execution: provider and threads.

    Raises:
        ProviderError: the provider would not really be used.
    """
    batch = device.workload.batch.value
    sizes = DeviceSizes(batch, device.prefill_tokens, device.context_tokens)
    runs = runner_of(bundle).capped_runs(bundle, sizes)
    lengths = (batch, runs.tokens, runs.context_tokens)
    limit_bytes = device.visible_bytes - device.reserved_bytes
    predicted: int | None
    cap: AbstractContextManager[str]
    with Worker() as worker:
        if execution.provider == "cpu":
            baseline = worker.memory()
            predicted = predict_peak(bundle, "cpu", baseline.resident_bytes, *lengths)
            cap = _limited(worker, bundle, limit_bytes, baseline)
        else:
            held = _held_bytes(bundle, execution.provider, *lengths)
            predicted = None if held is None else device.runtime_bytes + held
            arena_bytes = max(1, limit_bytes - device.runtime_bytes)  # 0 would set no limit
            execution = replace(execution, memory_bytes=arena_bytes)
            cap = nullcontext("gpu_mem_limit")
        with cap as mechanism:
            peak, problem = _attempt(worker, bundle, execution, runs)
    if execution.provider != "cpu" and peak is not None and peak > limit_bytes:
        problem = _beside_the_arena(peak, limit_bytes, device)
    return CapCheck(
        limit_bytes=limit_bytes,
        mechanism=mechanism,
        predicted_bytes=predicted,
        peak_bytes=peak,
        context_tokens=runs.context_tokens,
        prefill_tokens=runs.tokens,
        problem=problem,
    )


def _attempt(
    worker: Worker, bundle: ExportBundle, execution: Execution, runs: CappedRuns
) -> tuple[int | None, str]:
    """Open a bundle and run it; return the most memory that it took, and how it failed."""
    try:
        worker.open(bundle, execution, TimedInputs(runs.tokens))
        for phase in runs.phases:
            worker.run_ms(phase)
        on_cpu = execution.provider == "cpu"
        return worker.memory().peak_bytes if on_cpu else worker.gpu_memory(), ""
    except ProviderError:
        raise
    except EdgelrError as error:
        return None, str(error)


def _beside_the_arena(peak: int, limit_bytes: int, device: DeviceProfile) -> str:
    """Say that a process took more on the GPU than its arena was limited for."""
    return (
        f"It ran, but the process had {peak >> 20:,} MiB on the GPU, where {limit_bytes >> 20:,} "
        f"MiB are left to it: beside the arena it takes more than the "
        f"{device.runtime_bytes >> 20:,} MiB that the profile of {device.id} expects."
    )


@contextmanager
def _limited(
    worker: Worker, bundle: ExportBundle, limit_bytes: int, baseline: ProcessMemory
) -> Iterator[str]:
    """Limit a worker; what it took before counts."""
    group = _new_group(worker.pid, limit_bytes - baseline.resident_bytes)
    if group is not None:
        try:
            yield "cgroup v2 memory.max"
        finally:
            worker.kill()
            group.rmdir()
        return
    residency = bundle.manifest.residency
    pages = 0 if residency is None else residency.mapped_bytes
    worker.limit_data(limit_bytes - baseline.resident_bytes - pages)
    yield "RLIMIT_DATA"


def _new_group(pid: int, limit_bytes: int) -> Path | None:
    """Put a process into a control group of its own; None where that cannot be done."""
    own = _own_group()
    if own is None:
        return None
    group = own / f"edgelr-{pid}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        (group / "memory.max").write_text(str(max(0, limit_bytes)))
        (group / "memory.swap.max").write_text("0")
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:  # no memory controller here, or it is not ours
        group.rmdir()
        return None
    return group


def _own_group() -> Path | None:
    """Find the control group of this process in the unified hierarchy."""
    own = Path("/proc/self/cgroup")
    lines: Sequence[str] = own.read_text().splitlines() if own.exists() else ()
    for line in lines:
        if line.startswith("0::") and (_GROUPS / "cgroup.controllers").exists():
            return _GROUPS / line.removeprefix("0::").lstrip("/")
    return None
