"""One bundle that is timed run by run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgelr.runtime.requests import Execution, TimedInputs, TimedPhase
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.timed_session import TimedSession
from tests.helpers.runtime_bundles import write_modality


def test_inputs_are_made_before_the_clock_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder")

    def prepare(*_: object) -> Callable[[], object]:
        time.sleep(0.2)
        return lambda: time.sleep(0.01)

    monkeypatch.setattr(DecoderRunner, "prepare", prepare)
    found = TimedSession(bundle, Execution()).run_ms(TimedPhase("prefill", 1, 8))
    assert 10 <= found < 150


def test_a_context_is_filled_once_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder")
    session, lengths = TimedSession(bundle, Execution(), TimedInputs(piece_tokens=5)), []
    logits = DecoderRunner.logits

    def recorded(self: DecoderRunner, input_ids: object, *rest: object, **named: object) -> object:
        lengths.append(input_ids.shape)  # type: ignore[attr-defined]
        return logits(self, input_ids, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(DecoderRunner, "logits", recorded)
    for _ in range(2):
        session.run_ms(TimedPhase("decode", 2, 1, 12))
    assert lengths == [(2, 5), (2, 5), (2, 2), (2, 1), (2, 1)]
