"""Same answers? As the compressed torch model (parity), and as the original one (accuracy)."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.results import DENSE_LIMIT, DenseParity, Metric, Parity
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.text import EvaluationSize
from edgelr.runtime.evaluators import evaluators_for
from edgelr.runtime.requests import ON_CPU, Evaluation, Execution
from edgelr.runtime.runners import Runner, numbered, runner_of

ROUNDING_MARGIN = 4.0  # other kernels round elsewhere, and more or less often
_PADDED = 4  # inputs in the padded batch
_PADDED_DENSE = 2


def accuracy(
    reference: ExportBundle,
    candidate: ExportBundle,
    source: Path | None = None,
    execution: Execution = ON_CPU,
    size: EvaluationSize | None = None,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare a candidate with its reference, by every evaluator of their task.

    Args:
        reference: dense export of the original model.
        candidate: bundle that is compared with it.
        source: ``.txt`` or ``.jsonl`` file; None takes the text that ships with Python. Of models
            of images or sounds, see ``images.list_images`` and ``audio.list_sounds``; of a graph
            from anywhere, inputs as ``tensors.write_samples`` writes them, and None takes those in
            the bundle.
        execution: provider and threads of both.
        size: amount of the source that is used; None takes the usual one.
        progress: callback after each sample.

    Raises:
        InputError: the two have different tasks, the text is too short, or no images or
            sounds are given.
    """
    if reference.manifest.task != (task := candidate.manifest.task):
        raise InputError(
            f"{reference.folder} is for {reference.manifest.task}, {candidate.folder} for {task}. "
            f"Expected one task. Compare a bundle with its own dense export."
        )
    first, second = (runner_of(each).open(each, execution) for each in (reference, candidate))
    size = size or EvaluationSize()
    samples = first.samples(Evaluation(reference, candidate, source, size, progress))
    comparisons = (compare(first, second, samples, progress) for compare in evaluators_for(task))
    return tuple(chain.from_iterable(comparisons))


def parity(
    bundle: ExportBundle,
    answers: Path,
    limit: float = 1e-3,
    execution: Execution = ON_CPU,
) -> Parity:
    """Compare a bundle with what the compressed model answered elsewhere to the same inputs.

    Args:
        bundle: bundle that is run.
        answers: ``.npz`` file. Of a decoder: ``prompts (prompts, longest)`` int64 and ``lengths``,
            ``logits_i (length, vocabulary)`` for each prompt, ``greedy (prompts, tokens)``. Of an
            encoder: ``input_ids_i (length,)`` and ``output_i``, the answer of its graph to one
            text; of an image model ``pixel_values_i (3, side, side)`` instead; where texts and
            images are compared, either of the two as ``row_i``. Of an encoder-decoder: ``source_i
            (length,)``, its greedy ``target_i (tokens + 1,)``, and ``output_i``, the logits of all
            but the first. With them ``rounding``, the float32 rounding noise of these answers, if
            it was measured. Of a graph from anywhere: see ``runners.tensors.write_answers``.
        limit: largest absolute error that passes; an answer that is not finite never does. Where
            ``ROUNDING_MARGIN`` times the rounding is more, that is the limit.
        execution: provider and threads.

    Raises:
        InputError: ``answers`` cannot be read.
    """
    runner = runner_of(bundle).open(bundle, execution)
    with open_answers(answers, runner) as arrays:
        wanted = runner.read_answers(arrays)
        if "rounding" in arrays and np.isfinite(arrays["rounding"]):
            limit = max(limit, ROUNDING_MARGIN * float(arrays["rounding"]))
    error = 0.0
    alone: list[Array] = []
    for each in wanted:
        output = runner.run_alone(each.row)
        error = max(error, max_abs_error(output, each.output))
        if len(alone) < _PADDED:
            alone.append(output)
    generated = [each for each in wanted if each.tokens]
    found = [tuple(runner.generate(each.row, len(each.tokens))) for each in generated]
    return Parity(
        max_abs_error=error,
        max_abs_error_limit=limit,
        padded_max_abs_error=padding_error(runner, [each.row for each in wanted], alone),
        greedy_prompts=len(generated),
        greedy_identical=sum(a == b.tokens for a, b in zip(found, generated, strict=True)),
        greedy_tokens=len(generated[0].tokens) if generated else 0,
    )


def dense_parity(bundle: ExportBundle, answers: Path) -> DenseParity:
    """Compare a dense graph with what the original answered to random inputs.

    Args:
        bundle: dense export.
        answers: ``.npz`` file as for ``parity``; an output may be that of the last positions alone.
            Of a model that embeds also ``vector_i``, the embeddings.
    """
    runner = runner_of(bundle).open(bundle, tokenizer=False)
    with open_answers(answers, runner) as arrays:
        wanted = runner.read_answers(arrays)
        vectors = numbered(arrays, "vector")
    errors: list[float] = []
    apart = [0.0]
    outside: list[int] = []
    alone: list[Array] = []
    for each, vector in zip_longest(wanted, vectors):
        output = runner.run_alone(each.row)
        if vector is not None:
            apart.append(max_abs_error(runner.vector(output), vector))
        found = output[-len(each.output) :]
        errors.append(max_abs_error(found, each.output))
        outside += _outside(found, each.output, len(output))
        if len(alone) < _PADDED_DENSE:
            alone.append(output)
    return DenseParity(
        against="torch",
        rows=len(wanted),
        max_abs_error=max(errors),
        padded_max_abs_error=padding_error(runner, [each.row for each in wanted], alone),
        largest_output=max(float(np.abs(each.output).max()) for each in wanted),
        first_position=min(outside, default=None),
        vector_max_abs_error=max(apart),
    )


def _outside(found: Array, expected: Array, length: int) -> list[int]:
    """Find the first position whose output is outside the limit, in an output ``(length, n)``."""
    if found.ndim != 2 or found.shape != expected.shape:
        return []
    errors = np.abs(found - expected).max(axis=-1)
    wrong = np.flatnonzero(~(errors <= DENSE_LIMIT * np.abs(expected).max()))
    return [length - len(expected) + int(wrong[0])] if len(wrong) else []


def twin_error(
    shipped: ExportBundle, twin: ExportBundle, answers: Path, execution: Execution = ON_CPU
) -> float:
    """Find how far the outputs of a bundle are from its exact float32 twin's.

    Both read each input of ``answers`` (see ``parity``) alone. The largest difference is divided by
    the largest output of the twin: the errors of float16 and of quantized products are relative.
    """
    runners = [runner_of(bundle).open(bundle, execution) for bundle in (shipped, twin)]
    with open_answers(answers, runners[0]) as arrays:
        rows = [each.row for each in runners[0].read_answers(arrays)]
    worst = 0.0
    for row in rows:
        found, expected = (runner.run_alone(row) for runner in runners)
        worst = max(worst, max_abs_error(found, expected) / float(np.abs(expected).max()))
    return worst


def padding_error(runner: Runner, rows: Sequence[Any], alone: Sequence[Array]) -> float:
    """Find the largest difference between rows that run as one padded batch, and alone.

    Args:
        runner: runner of the bundle.
        rows: inputs; as many of them run together as ``alone`` has answers.
        alone: outputs of the first rows.
    """
    pairs = zip(runner.run_together(rows[: len(alone)]), alone, strict=False)
    return max((max_abs_error(*pair) for pair in pairs), default=0.0)


def max_abs_error(found: Array, expected: Array) -> float:
    """Find the largest absolute difference; infinite when a value is not finite."""
    kind = np.result_type(found, expected, np.float32)  # of float16 in float32
    differences = np.abs(found.astype(kind) - expected.astype(kind))
    error = float(differences.max(initial=0.0))
    return error if np.isfinite(error) else float("inf")


def open_answers(path: Path, runner: Runner) -> NpzFile:
    """Open a file of reference answers.

    Raises:
        InputError: it cannot be read, or is that of another kind of model.
    """
    try:
        arrays: NpzFile = np.load(path, allow_pickle=False)
        missing = set(runner.answer_names).difference(getattr(arrays, "files", ()))
        problem = f"it lacks {', '.join(sorted(missing))}" if missing else ""
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        problem = str(error)
    if not problem:
        return arrays
    raise InputError(
        f"Cannot read the reference answers {path}: {problem}. Expected an .npz that edgelr "
        f"wrote for this model. Export the model again."
    )
