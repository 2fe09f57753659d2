"""Graphs of a bundle are opened together, and drawn inputs are always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.runtime.graphs import open_graph, open_graphs, random_ids, random_values
from edgelr.runtime.requests import Execution
from tests.helpers.runtime_bundles import write_modality


def test_the_graph_that_answers_comes_first_and_both_took_their_time(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "encoder_decoder")
    session, beside = open_graphs(bundle, Execution(threads=1, profile=tmp_path / "nodes"))
    assert "logits" in session.outputs
    assert "present.0.encoder.key" in beside.outputs
    assert session.load_ms > beside.load_ms > 0
    assert len(list(tmp_path.glob("nodes*"))) == 1, "only the first is profiled"


def test_a_bundle_of_one_graph_has_none_beside_it(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "text_encoder")
    assert "last_hidden_state" in open_graph(bundle, Execution()).outputs
    with pytest.raises(AssertionError, match="one graph"):
        open_graphs(bundle, Execution())


def test_drawn_inputs_are_always_the_same() -> None:
    ids, values = random_ids(11, 2, 50), random_values(2, 3, 4)
    np.testing.assert_array_equal(ids, random_ids(11, 2, 50))
    np.testing.assert_array_equal(values, random_values(2, 3, 4))
    assert (ids.shape, set(ids.ravel())) == ((2, 50), set(range(11)))
    assert (values.shape, values.dtype) == ((2, 3, 4), np.float32)
