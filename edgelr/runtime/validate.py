"""Same answers? As the compressed torch model (parity), and as the original one (accuracy)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.npyio import NpzFile

from edgelr.errors import InputError
from edgelr.evaluators import Known, Progress, evaluators_for
from edgelr.images import list_images
from edgelr.listings import IMAGES, SOUNDS, Kind, listed, spread_evenly, spread_lines
from edgelr.runtime.bundle import read_config, read_tokenizer
from edgelr.runtime.decoder import Decoder, left_padded
from edgelr.runtime.encoder import Encoder
from edgelr.runtime.image_encoder import ImageEncoder
from edgelr.runtime.matcher import Matcher
from edgelr.runtime.pair import PairRunner
from edgelr.runtime.session import Array
from edgelr.sounds import list_sounds, read_sounds, transcripts
from edgelr.text import EvaluationSize, chunk_tokens, read_text, split_sentences
from edgelr.truths import (
    Record,
    folder_labels,
    label_ids,
    read_records,
    require_scores,
    token_labels,
)
from edgelr.types import ExportBundle, Metric, Parity

_PADDED = 4  # prompts in the padded batch
_TARGET_TOKENS = 64  # of an answer, at most
_SEED = 0  # of the answers that are judged on: every bundle of a model is judged on the same

Runner: TypeAlias = Decoder | Encoder | ImageEncoder | Matcher | PairRunner


def accuracy(
    reference: ExportBundle,
    candidate: ExportBundle,
    text: Path | None = None,
    provider: str = "cpu",
    size: EvaluationSize | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare a candidate with its reference, by every evaluator of their task.

    Args:
        reference: the dense export of the original model.
        candidate: the bundle.
        text: a ``.txt`` or ``.jsonl`` file; None takes the text that ships with Python. Of models
            of images or sounds, see ``images.list_images`` and ``sounds.list_sounds``.
        provider: ``"cpu"`` or ``"cuda"``.
        size: how much of the text is used.
        threads: of one operator; None takes every core.
        progress: called after each sample.

    Raises:
        InputError: the two have different tasks, the text is too short, or no images or
            sounds are given.
    """
    if reference.manifest.task != (task := candidate.manifest.task):
        raise InputError(
            f"{reference.folder} is for {reference.manifest.task}, {candidate.folder} for {task}. "
            f"Expected one task. Compare a bundle with its own dense export."
        )
    size = size or EvaluationSize()
    first, second = (open_runner(bundle, provider, threads) for bundle in (reference, candidate))
    if isinstance(first, Matcher):
        images = spread_evenly(list_images(_given(text, IMAGES)), size.images)
        samples: Any = images, _prompts(candidate)
    else:
        samples = _samples(first, reference, text, size, progress)
    comparisons = (compare(first, second, samples, progress) for compare in evaluators_for(task))
    return tuple(chain.from_iterable(comparisons))


def parity(
    bundle: ExportBundle,
    answers: Path,
    provider: str = "cpu",
    limit: float = 1e-3,
    threads: int | None = None,
) -> Parity:
    """Compare a bundle with what the compressed torch model answered to the same inputs.

    Args:
        answers: an ``.npz``. Of a decoder: ``prompts (prompts, longest)`` int64 and ``lengths``,
            ``logits_i (length, vocabulary)`` for each prompt, ``greedy (prompts, tokens)``. Of an
            encoder: ``input_ids_i (length,)`` and ``output_i``, what its graph answers to one text;
            of an image model ``pixel_values_i (3, side, side)`` instead; where texts and images are
            compared, either of the two as ``row_i``. Of an encoder with a decoder: ``source_i
            (length,)``, its greedy ``target_i (tokens + 1,)``, and ``output_i``, the logits of all
            but the first.
        provider: ``"cpu"`` or ``"cuda"``.
        limit: largest absolute error that passes; an answer that is not finite never does.
        threads: threads of one operator; None takes every core.

    Raises:
        InputError: ``answers`` cannot be read.
    """
    runner = open_runner(bundle, provider, threads)
    with _open_answers(answers, runner) as arrays:
        if isinstance(runner, Decoder):
            return _decoder_parity(runner, arrays, limit)
        if isinstance(runner, PairRunner):
            return _pair_parity(runner, arrays, limit)
        return _encoder_parity(runner, arrays, limit)


def twin_error(
    shipped: ExportBundle,
    twin: ExportBundle,
    answers: Path,
    threads: int | None = None,
) -> float:
    """Find how far the outputs of what ships are from its exact float32 twin's.

    Both run on the CPU, each input of ``answers`` (see ``parity``) alone: what their graphs answer.
    The largest difference is divided by the largest output of the twin: the errors of float16 and
    of whole numbers are relative.
    """
    runners = [open_runner(bundle, "cpu", threads) for bundle in (shipped, twin)]
    with _open_answers(answers, runners[0]) as arrays:
        rows = _rows(runners[0], arrays)
    worst = 0.0
    for row in rows:
        found, expected = (_outputs(runner, row) for runner in runners)
        worst = max(worst, max_abs_error(found, expected) / float(np.abs(expected).max()))
    return worst


def max_abs_error(found: Array, expected: Array) -> float:
    """Find the largest absolute difference; infinite when a value is not finite."""
    error = float(np.abs(found.astype(np.float32) - expected.astype(np.float32)).max())
    return error if np.isfinite(error) else float("inf")


def _open_answers(path: Path, runner: Runner) -> NpzFile:
    if isinstance(runner, Decoder):
        wanted = {"prompts", "lengths", "greedy", "logits_0"}
    else:
        wanted = {f"{runner.input_name}_0", "output_0"}
    try:
        arrays: NpzFile = np.load(path, allow_pickle=False)
        missing = wanted.difference(getattr(arrays, "files", ()))
        problem = f"it lacks {', '.join(sorted(missing))}" if missing else ""
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        problem = str(error)
    if not problem:
        return arrays
    raise InputError(
        f"Cannot read the reference answers {path}: {problem}. Expected an .npz that edgelr "
        f"wrote for this model. Export the model again."
    )


def _rows(runner: Runner, answers: Mapping[str, Array]) -> list[Any]:
    """Read the inputs: token ids ``(length,)``, pixels ``(3, side, side)``, source and target."""
    if isinstance(runner, Decoder):
        pairs = zip(answers["prompts"], answers["lengths"], strict=True)
        return [row[:length] for row, length in pairs]
    count = sum(name.startswith(runner.input_name) for name in answers)
    inputs = [answers[f"{runner.input_name}_{index}"] for index in range(count)]
    if isinstance(runner, PairRunner):
        return [(source, answers[f"target_{index}"]) for index, source in enumerate(inputs)]
    return inputs


def _decoder_parity(decoder: Decoder, answers: Mapping[str, Array], limit: float) -> Parity:
    rows = _rows(decoder, answers)
    prompts = [row.tolist() for row in rows]
    error, alone = _errors_alone(decoder, rows, answers, "logits")
    greedy = answers["greedy"].tolist()
    found = decoder.greedy(prompts, len(greedy[0]))
    return Parity(
        max_abs_error=error,
        max_abs_error_limit=limit,
        padded_max_abs_error=left_padding_error(decoder, prompts[:_PADDED], alone),
        greedy_prompts=len(prompts),
        greedy_identical=sum(a == b for a, b in zip(found, greedy, strict=True)),
        greedy_tokens=len(greedy[0]),
    )


def _pair_parity(runner: PairRunner, answers: Mapping[str, Array], limit: float) -> Parity:
    rows = _rows(runner, answers)
    error, alone = _errors_alone(runner, rows, answers, "output")
    sources = [source for source, _ in rows]
    together = runner.together(sources[:_PADDED])
    targets = np.stack([target for _, target in rows[:_PADDED]])
    padded = zip(runner.forced(together[0], targets, together[1]), alone, strict=True)
    first = runner.start.length
    wanted = [target[first:].tolist() for _, target in rows]
    found = runner.greedy(sources, len(wanted[0]))
    return Parity(
        max_abs_error=error,
        max_abs_error_limit=limit,
        padded_max_abs_error=max(max_abs_error(*pair) for pair in padded),
        greedy_prompts=len(rows),
        greedy_identical=sum(a == b for a, b in zip(found, wanted, strict=True)),
        greedy_tokens=len(wanted[0]),
    )


def _encoder_parity(
    encoder: Encoder | ImageEncoder | Matcher, answers: Mapping[str, Array], limit: float
) -> Parity:
    rows = _rows(encoder, answers)
    error, alone = _errors_alone(encoder, rows, answers, "output")
    together = zip(encoder.run_together(rows[:_PADDED]), alone, strict=True)
    batched = max(max_abs_error(*pair) for pair in together)
    return Parity(error, limit, batched, greedy_prompts=0, greedy_identical=0, greedy_tokens=0)


def _errors_alone(
    runner: Runner,
    rows: Sequence[Any],
    answers: Mapping[str, Array],
    name: str,
) -> tuple[float, list[Array]]:
    """Run each row alone; return the largest error and the first few outputs."""
    error, alone = 0.0, []
    for index, row in enumerate(rows):
        outputs = _outputs(runner, row)
        error = max(error, max_abs_error(outputs, answers[f"{name}_{index}"]))
        if index < _PADDED:
            alone.append(outputs)
    return error, alone


def left_padding_error(
    decoder: Decoder, prompts: Sequence[Sequence[int]], alone: Sequence[Array]
) -> float:
    """Run prompts together; return the largest difference to each ``alone``."""
    ids, mask = left_padded(prompts, int(decoder.config.get("pad_token_id") or 0))
    logits, _ = decoder.logits(ids, mask)
    pairs = zip(logits, alone, strict=True)
    return max(max_abs_error(row[-len(single) :], single) for row, single in pairs)


def _outputs(runner: Runner, row: Any) -> Array:
    """Run one row alone; return its logits or hidden states."""
    if isinstance(runner, PairRunner):
        source, target = row
        logits: Array = runner.forced(source[None], target[None])[0]
        return logits
    given = row[None]
    batch = runner.logits(given)[0] if isinstance(runner, Decoder) else runner.run(given)
    outputs: Array = batch[0]
    return outputs


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


def _samples(
    runner: Runner,
    bundle: ExportBundle,
    text: Path | None,
    size: EvaluationSize,
    progress: Progress | None,
) -> Any:
    """Read what the runners of a task are judged on, with what is true of it where that is told."""
    if isinstance(runner, ImageEncoder):
        return _images(bundle, text, size)
    if isinstance(runner, Decoder):
        length = min(size.length, bundle.manifest.context_tokens)
        return chunk_tokens(read_text(text), read_tokenizer(bundle), size.chunks, length)
    if bundle.manifest.sound is not None:
        assert isinstance(runner, PairRunner)
        sounds = spread_lines(list_sounds(_given(text, SOUNDS)), size.pairs)
        features = list(read_sounds(listed(sounds), bundle.manifest.sound))
        return _known(draw_targets(runner, bundle, features, progress), transcripts(sounds))
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


def _known(samples: Any, truths: Sequence[str]) -> Any:
    return Known(samples, truths) if truths else samples


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
