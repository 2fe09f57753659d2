"""Quantized weights on disk: read as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.compress.block_quantized import QuantizedLoss, quantize
from edgelr.compress.stored_weights import read_blocks, read_losses, write_group
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision

GROUP = "model.layers.0.qkv"


@pytest.mark.parametrize("precision", LAYOUTS)
def test_what_is_read_is_what_was_written(tmp_path: Path, precision: WeightPrecision) -> None:
    random = np.random.default_rng(0)
    stored = {
        site: {precision: quantize(random.standard_normal((70, 5)).astype(np.float32), precision)}
        for site in ("a/q", "b.k")
    }
    lost = QuantizedLoss(0.5, np.array([np.inf, 0.25]))
    write_group(tmp_path, GROUP, stored, {precision: lost})
    for site, expected in stored.items():
        found = read_blocks(tmp_path, GROUP, site, precision)
        np.testing.assert_array_equal(found.packed, expected[precision].packed)
        np.testing.assert_array_equal(found.dense(), expected[precision].dense())
    ((name, read),) = read_losses(tmp_path, GROUP).items()
    assert (name, read.dense, read.product.tolist()) == (precision, 0.5, [np.inf, 0.25])
