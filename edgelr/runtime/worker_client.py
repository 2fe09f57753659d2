"""The parent's side of a worker process. Importing this loads no ONNX Runtime."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import EdgelrError, EnvironmentProblem
from edgelr.core.vocabulary import Progress
from edgelr.runtime.memory import ProcessMemory
from edgelr.runtime.messages import packed
from edgelr.runtime.requests import ON_CPU, RANDOM_INPUTS, Execution, TimedInputs, TimedPhase

_ROOT = Path(__file__).parents[2]  # the worker must import the same edgelr as its parent
_CLOSE_SECONDS = 5.0
_KINDS: list[type[EdgelrError]] = [EdgelrError, *EdgelrError.__subclasses__()]
_ERRORS = {kind.__name__: kind for kind in _KINDS}


@dataclass(frozen=True, slots=True)
class Opened:
    """What a worker found when it loaded a graph."""

    provider: str
    threads: int
    load_ms: float
    baseline_bytes: int


class Worker:
    """A fresh process that runs graphs; a context manager that never leaves it behind.

    The process is in a session of its own, so that an interrupt reaches only the parent, which
    kills it.
    """

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgelr.runtime.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            encoding="utf-8",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stdin, stdout = self._pipes()
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            stdin.close()  # the worker ends with its input
            self._process.wait(0 if error else _CLOSE_SECONDS)
        self._process.kill()
        self._process.wait()
        stdout.close()
        self._errors.close()

    def open(
        self,
        bundle: ExportBundle,
        execution: Execution = ON_CPU,
        inputs: TimedInputs = RANDOM_INPUTS,
    ) -> Opened:
        """Load the graphs of a bundle, for runs on these inputs."""
        return Opened(**self._request("open", folder=bundle, execution=execution, inputs=inputs))

    def limit_data(self, more_bytes: int) -> None:
        """Let the process take that much more memory of its own, and no more (RLIMIT_DATA)."""
        self._request("limit_data", more_bytes=more_bytes)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def run_ms(self, phase: TimedPhase) -> float:
        """Time one run of a phase, in milliseconds."""
        return float(self._request("run", phase=phase))

    def memory(self) -> ProcessMemory:
        """Read the worker's memory."""
        return ProcessMemory(**self._request("memory"))

    def gpu_memory(self) -> int | None:
        """Read the worker's bytes on the GPUs; None where the driver does not tell."""
        answer = self._request("gpu_memory")
        return None if answer is None else int(answer)

    def call(
        self,
        name: str,
        arguments: Sequence[Any],
        named: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> Any:
        """Run a function of ``calls.CALLS``; return its result as JSON has it."""
        return self._request("call", progress, name=name, arguments=arguments, named=named)

    def _request(self, op: str, progress: Progress | None = None, **fields: Any) -> Any:
        """Send a request and wait for its answer.

        Raises:
            EdgelrError: what the worker raised, of the same class; or a signal ended it.
            ModuleNotFoundError: the worker lacks a package.
            RuntimeError: the worker has a bug; the message holds its traceback.
        """
        stdin, stdout = self._pipes()
        try:
            stdin.write(json.dumps({"op": op, **packed(fields)}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._death(op) from None
        for line in stdout:
            answer = json.loads(line)
            if "error" in answer:
                raise _ERRORS[answer["error"]["type"]](answer["error"]["message"])
            if "result" in answer:
                return answer["result"]
            if progress:
                progress(*answer["progress"])
        raise self._death(op)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        return stdin, stdout

    def _death(self, op: str) -> Exception:
        code = self._process.wait()
        self._errors.seek(0)
        last_words = self._errors.read().decode(errors="replace").strip()
        missing = re.search(r"^ModuleNotFoundError: (.* '([\w.]+)')$", last_words, re.MULTILINE)
        if missing:
            return ModuleNotFoundError(missing[1], name=missing[2])
        if code >= 0:
            return RuntimeError(f"the worker ended with code {code} at {op!r}:\n{last_words}")
        name = signal.Signals(-code).name
        found = f"The worker process was killed by {name} at {op!r}. {last_words[-400:]}".strip()
        if name == "SIGKILL":
            return EnvironmentProblem(
                f"{found} Expected enough memory for the model: the system kills a process when "
                f"there is none left. Close other programs, or use shorter or smaller batches."
            )
        return EdgelrError(
            f"{found} Expected a graph that ONNX Runtime can run. Export the model again; if it "
            f"happens again, try another version of ONNX Runtime."
        )
