"""Settings, inputs and graphs that do not fit are refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from tests.helpers.foreign_graphs import Builder, random
from tests.helpers.graph_exports import planned

pytestmark = pytest.mark.whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 2, "recipe": "svd"}, "--recipe, --rounds cannot be used with an ONNX graph"),
        ({"forms": ("pivoted",)}, "linears of an ONNX graph can be dense or low_rank"),
        ({"task": "text-generation"}, "an ONNX graph has the task tensors"),
        ({"precision": "float16"}, "the weights of .* are float32"),
        ({"calibration": ("a.npz", "b.npz")}, "--calibration is given 2 times"),
    ],
)
def test_settings_that_do_not_apply_are_refused(
    options: dict[str, object], message: str, graph: Path, graph_inputs: Path, graph_cache: Cache
) -> None:
    if "calibration" in options:
        options = {"calibration": (str(graph_inputs),) * 2}
    with pytest.raises(InputError, match=message):
        planned(graph, graph_cache, **options)


def test_one_sample_is_not_enough(graph: Path, graph_cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=random(1, 48))
    with pytest.raises(InputError, match="holds one sample"):
        planned(graph, graph_cache, calibration=(str(path),))
    other = tmp_path / "other.npz"
    np.savez(other, x=random(1, 48, seed=2))
    planned(graph, graph_cache, calibration=(str(path),), evaluation=str(other), keep=0.9)


def test_a_graph_without_linears_is_refused(tmp_path: Path, graph_cache: Cache) -> None:
    build = Builder()
    build.node("Tanh", ["x"], "y")
    path = build.save(tmp_path / "tanh.onnx", {"x": [1, 4]}, ["y"])
    with pytest.raises(InputError, match="has no linear that can be factorized"):
        planned(path, graph_cache)


def test_linears_that_are_left_are_named_where_none_is_found(
    tmp_path: Path, graph_cache: Cache
) -> None:
    build = Builder()
    value = "x"
    for index in range(12):
        build.weight(f"w{index}", 2, 5, 5)
        value = build.node("MatMul", [value, f"w{index}"], f"h{index}", name=f"batch{index}")
    path = build.save(tmp_path / "batches.onnx", {"x": [2, 3, 5]}, [value])
    with pytest.raises(InputError) as error:
        planned(path, graph_cache)
    text = str(error.value)
    assert "batch0 (its weight is a batch of 2 matrices), batch1" in text
    assert "batch9 (its weight is a batch of 2 matrices), and 2 more of 12. Expected" in text


def test_a_graph_without_float_outputs_is_refused(tmp_path: Path, graph_cache: Cache) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "h")
    build.node("ArgMax", ["h"], "y")
    path = build.save(
        tmp_path / "labels.onnx", {"x": [1, 12]}, ["y"], types={"y": TensorProto.INT64}
    )
    with pytest.raises(InputError, match="has no output of floating-point numbers"):
        planned(path, graph_cache)
