"""Reference values of text encoders: answers to the sentences of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle
from edgelr.data.padding import right_padded
from edgelr.data.text import mask_tokens, read_text, split_sentences
from edgelr.runtime.reference_tests import REFERENCE_TESTS, SUITES, ReferenceTest
from edgelr.runtime.reference_tests.answers import answers_of
from edgelr.runtime.reference_tests.values import ReferenceValues
from edgelr.runtime.runners.text_encoder import TextEncoderRunner

SENTENCES = 64


def collect(original: ExportBundle, bundle: ExportBundle, source: Path | None) -> ReferenceValues:
    """Run sentences; see ``ReferenceTest``."""
    first, second = (TextEncoderRunner.open(each) for each in (original, bundle))
    texts = split_sentences(read_text(source), SENTENCES)
    found, mask = second.encode(texts), second.mask_token
    whole = [each.ids for each in found]
    rows = whole if mask is None else [mask_tokens(each, mask) for each in found]
    ids, given = (right_padded(each)[0] for each in (whole, rows))
    arrays = {
        "texts": np.array(texts),
        "ids": ids,
        "lengths": np.array([len(row) for row in rows]),
        "masked": given == mask if mask is not None else np.zeros_like(ids, bool),
    }
    return answers_of(first, second, bundle, [np.array(row) for row in rows], arrays)


REFERENCE_TESTS.register("text_encoder")(ReferenceTest(collect, SUITES / "text.py"))
