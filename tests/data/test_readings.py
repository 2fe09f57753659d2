"""Rows that linears multiply: with the weight, they give what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelr.data import readings
from edgelr.data.readings import PatchReading, Reading
from tests.helpers.foreign_graphs import Builder, random, run


def test_features_are_the_last_axis_or_the_one_before() -> None:
    x = random(2, 5, 7)
    (rows,) = Reading("x").rows(x)
    np.testing.assert_array_equal(rows, x.reshape(10, 7))
    (rows,) = Reading("x", axis=-2).rows(x)
    np.testing.assert_array_equal(rows, x.transpose(0, 2, 1).reshape(14, 5))
    (rows,) = Reading("x", axis=-2).rows(x[0, 0])
    assert rows.shape == (1, 7)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 2, 1], "strides": [2, 3]},
        {"dilations": [2, 1], "pads": [2, 2, 2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
        {"auto_pad": "VALID"},
    ],
)
@pytest.mark.parametrize("at_once", [1, 2**23])
def test_patches_with_the_kernel_give_the_convolution(
    attributes: dict[str, Any], at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "PATCHES", at_once)
    build = Builder()
    weight = build.weight("w", 6, 5, 3, 2)
    build.node("Conv", ["x", "w"], "y", **attributes)
    path = build.save(tmp_path / "conv.onnx", {"x": [2, 5, 9, 8]}, ["y"])
    x = random(2, 5, 9, 8)
    (expected,) = run(path, x=x)
    given = {"strides": (1, 1), "dilations": (1, 1), "pads": (0,) * 4, **attributes}
    reading = PatchReading("x", 1, (3, 2), **{
        name: value if isinstance(value, str) else tuple(value) for name, value in given.items()
    })  # fmt: skip
    rows = np.concatenate(list(reading.rows(x)))
    found = (rows @ weight.reshape(6, -1).T).reshape(2, *expected.shape[2:], 6)
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=1e-5)
