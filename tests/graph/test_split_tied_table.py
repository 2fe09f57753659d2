"""Tables that are multiplied and gathered: several names, the same bytes, less memory at a time."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgelr.graph.save import load_graph
from edgelr.graph.split_tied_table import ALIGNMENT_BYTES, split_tied_table
from tests.helpers.foreign_graphs import Builder, run

MIB = 2**20


def tied(path: Path, rows: int, width: int, transposed: int = 1) -> Path:
    """Gather rows of a table and multiply them by it: ``(2, 3)`` ids give ``(2, 3, outputs)``."""
    build = Builder()
    build.weight("table", rows, width)
    build.node("Gather", ["table", "ids"], "x")
    build.node(
        "FusedMatMul", ["x", "table"], "y", name="head", domain="com.microsoft", transB=transposed
    )
    types = {"ids": TensorProto.INT64}
    build.save(path, {"ids": [2, 3]}, ["y"], types=types, external=True)
    model = onnx.load(path, load_external_data=False)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    outputs = rows if transposed else width
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, outputs])
    )
    onnx.save(model, path)
    return path


def places(path: Path) -> dict[str, tuple[int, int]]:
    """First byte and number of bytes of every weight."""
    found = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        stored = {entry.key: entry.value for entry in tensor.external_data}
        found[tensor.name] = int(stored.get("offset", 0)), int(stored["length"])
    return found


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tied(tmp_path / "tied.onnx", 600, 64)


IDS = np.array([[0, 255, 256], [511, 512, 599]])


def test_pieces_are_at_the_place_of_the_table_and_give_the_same(path: Path) -> None:
    before, sidecar = run(path, ids=IDS), places(path)["table"]
    split_tied_table(path, piece_bytes=70_000)  # 273 rows, of which whole pages have 256
    found = places(path)
    assert found.pop("table") == sidecar
    assert list(found) == ["table.product_0", "table.product_1", "table.product_2"]
    assert [length for _, length in found.values()] == [65536, 65536, 22528]
    assert all((begin - sidecar[0]) % ALIGNMENT_BYTES == 0 for begin, _ in found.values())
    assert operators(path) == {"Gather": 1, "FusedMatMul": 3, "Concat": 1}
    onnx.checker.check_model(str(path))
    np.testing.assert_allclose(run(path, ids=IDS)[0], before[0], atol=1e-5)


def test_a_small_table_has_one_more_name(path: Path) -> None:
    split_tied_table(path)
    found = places(path)
    assert found["table"] == found["table.product"]
    assert operators(path) == {"Gather": 1, "FusedMatMul": 1}


def test_a_product_with_a_table_as_it_lies_stays_whole(tmp_path: Path) -> None:
    path = tied(tmp_path / "square.onnx", 512, 512, transposed=0)
    split_tied_table(path, piece_bytes=70_000)
    assert list(places(path)) == ["table", "table.product"]


@pytest.mark.parametrize("piece_bytes", [70_000, 10**9])
def test_a_graph_that_is_read_has_one_table_and_one_product(path: Path, piece_bytes: int) -> None:
    split_tied_table(path, piece_bytes)
    model = load_graph(path)
    assert list(model.graph.initializers) == ["table"]
    gather, product = model.graph
    assert (gather.op_type, product.op_type) == ("Gather", "FusedMatMul")
    assert product.inputs[1] is model.graph.initializers["table"]
    assert product.attributes["transB"].as_int() == 1
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert product.outputs[0] is model.graph.outputs[0]


def test_other_values_that_are_put_together_stay(tmp_path: Path) -> None:
    """Two products with two tables are not one with both."""
    build = Builder()
    for name in ("a", "b"):
        build.weight(name, 40, 64)
        build.node("FusedMatMul", ["x", name], f"{name}x", domain="com.microsoft", transB=1)
    build.node("Concat", ["ax", "bx"], "y", axis=-1)
    path = build.save(tmp_path / "two.onnx", {"x": [3, 64]}, ["y"], external=True)
    kinds = [node.op_type for node in load_graph(path).graph]
    assert kinds == ["FusedMatMul", "FusedMatMul", "Concat"]


def test_pieces_that_multiply_other_values_stay(path: Path) -> None:
    split_tied_table(path, piece_bytes=70_000)
    model = onnx.load(path, load_external_data=False)
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [2, 3, 64]))
    model.graph.node[2].input[0] = "other"
    onnx.save(model, path)
    kinds = Counter(node.op_type for node in load_graph(path).graph)
    assert kinds == {"Gather": 1, "FusedMatMul": 3, "Concat": 1}


LOADS = """
import sys
from pathlib import Path

from edgelr.runtime.memory import read_memory
from edgelr.runtime.requests import Execution
from edgelr.runtime.session import open_session

before = read_memory().resident_bytes
session = open_session(Path(sys.argv[1]), Execution(threads=1))
print(read_memory().peak_bytes - before)
"""


@pytest.mark.whole
def test_less_of_a_table_is_in_memory_twice_while_it_is_packed(tmp_path: Path) -> None:
    found = []
    for pieces in (1, 4):
        path = tied(tmp_path / f"{pieces}.onnx", 49152, 256)  # 48 MiB
        split_tied_table(path, 48 * MIB // pieces)
        command = [sys.executable, "-c", LOADS, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(int(done.stdout) / MIB)
    whole, parts = found
    assert whole == pytest.approx(96 + 16, abs=16)  # with what a session takes for itself
    assert parts == pytest.approx(60 + 16, abs=16)
