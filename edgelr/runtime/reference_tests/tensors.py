"""Reference values of graphs from anywhere: values of their outputs, spread over each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.modality import TENSORS
from edgelr.core.vocabulary import Array
from edgelr.data.tensors import SAMPLES, Samples, count, feeds, load_samples
from edgelr.runtime.reference_tests import REFERENCE_TESTS, SUITES, ReferenceTest
from edgelr.runtime.reference_tests.values import WHOLE, ReferenceValues
from edgelr.runtime.runners.tensors import TensorsRunner

VALUES = 65536  # of one output


def collect(original: ExportBundle, bundle: ExportBundle, source: Path | None) -> ReferenceValues:
    """Run the samples in the bundle; see ``ReferenceTest``."""
    samples = load_samples(bundle.folder / SAMPLES)
    first, second = (TensorsRunner.open(each) for each in (original, bundle))
    arrays: dict[str, Array] = {}
    cosines, scale = [], 0.0
    for run in range(min(WHOLE, count(samples))):
        wanted, found = (_values(each, feeds(samples, run)) for each in (first, second))
        for name, values in found.items():
            arrays[f"output_{run}.{name}"] = values
            arrays[f"original_{run}.{name}"] = wanted[name]
            pair = np.where(np.isfinite(wanted[name]), (wanted[name], values), 0).astype(np.float64)
            lengths = np.linalg.norm(pair, axis=-1)
            cosines.append(float(pair[0] @ pair[1]) / max(float(lengths.prod()), 1e-30))
            finite = np.abs(values[np.isfinite(values)])
            scale = max(scale, float(finite.max(initial=0.0)))
    return ReferenceValues(arrays, scale or 1.0, 0.0, float(np.mean(cosines)))


def _values(runner: TensorsRunner, given: Samples) -> dict[str, Array]:
    """Outputs of one run as flat float32 arrays, every n-th value of large ones."""
    found = runner.outputs(given)
    return {
        name: values.reshape(-1)[:: -(-values.size // VALUES)].astype(np.float32)
        for name, values in found.items()
        if values.size
    }


REFERENCE_TESTS.register(TENSORS)(ReferenceTest(collect, SUITES / "tensors.py"))
