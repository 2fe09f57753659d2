"""What stands in the place of a linear: one weight for each name, and types that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.core.errors import EdgelrError
from edgelr.graph.emitter import Emitter
from edgelr.graph.nodes import MICROSOFT, replace_node
from edgelr.graph.save import save_graph
from tests.helpers.single_node import NEWEST, one_node, outputs_of

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((48, 40)).astype(np.float32)


def emitter(
    blocks: dict[str, Blocks] | None = None, op: str = "MatMul"
) -> tuple[ir.Model, Emitter]:
    node = helper.make_node(op, ["x", "w"], ["y"], "/site/MatMul")
    model = one_node(node, {"w": WEIGHT}, 48)
    return model, Emitter(model.graph, model.graph[0], "site", blocks or {}, accuracy_level=1)


def finished(model: ir.Model, path: Path, last: ir.Value) -> Path:
    """Let ``last`` be what the graph answers."""
    old, new = model.graph[-1], ir.node("Identity", [last], name="last")
    assert old.op_type == "MatMul"
    replace_node(model.graph, old, new)
    save_graph(model, path, NEWEST, NEWEST)
    return path


def test_a_product_multiplies_with_the_matrix_that_it_is_given(tmp_path: Path) -> None:
    model, made = emitter()
    x = model.graph.inputs[0]
    product = made.product(x, "up", 2 * WEIGHT)
    assert product.name == "/site/MatMul/up/output_0"
    assert product.dtype == made.node.outputs[0].dtype
    given = RANDOM.standard_normal((3, 48)).astype(np.float32)
    path = finished(model, tmp_path / "product.onnx", product)
    np.testing.assert_allclose(outputs_of(path, given), given @ (2 * WEIGHT), atol=1e-4)


def test_a_matrix_that_is_stored_in_whole_numbers_is_multiplied_with_as_such(
    tmp_path: Path,
) -> None:
    stored = quantize(WEIGHT, "int4")
    model, made = emitter({"group.down": stored})
    product = made.product(model.graph.inputs[0], "down", WEIGHT, owner="group")
    node = product.producer()
    assert node is not None
    assert (node.op_type, node.domain) == ("MatMulNBits", MICROSOFT)
    assert "group.down.zero_points" in model.graph.initializers
    given = RANDOM.standard_normal((3, 48)).astype(np.float32)
    path = finished(model, tmp_path / "blocks.onnx", product)
    np.testing.assert_allclose(outputs_of(path, given), given @ stored.dense(), atol=1e-3)


def test_a_group_stores_what_its_sites_share_once() -> None:
    model, made = emitter()
    first = made.weight("down", WEIGHT, owner="group")
    again = Emitter(model.graph, made.node, "other", {}, 1).weight("down", WEIGHT, owner="group")
    assert first is again
    assert made.weight("down", WEIGHT) is not first
    assert {"group.down", "site.down"} <= set(model.graph.initializers)


def test_parts_of_the_last_axis_have_the_sizes_that_are_asked_for(tmp_path: Path) -> None:
    model, made = emitter()
    parts = made.split(model.graph.inputs[0], [8, 30, 10])
    assert len({part.name for part in parts}) == 3
    assert {part.dtype for part in parts} == {made.node.outputs[0].dtype}
    given = RANDOM.standard_normal((3, 48)).astype(np.float32)
    path = finished(model, tmp_path / "split.onnx", parts[1])
    np.testing.assert_array_equal(outputs_of(path, given), given[:, 8:38])


def test_axes_are_counted_by_whatever_tells_of_them() -> None:
    model, made = emitter()
    x = model.graph.inputs[0]
    assert made.axes(x) == 2
    x.shape = made.node.outputs[0].shape = None
    with pytest.raises(EdgelrError, match="does not say how many axes the input of site has"):
        made.axes(x)
    model, gemm = emitter(op="Gemm")
    model.graph.inputs[0].shape = gemm.node.outputs[0].shape = None
    assert gemm.axes(model.graph.inputs[0]) == 2
