"""Rows of a run: those that calibrate, and those that plans and factors are judged on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edgelr.core.run import Run
from edgelr.data.calibration import Calibration, from_samples
from edgelr.runtime import calls
from edgelr.runtime.requests import TextRequest
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.rows import Excerpt, rows_of
from edgelr.stages.transformers.subject import ModelSubject

SAMPLE_LENGTH = 128  # tokens of a sampled row: many beginnings, and little cache to read
SAMPLE_TOKENS = 32768  # beside a text: sampling costs more than reading, and brings less
SAMPLE_BATCH = 32  # more are no faster, and their logits fill the memory
HEALING_TOKENS = 65536  # sampled to train on, at most: training needs more than calibration,
HEALING_LENGTH = 512  # in rows as long as the pieces of a text
SELECTION_TOKENS = 8192
CALIBRATION_TOKENS = 16384


def calibrate(subject: ModelSubject, dense: DenseExport, run: Run) -> list[Calibration]:
    """Tokenize the calibration texts; sample the one that the model writes itself."""
    settings, texts = subject.settings, subject.texts.calibration
    tokens = settings.calibration_tokens or subject.usual_tokens(CALIBRATION_TOKENS)
    share = math.ceil(tokens / len(texts))
    sampled = min(share, SAMPLE_TOKENS) if len(texts) > 1 else share
    files = sum(text is not None for _, text in texts)
    if files < len(texts):  # files take what sampling leaves
        share = math.ceil((tokens - sampled) / max(1, files))
    rows, parts = rows_of(subject.model), []
    for name, text in texts:
        if text is None:
            length = settings.calibration_length or SAMPLE_LENGTH
            parts.append(_sampled(subject, dense, sampled, length, run))
        else:
            excerpt = Excerpt(text, share, name, settings.calibration_length)
            parts.append(rows.calibration(subject, excerpt, run))
    return parts


def to_heal_on(
    subject: ModelSubject,
    dense: DenseExport,
    calibration: list[Calibration],
    run: Run,
) -> list[Calibration]:
    """Take what was calibrated on; what the model writes itself in longer rows, and more of it."""
    tokens = min(HEALING_TOKENS, sum(part.tokens for part in calibration))
    return [
        _sampled(subject, dense, tokens, HEALING_LENGTH, run) if text is None else part
        for part, (_, text) in zip(calibration, subject.texts.calibration, strict=True)
    ]


def selection(subject: ModelSubject) -> Calibration:
    """Tokenize the held-out text on which plans and factors are judged while they are made."""
    rows, texts = rows_of(subject.model), subject.texts
    longest = rows.selection_length
    length = None if longest is None else min(longest, subject.model.longest_text)
    tokens = subject.usual_tokens(SELECTION_TOKENS)
    name = f"{texts.evaluation_name}, second half"
    return rows.judging(subject, Excerpt(texts.selection, tokens, name, length))


def _sampled(
    subject: ModelSubject,
    dense: DenseExport,
    tokens: int,
    length: int,
    run: Run,
) -> Calibration:
    """Sample rows of text from the model, or find what it wrote before."""
    seed, prefix = run.seed, subject.tokenizer.encode("").ids
    length = min(length, subject.model.longest_text)

    def write(folder: Path) -> None:
        rows = calls.sample_tokens(
            dense.bundle,
            TextRequest(tokens, length, SAMPLE_BATCH, seed, tuple(prefix)),
            progress=lambda _, done, total: run.progress("sampling text", done, total),
        )
        np.save(folder / "tokens.npy", rows)

    parts = (subject.model.digest, tokens, length, SAMPLE_BATCH, seed, prefix)
    folder = run.stage("sample", parts, write)
    return from_samples(np.load(folder / "tokens.npy"), "sampled from the model")
