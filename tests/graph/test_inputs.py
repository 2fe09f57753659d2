"""Inputs of foreign graphs: their types, shapes, and the tables that they are indices into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from edgelr.graph.inputs import read_inputs
from edgelr.graph.open import open_foreign
from tests.helpers.foreign_graphs import Builder


def test_indices_are_known_by_the_smallest_table_that_they_reach(tmp_path: Path) -> None:
    build = Builder()
    build.weight("large", 50, 8)
    build.weight("small", 30, 8)
    build.weight("columns", 8, 5)
    build.node("Gather", ["large", "ids"], "a")
    build.node("Cast", ["ids"], "cast", to=TensorProto.INT32)
    build.node("Gather", ["small", "cast"], "b")
    build.node("Gather", ["columns", "places"], "c", axis=1)
    build.node("Cast", ["mask"], "m", to=TensorProto.FLOAT)
    build.node("Add", ["a", "b"], "y")
    types = dict.fromkeys(("ids", "mask", "places"), TensorProto.INT64)
    path = build.save(
        tmp_path / "tables.onnx",
        {"ids": ["batch", 4], "mask": ["batch", 4], "places": [2]},
        ["y", "c", "m"],
        types=types,
    )
    found = {each.name: each for each in read_inputs(open_foreign(path))}
    assert {name: each.rows for name, each in found.items()} == {
        "ids": 30, "mask": None, "places": 5,
    }  # fmt: skip
    assert found["ids"].shape == ("batch", 4)
    assert found["ids"].dtype == np.int64


def test_weights_are_no_inputs_and_free_axes_keep_their_names(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "h")
    build.node("Where", ["mask", "h", "other"], "y")
    path = build.save(
        tmp_path / "inputs.onnx",
        {"x": ["rows", 12], "w": [12, 20], "mask": [], "other": [1, 20]},
        ["y"],
        types={"mask": TensorProto.BOOL},
    )
    found = {each.name: (each.dtype, each.shape) for each in read_inputs(open_foreign(path))}
    assert found == {
        "x": (np.float32, ("rows", 12)),
        "mask": (np.bool_, ()),
        "other": (np.float32, (1, 20)),
    }


def test_what_numpy_has_no_type_for_is_an_object(tmp_path: Path) -> None:
    build = Builder()
    build.node("Identity", ["text"], "y")
    types = dict.fromkeys(("text", "y"), TensorProto.STRING)
    path = build.save(tmp_path / "text.onnx", {"text": [None]}, ["y"], types=types)
    (found,) = read_inputs(open_foreign(path))
    assert (found.dtype, found.shape) == (np.object_, (None,))
