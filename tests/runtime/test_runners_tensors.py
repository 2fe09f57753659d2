"""Graphs on whole tensors: outputs, reference answers, Grams of what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper, save

from edgelr.core.errors import InputError
from edgelr.data.readings import Reading
from edgelr.data.text import EvaluationSize
from edgelr.runtime.requests import Evaluation
from edgelr.runtime.runners.tensors import (
    TensorsRunner,
    input_grams,
    largest_output,
    open_tensors,
    outputs_together,
    takes_batches,
    write_answers,
)
from edgelr.runtime.validate import parity, twin_error
from tests.helpers.foreign_graphs import Builder, random
from tests.helpers.runtime_bundles import tensor_samples, write_modality
from tests.helpers.runtime_graphs import image_weight, make_model


def test_what_is_written_is_what_parity_reads(tmp_path: Path) -> None:
    bundle, samples = write_modality(tmp_path / "bundle", "tensors"), tensor_samples()
    runner = TensorsRunner.open(bundle)
    outputs = [runner.outputs({"x": x}) for x in samples["x"][:3]]
    assert sum(not np.isfinite(each["z"]).all() for each in outputs), "some are minus infinity"
    write_answers(tmp_path / "answers.npz", samples, outputs)
    rows = runner.read_answers(dict(np.load(tmp_path / "answers.npz")))
    finite = [np.isfinite(each["z"]).sum() + each["y"].size for each in outputs]
    assert [each.output.size for each in rows] == finite
    assert parity(bundle, tmp_path / "answers.npz", 0.0).passed
    assert twin_error(bundle, bundle, tmp_path / "answers.npz") == 0


def test_a_value_that_became_infinite_fails(tmp_path: Path) -> None:
    bundle, samples = write_modality(tmp_path / "bundle", "tensors"), tensor_samples(1)
    outputs = TensorsRunner.open(bundle).outputs({"x": samples["x"][0]})
    outputs["z"] = np.where(np.isfinite(outputs["z"]), outputs["z"], 0)
    write_answers(tmp_path / "answers.npz", samples, [outputs])
    assert parity(bundle, tmp_path / "answers.npz", 1e9).max_abs_error == float("inf")


def test_differences_of_doubles_are_found(tmp_path: Path) -> None:
    """In float32 they would be rounded away."""
    double = TensorProto.DOUBLE
    nodes = [("Identity", ["x"], ["y"], {})]
    model = make_model(nodes, [("x", double, [2])], [("y", double, [2])], {})
    bundle = write_modality(tmp_path / "bundle", "tensors")
    save(model, bundle.model_path)
    x = np.array([[1.0, 2.0]])
    write_answers(tmp_path / "answers.npz", {"x": x}, [{"y": x[0] + [0, 1e-12]}])
    found = parity(bundle, tmp_path / "answers.npz").max_abs_error
    assert found == pytest.approx(1e-12, rel=1e-3)


def test_inputs_of_a_user_may_lack_the_axis_of_samples_and_have_another_precision(
    tmp_path: Path,
) -> None:
    bundle, x = write_modality(tmp_path / "bundle", "tensors"), tensor_samples()["x"]
    np.savez(tmp_path / "given.npz", x=x[:, 0].astype(np.float64))
    runner, size = TensorsRunner.open(bundle), EvaluationSize()
    for source in (tmp_path / "given.npz", None):
        found = runner.samples(Evaluation(bundle, bundle, source, size))["x"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, x)
    np.savez(tmp_path / "other.npz", y=x)
    with pytest.raises(InputError, match=r"holds y\. Expected the inputs of the graph"):
        runner.samples(Evaluation(bundle, bundle, tmp_path / "other.npz", size))


def test_the_largest_output_is_finite() -> None:
    outputs = [{"a": np.array([1.0, -np.inf]), "b": np.array([-3.0])}, {"a": np.array([np.nan])}]
    assert largest_output(outputs) == 3
    assert largest_output([]) == 0


def test_a_graph_without_numbers_to_compare_is_refused(tmp_path: Path) -> None:
    whole = TensorProto.INT64
    nodes = [("Identity", ["x"], ["y"], {})]
    path = tmp_path / "whole.onnx"
    save(make_model(nodes, [("x", whole, [2])], [("y", whole, [2])], {}), path)
    with pytest.raises(InputError, match="no output of floating-point numbers, only y"):
        open_tensors(path)


def test_grams_are_means_over_all_positions(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "tensors")
    (gram,) = input_grams(bundle.model_path, [Reading("y")], tensor_samples())
    rows = (tensor_samples()["x"] @ image_weight()).reshape(5, -1).astype(np.float64)
    np.testing.assert_allclose(gram, rows.T @ rows / 5, rtol=1e-5)


@pytest.mark.parametrize("alone", [True, False])
def test_samples_run_together_where_they_answer_as_they_do_alone(
    alone: bool, tmp_path: Path
) -> None:
    """A sum over the first axis mixes samples, though that axis is free."""
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "h")
    build.weights.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    build.node("ReduceSum", ["h", "first"], "sum", keepdims=1)
    build.node("Add", ["h", "h" if alone else "sum"], "y")
    path = build.save(tmp_path / "graph.onnx", {"x": ["batch", 12]}, ["y"])
    runner, samples = open_tensors(path), {"x": random(5, 1, 12)}
    assert takes_batches(runner, samples) == alone
    found = outputs_together(runner, samples, {})
    assert [each["y"].shape for each in found] == 5 * [(1, 20)]


def test_a_batch_of_one_that_is_written_into_the_graph_takes_no_other(tmp_path: Path) -> None:
    build = Builder()
    build.weights.append(numpy_helper.from_array(np.array([1, 3, 4], np.int64), "sizes"))
    build.node("Reshape", ["x", "sizes"], "y")
    path = build.save(tmp_path / "graph.onnx", {"x": ["batch", 12]}, ["y"])
    assert not takes_batches(open_tensors(path), {"x": random(5, 1, 12)})
    fixed = build.save(tmp_path / "fixed.onnx", {"x": [1, 12]}, ["y"])
    assert not takes_batches(open_tensors(fixed), {"x": random(5, 1, 12)})
