"""What a run reads: rows that calibrate, and rows that plans and factors are judged on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgelr.core.run import Run
from edgelr.core.tasks import TASKS
from edgelr.data import calibration as calibrations
from edgelr.data.audio import read_sounds
from edgelr.data.calibration import Calibration
from edgelr.data.file_lists import spread_evenly
from edgelr.data.images import read_pixels
from edgelr.data.text import split_sentences
from edgelr.model import generate as targets
from edgelr.runtime import calls as jobs
from edgelr.runtime.requests import TextRequest
from edgelr.stages.model_subject import ModelSubject as Subject
from edgelr.stages.subject import DenseExport

DECODER_LENGTH = 1024  # tokens of a calibration chunk
SAMPLE_LENGTH = 128  # tokens of a sampled row: many beginnings, and little cache to read
SAMPLE_TOKENS = 32768  # beside a text: sampling costs more than reading, and brings less
SAMPLE_BATCH = 32  # more are no faster, and their logits fill the memory
HEALING_TOKENS = 65536  # sampled to train on, at most: training needs more than calibration,
HEALING_LENGTH = 512  # in rows as long as the pieces of a text
ENCODER_LENGTH = 256
TARGET_TOKENS = 64  # of an answer, at most
SOUND_BATCH = 4  # sounds that are answered together
SELECTION_TOKENS = 8192
SELECTION_LENGTH = 512
CALIBRATION_TOKENS = 16384


def calibrate(subject: Subject, dense: DenseExport, run: Run) -> list[Calibration]:
    """Tokenize the calibration texts; sample the one that the model writes itself."""
    settings, texts = subject.settings, subject.texts.calibration
    tokens = settings.calibration_tokens or subject.usual_tokens(CALIBRATION_TOKENS)
    share = math.ceil(tokens / len(texts))
    sampled = min(share, SAMPLE_TOKENS) if len(texts) > 1 else share
    files = sum(text is not None for _, text in texts)
    if files < len(texts):  # files take what sampling leaves
        share = math.ceil((tokens - sampled) / max(1, files))
    parts = []
    for name, text in texts:
        if text is None:
            row = settings.calibration_length or SAMPLE_LENGTH
            parts.append(_sampled(subject, dense, sampled, row, run))
        elif TASKS.get(subject.model.task).has_pairs:
            sources = sources_of(subject, text, share, settings.calibration_length, name)
            parts.append(_with_drawn_targets(subject, sources, run))
        else:
            parts.append(tokenize(subject, text, share, settings.calibration_length, name))
    return parts


def to_heal_on(
    subject: Subject,
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


def _with_drawn_targets(subject: Subject, sources: Calibration, run: Run) -> Calibration:
    """Join texts with answers of the model, or find what it answered before."""
    seed = run.seed

    def write(folder: Path) -> None:
        def told(done: int, total: int) -> None:
            run.progress("drawing targets", done, total)

        batch = _batch(subject)
        found = targets.draw(subject.model, sources, _target_tokens(subject), seed, told, batch)
        (folder / "targets.json").write_text(json.dumps(found))

    parts = (subject.model.digest, sources.key, _target_tokens(subject), seed)
    folder = run.stage("targets", parts, write)
    drawn = json.loads((folder / "targets.json").read_text())
    described = replace(sources, description=f"{sources.description}, answered by the model")
    return calibrations.with_targets(described, drawn)


def _target_tokens(subject: Subject) -> int:
    room = subject.model.longest_text - targets.start_of(subject.model).length
    return min(TARGET_TOKENS, room)


def _batch(subject: Subject) -> int | None:
    return None if subject.model.sound is None else SOUND_BATCH


def tokenize(
    subject: Subject, text: str, tokens: int, length: int | None, name: str
) -> Calibration:
    """Cut a text into rows as the model reads them: chunks for decoders, sentences for encoders.

    Of a list of images or sounds, so many are read that they have these tokens, spread over the
    list. A model with an encoder and a decoder also draws its answers to the sentences or sounds.
    """
    if TASKS.get(subject.model.task).has_pairs:
        sources = sources_of(subject, text, tokens, length, name)
        seed = subject.settings.seed + 1  # not the answers that were calibrated on
        new_tokens, batch = _target_tokens(subject), _batch(subject)
        drawn = targets.draw(subject.model, sources, new_tokens, seed, batch=batch)
        return calibrations.with_targets(sources, drawn)
    image, longest = subject.model.image, subject.model.longest_text
    if image is not None:
        paths = spread_evenly(text, math.ceil(tokens / image.tokens))
        pixels, prompts = read_pixels(paths, image), subject.model.prompts
        return calibrations.from_images(pixels, image.tokens, name, prompts)
    if subject.model.task == "text-generation":
        row = length or min(DECODER_LENGTH, longest)
        return calibrations.from_chunks(text, subject.tokenizer, tokens, row, name)
    return sources_of(subject, text, tokens, length, name)


def sources_of(
    subject: Subject, text: str, tokens: int, length: int | None, name: str
) -> Calibration:
    """Cut a text into sentences, as an encoder reads them; or read the sounds of a list."""
    sound = subject.model.sound
    if sound is not None:
        paths = spread_evenly(text, math.ceil(tokens / sound.tokens))
        return calibrations.from_sounds(read_sounds(paths, sound), sound.tokens, name)
    sentences = split_sentences(text, tokens)  # a sentence has more than one token
    row = length or min(ENCODER_LENGTH, subject.model.longest_text)
    mask_token = subject.model.mask_token
    return calibrations.from_texts(sentences, subject.tokenizer, tokens, row, name, mask_token)


def selection(subject: Subject) -> Calibration:
    """Tokenize the held-out text on which plans and factors are judged while they are made."""
    decodes = subject.model.task == "text-generation"
    length = min(SELECTION_LENGTH, subject.model.longest_text) if decodes else None
    name = f"{subject.texts.evaluation_name}, second half"
    tokens = subject.usual_tokens(SELECTION_TOKENS)
    return tokenize(subject, subject.texts.selection, tokens, length, name)


def _sampled(
    subject: Subject,
    dense: DenseExport,
    tokens: int,
    length: int,
    run: Run,
) -> Calibration:
    """Sample rows of text from the model, or find what it wrote before."""
    seed, prefix = run.seed, subject.tokenizer.encode("").ids
    length = min(length, subject.model.longest_text)

    def write(folder: Path) -> None:
        rows = jobs.sample_tokens(
            dense.bundle,
            TextRequest(tokens, length, SAMPLE_BATCH, seed, tuple(prefix)),
            progress=lambda _, done, total: run.progress("sampling text", done, total),
        )
        np.save(folder / "tokens.npy", rows)

    parts = (subject.model.digest, tokens, length, SAMPLE_BATCH, seed, prefix)
    folder = run.stage("sample", parts, write)
    return calibrations.from_samples(np.load(folder / "tokens.npy"), "sampled from the model")
