"""Write the values that a bundle's regression tests compare with, and the tests themselves."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.tasks import TASKS
from edgelr.runtime.reference_tests import REFERENCE_TESTS
from edgelr.runtime.reference_tests.values import ReferenceValues

ARRAYS, FACTS, TESTS = "references.npz", "expected.json", "test_accuracy.py"
NOISE = 10  # one machine's rounding errors are ten times those between two ways of running
# Shares of the largest output. Floors: what other processors of one kind may differ by. Elsewhere:
# another provider or kind of processor, which may round products to 10 bits or sum in float16.
FLOOR = {"float32": 1e-4, "float16": 5e-3, "quantized": 5e-3}
ELSEWHERE = {"float32": 1e-2, "float16": 3e-2, "quantized": 5e-2}


def write_references(
    original: ExportBundle, bundle: ExportBundle, source: Path | None, folder: Path
) -> None:
    """Run the original and the bundle on the CPU; store their answers and the tests in ``folder``.

    Args:
        original: dense export.
        bundle: bundle that is tested, as it ships.
        source: data that the bundle was judged on: a text, a list of images, or inputs.
        folder: gets ``references.npz``, ``expected.json`` and ``test_accuracy.py``.

    Raises:
        InputError: bundles of this modality have no tests.
    """
    test = REFERENCE_TESTS.get(bundle.manifest.modality)
    values = test.collect(original, bundle, source)
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **values.arrays)
    facts = json.dumps(_facts(bundle, values), indent=2)
    (folder / FACTS).write_text(facts + "\n", encoding="utf-8")
    shutil.copyfile(test.suite, folder / TESTS)


def kind_of(bundle: ExportBundle) -> str:
    """Name the kind of numbers that a bundle computes with, as ``ELSEWHERE`` does."""
    residency = bundle.manifest.residency
    quantized = residency is not None and residency.quantized
    return "quantized" if quantized else bundle.manifest.precision


def _facts(bundle: ExportBundle, values: ReferenceValues) -> dict[str, object]:
    """Say what is expected, and how closely."""
    import onnxruntime as ort

    manifest = bundle.manifest
    kind = kind_of(bundle)
    elsewhere = ELSEWHERE[kind]
    metric = TASKS.get(manifest.task).metric
    slack = 1 / values.decisions if values.decisions else FLOOR["float32"]
    rises = metric == "perplexity"
    if rises:
        limit = max(1 + (manifest.max_drop or 0.0), values.at_export * (1 + slack))
    else:
        limit = min(1 - (manifest.max_drop or 0.0), values.at_export - slack)
    return {
        "machine": platform.machine(),
        "onnxruntime": ort.__version__,
        "scale": values.scale,
        "tolerance": min(elsewhere, max(FLOOR[kind], NOISE * values.noise)),
        "tolerance_elsewhere": elsewhere,
        "metric": "perplexity_ratio" if rises else metric,
        "at_export": values.at_export,
        "limit": limit,
        "limit_elsewhere": limit * (1 + elsewhere) if rises else limit - max(elsewhere, slack),
        "several_labels": values.several_labels,
    }
