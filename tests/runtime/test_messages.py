"""Values that cross between processes come back as they were."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.results import Interval, Metric
from edgelr.data.text import EvaluationSize
from edgelr.runtime.messages import packed, unpacked
from edgelr.runtime.requests import Execution, PhaseSizes, TextRequest, TimedInputs, TimedPhase
from tests.helpers.runtime_bundles import write_modality

METRICS = (Metric("wer", 0.25, None, 7, "", Interval(0.125, math.inf, 3)), Metric("n", 1.0, 2.0, 1))


def there_and_back(kind: Any, value: Any) -> Any:
    return unpacked(kind, json.loads(json.dumps(packed(value))))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Execution, Execution("cuda", 3, 1 << 30, Path("/tmp/nodes"))),
        (Execution | None, None),
        (PhaseSizes, PhaseSizes((8, 16), ())),
        (TimedPhase, TimedPhase("text", 2, 7)),
        (TimedInputs, TimedInputs(5, Path("/tmp/inputs.npz"))),
        (TextRequest, TextRequest(9, 8, 7, 6, (5, 4), 0.5)),
        (EvaluationSize, EvaluationSize(1, 2, 3, 4, 5)),
        (tuple[Metric, ...], METRICS),
        (float, math.inf),
    ],
)
def test_values_come_back_as_they_were(kind: Any, value: Any) -> None:
    assert there_and_back(kind, value) == value


def test_what_is_no_number_stays_none() -> None:
    assert math.isnan(there_and_back(float, math.nan))


def test_arrays_become_lists_of_their_numbers() -> None:
    rows = np.arange(6).reshape(2, 3)
    assert there_and_back(list[list[int]], rows) == rows.tolist()
    assert packed({"each": [np.int64(3), np.float32(0.5)]}) == {"each": [3, 0.5]}


def test_a_bundle_crosses_as_its_folder_and_is_read_again(tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder")
    assert packed(bundle) == str(tmp_path / "bundle")
    assert there_and_back(ExportBundle, bundle) == bundle
    bundle.model_path.write_bytes(b"no graph")
    with pytest.raises(InputError, match="has 8 bytes"):
        there_and_back(ExportBundle, bundle)
