"""Small graphs are timed on random inputs, several times over."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import save

from edgelr.runtime import time_probes
from edgelr.runtime.requests import Execution, Probe
from tests.helpers.runtime_graphs import tensors_model


def test_the_fastest_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([[3.0, 1.0], [5.0], [2.0, 4.0], [6.0], [4.0, 2.0], [1.0]])
    monkeypatch.setattr(time_probes, "time_graph", lambda *_: next(times))
    probes = [
        Probe(Path("a"), [{"x": [1]}, {"x": [2]}], cold=True),
        Probe(Path("b"), [{"x": [1]}], cold=False),
    ]
    told: list[tuple[str, int, int]] = []
    found = time_probes.time_graphs(probes, progress=lambda *call: told.append(call))
    assert found == [[2.0, 1.0], [1.0]]
    assert told == [("kernels", done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("cold", [True, False])
def test_every_set_of_shapes_has_a_time(tmp_path: Path, cold: bool) -> None:
    path = tmp_path / "model.onnx"
    save(tensors_model(), path)
    probe = Probe(path, [{"x": [1, 3]}, {"x": [1, 3]}], cold)
    found = time_probes.time_graph(probe, Execution(threads=1))
    assert len(found) == 2
    assert all(0 < seconds < 1 for seconds in found)
