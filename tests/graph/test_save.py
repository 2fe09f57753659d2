"""Files for older runtimes: an operator set is lowered only where nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edgelr.core.errors import EdgelrError
from edgelr.graph.save import save_graph
from tests.helpers.single_node import NEWEST, one_node, outputs_of

RANDOM = np.random.default_rng(0)


def test_an_operator_that_stayed_the_same_may_be_lowered(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = one_node(node, {"w": np.ones((48, 8), np.float32)}, 48, opset=23)
    save_graph(model, tmp_path / "old.onnx", 17, 8)
    found = onnx.load(tmp_path / "old.onnx")
    assert (found.opset_import[0].version, found.ir_version) == (17, 8)
    assert outputs_of(tmp_path / "old.onnx", np.ones((2, 48), np.float32)).shape == (2, 8)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [("RMSNormalization", ["x", "s"], {}), ("ReduceSum", ["x", "axes"], {"keepdims": 1})],
)
def test_an_operator_that_changed_is_refused(
    tmp_path: Path, operator: str, inputs: list[str], attributes: dict[str, int]
) -> None:
    weights = {"s": np.ones(48, np.float32), "axes": np.array([1], np.int64)}
    node = helper.make_node(operator, inputs, ["y"], "it", **attributes)
    model = one_node(node, {inputs[1]: weights[inputs[1]]}, 48, opset=23)
    with pytest.raises(EdgelrError, match=f"{operator} of 'it' changed between opset 11 and 23"):
        save_graph(model, tmp_path / "old.onnx", 11, NEWEST)
