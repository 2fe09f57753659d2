"""The original graph as a bundle: what a compressed one is judged against again."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.commands.validate import validate_again
from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.runtime import measure

pytestmark = pytest.mark.whole


def test_a_bundle_is_measured_and_judged_again(
    graph_bundle: ExportBundle,
    graph: Path,
    graph_inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    graph_cache: Cache,
) -> None:
    monkeypatch.setenv("EDGELR_CACHE", str(graph_cache.root))
    found = measure.measure_one(graph_bundle, repetitions=3)
    assert [phase.key for phase in found.phases] == ["forward"]
    own = validate_again(graph_bundle, None, None, None, "cpu", Run(graph_cache))
    given = validate_again(graph_bundle, str(graph), graph_inputs, 1e-9, "cpu", Run(graph_cache))
    assert own.passed
    assert not given.passed
    assert given.metrics[0].samples == 192
