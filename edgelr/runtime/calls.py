"""Validation and sampling in a fresh process, so that its memory is given back.

Each function does in a child what the function of the same name does here, and may be called
where neither ONNX Runtime nor its memory is wanted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from edgelr.core.bundle import ExportBundle
from edgelr.core.measurement import OperatorTime
from edgelr.core.results import Metric, Parity
from edgelr.data.tensors import SAMPLES
from edgelr.data.text import EvaluationSize
from edgelr.runtime.evaluators import Progress
from edgelr.runtime.worker_client import Worker


def accuracy(
    reference: ExportBundle,
    candidate: ExportBundle,
    text: Path | None = None,
    provider: str = "cpu",
    size: EvaluationSize | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Run ``validate.accuracy`` in a child."""
    if candidate.manifest.task == "tensors":
        inputs = text or candidate.folder / SAMPLES
        return tensor_accuracy(reference, candidate, inputs, provider, threads, progress)
    arguments = {
        "reference": _path(reference),
        "candidate": _path(candidate),
        "text": str(text.resolve()) if text else None,
        "provider": provider,
        "size": asdict(size or EvaluationSize()),
        "threads": threads,
    }
    answer = _call("accuracy", arguments, progress)
    return TypeAdapter(tuple[Metric, ...]).validate_python(answer)


def tensor_accuracy(
    reference: ExportBundle,
    candidate: ExportBundle,
    inputs: Path,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Run ``tensors.accuracy`` in a child."""
    arguments = {
        "reference": _path(reference),
        "candidate": _path(candidate),
        "inputs": str(inputs.resolve()),
        "provider": provider,
        "threads": threads,
    }
    answer = _call("tensor_accuracy", arguments, progress)
    return TypeAdapter(tuple[Metric, ...]).validate_python(answer)


def parity(
    bundle: ExportBundle,
    answers: Path,
    provider: str = "cpu",
    limit: float = 1e-3,
    threads: int | None = None,
) -> Parity:
    """Run ``validate.parity`` in a child."""
    arguments = {
        "bundle": _path(bundle),
        "answers": str(answers.resolve()),
        "provider": provider,
        "limit": limit,
        "threads": threads,
    }
    return Parity(**_call("parity", arguments))


def twin_error(
    shipped: ExportBundle,
    twin: ExportBundle,
    answers: Path,
    threads: int | None = None,
) -> float:
    """Run ``validate.twin_error`` in a child."""
    arguments = {
        "shipped": _path(shipped),
        "twin": _path(twin),
        "answers": str(answers.resolve()),
        "threads": threads,
    }
    return float(_call("twin_error", arguments))


def operators(
    bundle: ExportBundle,
    tokens: int,
    provider: str = "cpu",
    threads: int | None = None,
    runs: int = 10,
) -> list[OperatorTime]:
    """Profile the reading of ``tokens``: where every operator ran, and how long it took.

    Of a decoder beside an encoder: a step of the decoder. Of what reads images beside what reads
    texts: an image.
    """
    decodes = bundle.manifest.task == "text-generation"
    pairs = bundle.encoder_path is not None and bundle.manifest.matching is None
    run = {
        "phase": "decode" if pairs else "prefill" if decodes else "forward",
        "batch": 1,
        "tokens": 1 if pairs else bundle.manifest.tokens_read(tokens),
        "context_tokens": 0,
    }
    arguments = {"folder": _path(bundle), "provider": provider, "threads": threads, "runs": runs}
    return TypeAdapter(list[OperatorTime]).validate_python(_call("operators", arguments | run))


def write_references(
    original: ExportBundle, bundle: ExportBundle, text: Path | None, folder: Path
) -> None:
    """Run ``references.write_references`` in a child."""
    arguments = {
        "original": _path(original),
        "bundle": _path(bundle),
        "text": str(text.resolve()) if text else None,
        "folder": str(folder.resolve()),
    }
    _call("write_references", arguments)


def sample_tokens(
    bundle: ExportBundle,
    count_tokens: int,
    length: int,
    batch: int,
    seed: int,
    prefix: Sequence[int] = (),
    temperature: float = 1.0,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Run ``sampling.sample_tokens`` in a child."""
    arguments = {
        "bundle": _path(bundle),
        "count_tokens": count_tokens,
        "length": length,
        "batch": batch,
        "seed": seed,
        "prefix": list(prefix),
        "temperature": temperature,
        "provider": provider,
        "threads": threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tokens.npy"
        _call("sample_tokens", {**arguments, "out": str(out)}, progress)
        rows: NDArray[np.int64] = np.load(out, allow_pickle=False)
    return rows


def _call(function: str, arguments: dict[str, Any], progress: Progress | None = None) -> Any:
    with Worker() as worker:
        return worker.call(function, arguments, progress)


def _path(bundle: ExportBundle) -> str:
    return str(bundle.folder.resolve())
