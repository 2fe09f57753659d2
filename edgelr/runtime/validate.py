"""Same answers? As the compressed torch model (parity), and as the original one (accuracy)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.results import Metric, Parity
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.padding import left_padded
from edgelr.data.text import EvaluationSize
from edgelr.runtime.eval_samples import Runner, open_runner, samples_of
from edgelr.runtime.evaluators import evaluators_for
from edgelr.runtime.runners.decoder import Decoder
from edgelr.runtime.runners.dual_encoder import Matcher
from edgelr.runtime.runners.encoder import Encoder
from edgelr.runtime.runners.encoder_decoder import PairRunner
from edgelr.runtime.runners.image_encoder import ImageEncoder

ROUNDING_MARGIN = 4.0  # other kernels round elsewhere, and more or less often
_PADDED = 4  # prompts in the padded batch


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
    samples = samples_of(first, reference, candidate, text, size, progress)
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
            but the first. With them ``rounding``, how far float32 decides the answers, if it was
            measured.
        provider: ``"cpu"`` or ``"cuda"``.
        limit: largest absolute error that passes; an answer that is not finite never does. Where
            ``ROUNDING_MARGIN`` times the rounding is more, that is the limit.
        threads: threads of one operator; None takes every core.

    Raises:
        InputError: ``answers`` cannot be read.
    """
    runner = open_runner(bundle, provider, threads)
    with _open_answers(answers, runner) as arrays:
        if "rounding" in arrays and np.isfinite(arrays["rounding"]):
            limit = max(limit, ROUNDING_MARGIN * float(arrays["rounding"]))
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
