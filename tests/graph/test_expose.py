"""The inside of a graph: values as outputs and weights as inputs, and no file is left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgelr.graph.expose import feeding_weights, showing_values
from tests.helpers.foreign_graphs import IR_VERSIONS, mlp, random, run


@pytest.fixture(params=[False, True], ids=["inline", "external"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A graph, alone in its folder or beside its file of weights."""
    return mlp(tmp_path / "mlp.onnx", external=request.param)


def weights(source: Path) -> dict[str, np.ndarray]:
    return {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(source).graph.initializer
    }


def test_values_are_shown_in_the_order_of_their_names(source: Path) -> None:
    x, known, before = random(5, 48), weights(source), sorted(source.parent.iterdir())
    with showing_values(source, ["t1", "h1", "x"]) as path:
        assert path.parent == source.parent
        h1, t1, given = run(path, x=x)
    np.testing.assert_array_equal(given, x)
    np.testing.assert_allclose(h1, x @ known["w1"], atol=1e-4)
    np.testing.assert_allclose(t1, np.tanh(h1 + known["b1"]), atol=1e-4)
    assert sorted(source.parent.iterdir()) == before


@pytest.mark.parametrize("opset", sorted(IR_VERSIONS))
def test_weights_may_be_fed_and_keep_their_values_where_they_are_not(
    tmp_path: Path, opset: int
) -> None:
    source = mlp(tmp_path / "mlp.onnx", opset)
    x, known = random(5, 48), weights(source)
    (dense,) = run(source, x=x)
    with feeding_weights(source, ["w2", "w3"]) as path:
        np.testing.assert_array_equal(run(path, x=x)[0], dense)
        np.testing.assert_array_equal(run(path, x=x, w2=known["w2"])[0], dense)
        (found,) = run(path, x=x, w3=np.zeros_like(known["w3"]))
    np.testing.assert_allclose(found, np.broadcast_to(2 * known["b3"], found.shape), atol=1e-5)


@pytest.mark.parametrize("variant", [showing_values, feeding_weights])
def test_an_error_leaves_no_file_behind(source: Path, variant: type) -> None:
    before = sorted(source.parent.iterdir())
    name = {showing_values: "h1", feeding_weights: "w1"}[variant]
    with pytest.raises(KeyboardInterrupt), variant(source, [name]):
        raise KeyboardInterrupt
    assert sorted(source.parent.iterdir()) == before
