"""Linears of foreign graphs: found with their shapes, or left alone with a reason."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto

from edgelr.data.readings import PatchReading, Reading
from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from tests.helpers.foreign_graphs import Builder, mlp


def names(source: Path) -> list[str]:
    return [linear.site.name for linear in find_linears(open_foreign(source)).found]


def refused(source: Path) -> dict[str, str]:
    return find_linears(open_foreign(source)).refused


def test_sites_are_named_after_their_nodes(tmp_path: Path) -> None:
    assert names(mlp(tmp_path / "mlp.onnx")) == ["first", "second", "last"]


def test_what_linears_are_is_read_from_their_nodes(tmp_path: Path) -> None:
    first, second, last = find_linears(open_foreign(mlp(tmp_path / "mlp.onnx"))).sites
    assert (first.in_features, first.out_features, first.has_bias) == (48, 80, False)
    assert (last.in_features, last.out_features, last.has_bias) == (80, 32, True)
    assert len({first.input_name, second.input_name, last.input_name}) == 3


def test_two_linears_that_read_one_value_share_its_gram(tmp_path: Path) -> None:
    build = Builder()
    build.weight("query", 12, 8)
    build.weight("key", 12, 4)
    build.node("MatMul", ["x", "query"], "q")
    build.node("MatMul", ["x", "key"], "k")
    source = build.save(tmp_path / "two.onnx", {"x": [3, 12]}, ["q", "k"])
    first, second = find_linears(open_foreign(source)).sites
    assert first.input_name == second.input_name


def test_weights_with_other_readers_stay_and_say_why(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12)
    build.node("Gather", ["w", "ids"], "x")
    build.node("MatMul", ["x", "w"], "y", name="head")
    path = build.save(tmp_path / "tied.onnx", {"ids": [3]}, ["y"], types={"ids": TensorProto.INT64})
    assert names(path) == []
    assert refused(path) == {"head": "its weight is also read by Gather"}


def test_a_kernel_is_part_of_the_inputs(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 20, 12, 3, 2)
    build.node("Conv", ["x", "w"], "y", name="conv", strides=[2, 1])
    path = build.save(tmp_path / "conv.onnx", {"x": [1, 12, 6, 6]}, ["y"])
    (linear,) = find_linears(open_foreign(path)).found
    assert (linear.site.in_features, linear.site.out_features) == (12 * 3 * 2, 20)
    assert linear.site.kernel == (3, 2)
    assert linear.read_weight().shape == (20, 72)
    (reading,) = linear.readings
    assert reading == PatchReading(
        "x", 1, kernel=(3, 2), strides=(2, 1), dilations=(1, 1), pads=(0, 0, 0, 0)
    )


def test_a_weight_on_the_left_multiplies_the_last_axis_but_one(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 20, 12)
    build.node("MatMul", ["w", "x"], "y", name="left")
    path = build.save(tmp_path / "left.onnx", {"x": [1, 12, 6]}, ["y"])
    (linear,) = find_linears(open_foreign(path)).found
    assert (linear.site.in_features, linear.site.out_features) == (12, 20)
    assert linear.readings == (Reading("x", axis=-2),)
