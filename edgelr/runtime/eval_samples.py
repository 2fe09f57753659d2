"""What bundles are judged on: texts, images and sounds as their runners read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from edgelr.core.bundle import ExportBundle, read_config, read_tokenizer
from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.audio import list_sounds, read_sounds, transcripts
from edgelr.data.file_lists import IMAGES, SOUNDS, Kind, listed, spread_evenly, spread_lines
from edgelr.data.images import list_images
from edgelr.data.labels import (
    Record,
    folder_labels,
    label_ids,
    read_records,
    require_scores,
    token_labels,
)
from edgelr.data.text import EvaluationSize, chunk_tokens, read_text, split_sentences
from edgelr.runtime.evaluators import Known
from edgelr.runtime.runners.decoder import Decoder
from edgelr.runtime.runners.dual_encoder import Matcher
from edgelr.runtime.runners.encoder import Encoder
from edgelr.runtime.runners.encoder_decoder import PairRunner
from edgelr.runtime.runners.image_encoder import ImageEncoder

_TARGET_TOKENS = 64  # of an answer, at most
_SEED = 0  # of the answers that are judged on: every bundle of a model is judged on the same

Runner: TypeAlias = Decoder | Encoder | ImageEncoder | Matcher | PairRunner


def open_runner(bundle: ExportBundle, provider: str, threads: int | None) -> Runner:
    """Open what runs a bundle of this task."""
    if bundle.manifest.matching is not None:
        return Matcher.open(bundle, provider, threads)
    if bundle.manifest.image is not None:
        return ImageEncoder.open(bundle, provider, threads)
    if bundle.encoder_path is not None:
        return PairRunner.open(bundle, provider, threads)
    kind = Decoder if bundle.manifest.task == "text-generation" else Encoder
    return kind.open(bundle, provider, threads)


def samples_of(
    runner: Runner,
    bundle: ExportBundle,
    candidate: ExportBundle,
    text: Path | None,
    size: EvaluationSize,
    progress: Progress | None,
) -> Any:
    """Read what the runners of a task are judged on, with what is true of it where that is told.

    Args:
        runner: of the original, which draws the targets that both are judged on.
        bundle: the dense export.
        candidate: the other bundle; the prompts that images are compared with are its own.
        text: see ``validate.accuracy``.
        size: how much of it is used.
        progress: called while targets are drawn.

    Raises:
        InputError: see ``validate.accuracy``.
    """
    if isinstance(runner, Matcher):
        images = spread_evenly(list_images(_given(text, IMAGES)), size.images)
        return images, _prompts(candidate)
    if isinstance(runner, ImageEncoder):
        return _images(bundle, text, size)
    if isinstance(runner, Decoder):
        length = min(size.length, bundle.manifest.context_tokens)
        return chunk_tokens(read_text(text), read_tokenizer(bundle), size.chunks, length)
    if bundle.manifest.sound is not None:
        assert isinstance(runner, PairRunner)
        sounds = spread_lines(list_sounds(_given(text, SOUNDS)), size.pairs)
        features = list(read_sounds(listed(sounds), bundle.manifest.sound))
        pairs, said = draw_targets(runner, bundle, features, progress), transcripts(sounds)
        return Known(pairs, said) if said else pairs
    records = read_records(text, bundle.manifest.task)
    if isinstance(runner, PairRunner):
        if records is None:
            sentences = split_sentences(read_text(text), size.pairs)
            return draw_answers(runner, bundle, sentences, progress)
        require_scores()
        records = records[: size.pairs]
        pairs = draw_answers(runner, bundle, [record.given for record in records], progress)
        return Known(pairs, [record.truth for record in records])
    if records is None:
        return split_sentences(read_text(text), size.sentences)
    assert isinstance(runner, Encoder)
    return _labelled(runner, bundle, records[: size.sentences], str(text))


def _labelled(
    encoder: Encoder, bundle: ExportBundle, records: Sequence[Record], source: str
) -> Known:
    """Resolve the labels of texts, or of words: that of a word is its first token's."""
    labels = label_ids(records, read_config(bundle), source)
    if bundle.manifest.task == "text-classification":
        return Known([record.given for record in records], np.array(labels))
    texts = [" ".join(record.given) for record in records]
    truths: list[int] = []
    for encoding, record, ids in zip(encoder.encode(texts), records, labels, strict=True):
        truths += token_labels(encoding, record.given, ids)
    return Known(texts, np.array(truths))


def draw_answers(
    runner: PairRunner,
    bundle: ExportBundle,
    sentences: list[str],
    progress: Progress | None = None,
) -> list[tuple[Array, Array]]:
    """Draw what a model answers to sentences: each as token ids, and the target from its start."""
    tokenizer = read_tokenizer(bundle)
    tokenizer.no_padding()
    tokenizer.enable_truncation(bundle.manifest.context_tokens)
    sources = [np.array(each.ids, np.int64) for each in tokenizer.encode_batch(sentences)]
    return draw_targets(runner, bundle, sources, progress)


def draw_targets(
    runner: PairRunner,
    bundle: ExportBundle,
    sources: Sequence[Array],
    progress: Progress | None = None,
) -> list[tuple[Array, Array]]:
    """Draw what a model answers to sources, as its encoder reads them: the target of each."""
    generator = np.random.default_rng(_SEED)
    room = min(_TARGET_TOKENS, bundle.manifest.context_tokens - runner.start.length)
    pairs: list[tuple[Array, Array]] = []
    for start in range(0, len(sources), runner.batch):
        batch = sources[start : start + runner.batch]
        found = runner.drawn(batch, room, generator)
        pairs += zip(batch, (np.array(target, np.int64) for target in found), strict=True)
        if progress:
            progress("answer", len(pairs), len(sources))
    return pairs


def _prompts(bundle: ExportBundle) -> tuple[str, ...]:
    matching = bundle.manifest.matching
    if matching is None or not matching.prompts:
        raise InputError(
            f"{bundle.folder} names no prompts, among which one is chosen for an image; expected "
            f"a bundle that was exported with labels. Export the model with --labels FILE."
        )
    return matching.prompts


def _images(bundle: ExportBundle, source: Path | None, size: EvaluationSize) -> list[Path] | Known:
    images = spread_evenly(list_images(_given(source, IMAGES)), size.images)
    labels = None
    if bundle.manifest.task == "image-classification":
        labels = folder_labels(images, read_config(bundle))
    return images if labels is None else Known(images, np.array(labels))


def _given(source: Path | None, kind: Kind) -> Path:
    if source is None:
        raise InputError(
            f"The model reads {kind.name}s, and none are given; expected some that it was not "
            f"calibrated on. Name their folder with --data."
        )
    return source
