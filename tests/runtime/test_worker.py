"""The worker's own side: a process that answers requests until its input ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.runtime.messages import packed
from edgelr.runtime.requests import Execution, TextRequest, TimedInputs, TimedPhase
from edgelr.runtime.worker import Server
from tests.helpers.paths import ROOT
from tests.helpers.runtime_graphs import decoder_model, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "decoder", decoder_model())


def answers(*requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Serve requests in this process, as they would cross the pipe."""
    found: list[dict[str, Any]] = []
    server = Server(lambda value: found.append(json.loads(json.dumps(value))))
    for request in requests:
        server.serve(json.loads(json.dumps(packed(request))))
    return found


def test_a_bundle_is_opened_and_run(bundle: ExportBundle) -> None:
    opened, ran = answers(
        {
            "op": "open",
            "folder": bundle,
            "execution": Execution(threads=1),
            "inputs": TimedInputs(),
        },
        {"op": "run", "phase": TimedPhase("decode", 1, 1, 9)},
    )
    assert opened["result"]["provider"] == "CPUExecutionProvider"
    assert opened["result"]["threads"] == 1
    assert opened["result"]["baseline_bytes"] > 1 << 20
    assert ran["result"] > 0


def test_a_call_tells_its_progress_before_its_result(bundle: ExportBundle) -> None:
    request = TextRequest(8, 4, 1, seed=0)
    *progress, result = answers(
        {"op": "call", "name": "sample_tokens", "arguments": [bundle, request], "named": {}}
    )
    assert [each["progress"][:2] for each in progress] == [
        ["sample", done] for done in (2, 3, 4, 6, 7, 8)
    ]
    assert len(result["result"]) == 2


def test_an_error_that_a_user_can_mend_keeps_its_class(bundle: ExportBundle) -> None:
    bundle.model_path.unlink()
    call = {"op": "call", "name": "operators", "arguments": [bundle, 8], "named": {}}
    (found,) = answers(call)
    assert found["error"]["type"] == "InputError"
    assert "is missing" in found["error"]["message"]


def test_a_worker_whose_parent_is_gone_ends() -> None:
    command = [sys.executable, "-m", "edgelr.runtime.worker"]
    done = subprocess.run(command, cwd=ROOT, input="", capture_output=True, timeout=60, check=True)
    assert done.stdout == b""
