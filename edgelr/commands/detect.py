"""``edgelr profiles detect``: a profile of this machine, with what its kernels really do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import yaml

from edgelr import __version__
from edgelr.core.errors import InputError
from edgelr.core.listener import Listener
from edgelr.core.vocabulary import MIB, PRECISION_BYTES, Precision, WeightPrecision
from edgelr.device.identity import is_this_machine
from edgelr.device.profile import DeviceProfile, load_profile, profile_names, profile_path
from edgelr.device.storage import matrix_bytes
from edgelr.graph.probe import write_attention, write_decoding, write_norms, write_products
from edgelr.runtime import calls
from edgelr.runtime.memory import usable_cores
from edgelr.runtime.memory_cap import SESSION_BYTES
from edgelr.runtime.requests import Execution, Probe
from edgelr.runtime.worker_client import Worker
from edgelr.stages.report import environment

PACKAGES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}
SIZES = (64, 256, 1024, 3072)  # rows and columns of the weights that are measured
TOKENS = (1, 32, 128, 512)
READ_BYTES = 64 * 2**20  # weights of a chain: more than caches hold
MOST_PAIRS = 256
NORMS, WIDTH = 100, 1024
ATTENTIONS, HEADS, HEAD_SIZE, PAST = 30, 8, 64, 128


@dataclass(frozen=True, slots=True)
class _Chain:
    """A chain of products ``(inputs, outputs)`` and back, and what is measured of it."""

    weights: WeightPrecision
    inputs: int
    outputs: int

    @property
    def pairs(self) -> int:
        size = matrix_bytes((self.inputs, self.outputs), self.weights, "float32")
        return max(1, min(MOST_PAIRS, READ_BYTES // (2 * size)))

    @property
    def shapes(self) -> list[dict[str, list[int]]]:
        return [{"x": [tokens, self.inputs]} for tokens in TOKENS]


def detect(
    base: str | None, provider: str, threads: int | None, out: Path, listener: Listener
) -> DeviceProfile:
    """Measure this machine, and write its profile to ``out``.

    Args:
        base: profile whose other numbers are kept; None takes the board that this machine is, or
            the generic one.
        provider: ``"cpu"`` or ``"cuda"``.
        threads: threads of one operator; None takes every core.
        out: a ``.yaml`` file; it is not overwritten.
        listener: receiver of progress and notes.

    Raises:
        InputError: ``out`` exists, or is no ``.yaml`` file.
        ProviderError: the provider would not really be used.
    """
    if out.suffix not in {".yaml", ".yml"} or out.exists():
        raise InputError(
            f"{out} {'exists' if out.exists() else 'is no .yaml file'}. Expected a new .yaml file: "
            f"name one with --out."
        )
    name = base or _recognised(provider)
    fields: dict[str, Any] = yaml.safe_load(profile_path(name).read_text(encoding="utf-8"))
    device = load_profile(name)
    with Worker() as worker:
        started_bytes = worker.memory().resident_bytes
    kernels, gpu_bytes = _measure(device, provider, threads or usable_cores(), listener)
    process_bytes = started_bytes + SESSION_BYTES if provider == "cpu" else gpu_bytes
    _fill(fields, device, kernels, process_bytes, out.stem)
    out.write_text(yaml.safe_dump(fields, sort_keys=False, width=100), encoding="utf-8")
    return load_profile(str(out))


def _recognised(provider: str) -> str:
    """Name the board of the catalogue that this machine is; else the generic profile."""
    for name in profile_names():
        found = load_profile(name)
        if not found.detect.any_machine and found.provider == provider and is_this_machine(found):
            return name
    return f"generic-{provider}"


def _measure(
    device: DeviceProfile, provider: str, threads: int, listener: Listener
) -> tuple[dict[str, Any], int | None]:
    """Time all graphs in one fresh process, and put their figures together.

    Returns:
        The figures, and what the process has on the GPU in the end, where the driver tells.
    """
    kinds: tuple[WeightPrecision, ...] = (device.precision, "int8", "int4")
    # The CPU has no attention in float16: what runs there is the float32 twin.
    values = device.precision if provider == "cuda" else "float32"
    chains = [
        _Chain(weights, *sizes)
        for weights in kinds
        for sizes in combinations_with_replacement(SIZES, 2)
    ]
    with tempfile.TemporaryDirectory() as scratch, Worker() as worker:
        probes = []
        for done, probe in enumerate(_chain_probes(Path(scratch), chains, device, values), 1):
            probes.append(probe)
            listener.progress("probes", done, len(chains))
        probes += _small_probes(Path(scratch), values)
        execution = Execution(provider, threads)
        *products, (one, many), (attended,), (decoded,) = calls.call_in(
            worker, "time_graphs", probes, execution, progress=listener.progress
        )
        gpu_bytes = worker.gpu_memory() if provider == "cuda" else None
    long, width = TOKENS[-1], HEADS * HEAD_SIZE
    moved = 3 * long * WIDTH * PRECISION_BYTES[values] * NORMS
    flops = 4 * long * long * width
    return {
        "source": f"measured by edgelr {__version__} with {PACKAGES[provider]} "
        f"{environment()[PACKAGES[provider]]}, {threads} threads",
        "threads": threads,
        "node": _figure(round(one / NORMS * 1e6, 3), "us"),
        "attention_node": _figure(round(decoded / ATTENTIONS * 1e6, 3), "us"),
        "vector": _figure(round(moved / max(many - one, 1e-9) / 1e9, 3), "GB/s"),
        "attention": _figure(round(flops / attended / 1e12, 5), "TFLOPS"),
        "products": [
            [chain.weights, tokens, *sizes, round(seconds / (2 * chain.pairs) * 1e6, 3)]
            for chain, times in zip(chains, products, strict=True)
            for tokens, seconds in zip(TOKENS, times, strict=True)
            for sizes in dict.fromkeys(
                [(chain.inputs, chain.outputs), (chain.outputs, chain.inputs)]
            )
        ],
    }, gpu_bytes


def _chain_probes(
    folder: Path, chains: list[_Chain], device: DeviceProfile, values: Precision
) -> Iterator[Probe]:
    """Write the graphs of products, which are timed with empty caches."""
    for index, chain in enumerate(chains):
        path = folder / f"chain{index}.onnx"
        sizes = (chain.inputs, chain.outputs, chain.weights, chain.pairs)
        write_products(path, *sizes, device.accuracy_level, values)
        yield Probe(path, chain.shapes, cold=True)


def _small_probes(folder: Path, values: Precision) -> list[Probe]:
    """Write the graphs of norms, attention and decoding, which stay in caches."""
    norms, attention, decoding = (folder / f"small{index}.onnx" for index in range(3))
    write_norms(norms, WIDTH, NORMS, values)
    write_attention(attention, HEADS, HEAD_SIZE, values)
    write_decoding(decoding, HEADS, HEAD_SIZE, PAST, ATTENTIONS, values)
    long, width = TOKENS[-1], HEADS * HEAD_SIZE
    lengths = [{name: [1, n, WIDTH] for name in "xy"} for n in (1, long)]
    whole = [{name: [1, long, width] for name in ("query", "key", "value")}]
    return [
        Probe(norms, lengths, cold=False),
        Probe(attention, whole, cold=False),
        Probe(decoding, [{"x": [1, 1, width]}], cold=False),
    ]


def _fill(
    fields: dict[str, Any],
    device: DeviceProfile,
    kernels: dict[str, Any],
    process_bytes: int | None,
    name: str,
) -> None:
    """Replace what was measured in the fields of a profile."""
    rows = [row for row in kernels["products"] if row[0] == device.precision]
    width = 4 if device.precision == "float32" else 2
    reading = max(row[2] * row[3] * width / row[4] for row in rows if row[1] == 1)  # MB/s
    arithmetic = max(2 * row[1] * row[2] * row[3] / row[4] for row in rows)  # MFLOPS
    source = kernels["source"]
    fields |= {"id": name, "kernels": kernels}
    fields["memory"]["visible"] = _figure(round(device.memory.visible.value, 1), "MiB", source)
    if process_bytes is not None:
        runtime = round(process_bytes / MIB, 1)
        fields["memory"]["runtime"] = _figure(runtime, "MiB", source)
    fields["compute"]["bandwidth"] = _figure(round(reading / 1e3, 3), "GB/s", source)
    fields["compute"][device.precision] = _figure(round(arithmetic / 1e6, 5), "TFLOPS", source)


def _figure(value: float, unit: str, source: str = "see kernels") -> dict[str, Any]:
    return {"value": value, "unit": unit, "source": source, "verified": True}
