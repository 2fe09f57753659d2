"""Reference values of rerankers: scores of pairs of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.core.ranks import spearman
from edgelr.data.padding import right_padded
from edgelr.data.pairs import read_pairs
from edgelr.runtime.reference_tests import REFERENCE_TESTS, SUITES, ReferenceTest
from edgelr.runtime.reference_tests.values import WHOLE, ReferenceValues
from edgelr.runtime.runners.text_pair import TextPairRunner
from edgelr.runtime.validate import padding_error

PAIRS = 64


def collect(original: ExportBundle, bundle: ExportBundle, source: Path | None) -> ReferenceValues:
    """Score pairs; see ``ReferenceTest``."""
    first, second = (TextPairRunner.open(each) for each in (original, bundle))
    pairs = read_pairs(source, PAIRS)
    rows = second.rows(pairs)
    tokens, mask = right_padded(rows)
    scores, others = (
        np.concatenate([runner.run_alone(row) for row in rows]) for runner in (second, first)
    )
    scale = float(np.abs(scores).max())
    noise = padding_error(second, rows, list(scores[:WHOLE, None])) / scale
    arrays = {
        "pairs": np.array(pairs),
        "ids": tokens[:, 0],
        "types": tokens[:, 1],
        "lengths": mask.sum(axis=-1),
        "scores": scores,
        "original_scores": others,
    }
    return ReferenceValues(arrays, scale, noise, spearman(others, scores))


REFERENCE_TESTS.register("text_pair")(ReferenceTest(collect, SUITES / "pair.py"))
