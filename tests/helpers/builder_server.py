"""onnxruntime-genai's builder, forked from a process that has imported it.

``python -m onnxruntime_genai.models.builder`` imports torch and transformers for five seconds, and
builds a tiny model in a fraction of one. Here the same module runs as the main module of a process
of its own, too; what it imports is there already.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT

BUILDER = "onnxruntime_genai.models.builder"


class BuilderServer:
    """Stands in for the module ``subprocess`` where the builder is run.

    Args:
        said: file that a builder's output goes to.
    """

    def __init__(self, said: Path) -> None:
        self.said = said
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, command: Sequence[str], env: Mapping[str, str], **_: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m`` of the builder: output and error output are one."""
        assert command[1:3] == ["-m", BUILDER]
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__], cwd=ROOT, env=env,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        asked = {"words": command[3:], "environment": dict(env), "said": str(self.said)}
        stdin.write(json.dumps({**asked, "folder": str(Path.cwd())}) + "\n")
        stdin.flush()
        code = int(stdout.readline())
        return subprocess.CompletedProcess(command, code, "", self.said.read_text())

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


def serve() -> None:
    """Answer every request with the exit code of a builder."""
    __import__(BUILDER)
    del sys.modules[BUILDER]  # a builder runs it again, as its main module
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            build(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def build(words: list[str], environment: dict[str, str], said: str, folder: str) -> None:
    """Run the builder in this process, and end it."""
    target = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv[1:] = words
    code = 0
    try:
        runpy.run_module(BUILDER, run_name="__main__", alter_sys=True)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
