"""A process that runs graphs for another one: JSON objects on stdin and stdout, one per line.

Memory is honest only in a fresh process, and ONNX Runtime does not give any back. A request is
``{"op": name, ...}``. Its answers are any number of ``{"progress": [what, done, total]}``, then
``{"result": value}`` or ``{"error": {"type": name, "message": text}}``. The end of the input ends
the process; so does a bug, with its traceback on stderr.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from edgelr.core.bundle import read_bundle
from edgelr.core.errors import EdgelrError
from edgelr.core.vocabulary import Progress
from edgelr.data.text import EvaluationSize
from edgelr.runtime.memory import limit_data, read_gpu_memory, read_memory
from edgelr.runtime.timed_session import Bench
from edgelr.runtime.worker_client import PIECE_TOKENS

Answer = Callable[[dict[str, Any]], None]


class Server:
    """Answers requests; holds the graph that ``open`` loaded."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._bench: Bench | None = None
        self._operations: dict[str, Callable[..., Any]] = {
            "open": self._open,
            "run": self._run,
            "memory": read_memory,
            "gpu_memory": read_gpu_memory,
            "limit_data": limit_data,
            "call": self._call,
        }

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one request."""
        operation = self._operations[request.pop("op")]
        try:
            result = operation(**request)
        except MemoryError as error:
            message = f"There was not enough memory: {error or 'an allocation failed'}."
            self._answer({"error": {"type": "EnvironmentProblem", "message": message}})
        except EdgelrError as error:
            self._answer({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            self._answer({"result": to_jsonable_python(result)})

    def _open(self, folder: str, **options: Any) -> dict[str, Any]:
        baseline = read_memory()
        self._bench = Bench(Path(folder), **options)
        session = self._bench.session
        return {
            "provider": session.provider,
            "threads": session.threads,
            "load_ms": session.load_ms,
            "baseline_bytes": baseline.resident_bytes,
        }

    def _run(self, **phase: Any) -> dict[str, float]:
        assert self._bench is not None, "run before open"
        return {"ms": self._bench.run_ms(**phase)}

    def _call(self, function: str, arguments: dict[str, Any]) -> Any:
        return _FUNCTIONS[function](self._progress, **arguments)

    def _progress(self, what: str, done: int, total: int) -> None:
        self._answer({"progress": [what, done, total]})


def _accuracy(
    progress: Progress,
    reference: str,
    candidate: str,
    text: str | None,
    size: dict[str, int],
    **options: Any,
) -> Any:
    from edgelr.runtime.validate import accuracy

    return accuracy(
        read_bundle(Path(reference)),
        read_bundle(Path(candidate)),
        Path(text) if text else None,
        size=EvaluationSize(**size),
        progress=progress,
        **options,
    )


def _tensor_accuracy(
    progress: Progress, reference: str, candidate: str, inputs: str, **options: Any
) -> Any:
    from edgelr.runtime.runners.tensors import accuracy

    first, second = (read_bundle(Path(folder)) for folder in (reference, candidate))
    return accuracy(first, second, Path(inputs), progress=progress, **options)


def _parity(_progress: Progress, bundle: str, answers: str, **options: Any) -> Any:
    from edgelr.runtime.validate import parity

    return parity(read_bundle(Path(bundle)), Path(answers), **options)


def _twin_error(_progress: Progress, shipped: str, twin: str, answers: str, **options: Any) -> Any:
    from edgelr.runtime.validate import twin_error

    pair = (read_bundle(Path(shipped)), read_bundle(Path(twin)))
    return twin_error(*pair, Path(answers), **options)


def _write_references(
    _progress: Progress, original: str, bundle: str, text: str | None, folder: str
) -> None:
    from edgelr.runtime.reference_tests.write import write_references

    pair = (read_bundle(Path(original)), read_bundle(Path(bundle)))
    write_references(*pair, Path(text) if text else None, Path(folder))


def _sample_tokens(progress: Progress, bundle: str, out: str, **options: Any) -> None:
    from edgelr.runtime.sampling import sample_tokens

    np.save(out, sample_tokens(read_bundle(Path(bundle)), progress=progress, **options))


def _operators(
    _progress: Progress, folder: str, provider: str, threads: int | None, runs: int, **run: Any
) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        nodes = Path(scratch) / "nodes"
        bench = Bench(Path(folder), provider, threads, PIECE_TOKENS, profile=nodes)
        for _ in range(runs):
            bench.run_ms(**run)
        return to_jsonable_python(bench.session.end_profile())


def _time_graphs(progress: Progress, jobs: Any, **options: Any) -> Any:
    from edgelr.runtime.time_probes import time_graphs

    return time_graphs(progress, jobs, **options)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "accuracy": _accuracy,
    "tensor_accuracy": _tensor_accuracy,
    "parity": _parity,
    "twin_error": _twin_error,
    "write_references": _write_references,
    "sample_tokens": _sample_tokens,
    "time_graphs": _time_graphs,
    "operators": _operators,
}


def main() -> None:
    """Serve stdin until it ends. What libraries print goes to stderr, and never between answers."""
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        stdout.write(json.dumps(value) + "\n")

    server = Server(answer)
    for line in sys.stdin:
        server.serve(json.loads(line))


if __name__ == "__main__":
    main()
