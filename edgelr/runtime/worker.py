"""A process that runs graphs for another one: JSON objects on stdin and stdout, one per line.

Memory is honest only in a fresh process, and ONNX Runtime does not give any back. A request is
``{"op": name, ...}``. Its answers are any number of ``{"progress": [what, done, total]}``, then
``{"result": value}`` or ``{"error": {"type": name, "message": text}}``. The end of the input ends
the process; so does a bug, with its traceback on stderr.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from edgelr.core.bundle import read_bundle
from edgelr.core.errors import EdgelrError
from edgelr.core.problems import told_problems
from edgelr.runtime.calls import CALLS
from edgelr.runtime.memory import limit_data, read_gpu_memory, read_memory
from edgelr.runtime.messages import packed, unpacked
from edgelr.runtime.requests import Execution, TimedInputs, TimedPhase
from edgelr.runtime.runners import RUNNERS
from edgelr.runtime.timed_session import TimedSession

Answer = Callable[[dict[str, Any]], None]


class Server:
    """Answers requests; holds the bundle that ``open`` loaded."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._timed: TimedSession | None = None
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
            with told_problems():
                result = operation(**request)
        except EdgelrError as error:
            self._answer({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            self._answer({"result": packed(result)})

    def _open(
        self, folder: str, execution: dict[str, Any], inputs: dict[str, Any]
    ) -> dict[str, Any]:
        baseline = read_memory()
        asked = unpacked(Execution, execution), unpacked(TimedInputs, inputs)
        self._timed = TimedSession(read_bundle(Path(folder)), *asked)
        session = self._timed.session
        return {
            "provider": session.provider,
            "threads": session.threads,
            "load_ms": session.load_ms,
            "baseline_bytes": baseline.resident_bytes,
        }

    def _run(self, phase: dict[str, Any]) -> float:
        assert self._timed is not None, "run before open"
        return self._timed.run_ms(TimedPhase(**phase))

    def _call(self, name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Run a function on what its annotations say that the arguments are."""
        function = getattr(import_module(f"edgelr.runtime.{CALLS[name].module}"), name)
        parameters, kinds = inspect.signature(function).parameters, get_type_hints(function)
        given = dict(zip(parameters, arguments, strict=False)) | named
        values = {each: unpacked(kinds[each], value) for each, value in given.items()}
        if "progress" in parameters:
            values["progress"] = self._progress
        return function(**values)

    def _progress(self, what: str, done: int, total: int) -> None:
        self._answer({"progress": [what, done, total]})


def main() -> None:
    """Serve stdin until it ends. What libraries print goes to stderr, and never between answers."""
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        stdout.write(json.dumps(value) + "\n")

    import_module("edgelr.runtime.session")  # a baseline has to hold all that is loaded later
    RUNNERS.names()
    server = Server(answer)
    for line in sys.stdin:
        server.serve(json.loads(line))


if __name__ == "__main__":
    main()
