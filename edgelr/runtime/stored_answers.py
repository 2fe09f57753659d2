"""Answers that travel with a bundle: what it answered at the export, for the machine it runs on.

They need neither torch nor the original. A bundle that answers as it did then is as accurate as its
report says.
"""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np

from edgelr.core.bundle import STORED_ANSWERS, ExportBundle
from edgelr.core.errors import InputError
from edgelr.core.results import Parity
from edgelr.core.vocabulary import Array
from edgelr.runtime.reference_tests.write import ELSEWHERE, kind_of
from edgelr.runtime.requests import ON_CPU, Execution
from edgelr.runtime.runners import ReferenceAnswer, runner_of
from edgelr.runtime.validate import max_abs_error, open_answers, padding_error

VALUES = 65536  # of one output, spread over it
CPU_FLOAT32 = 1e-3  # of the largest output: CPUs of all kinds round float32 alike
PADDED = 4  # inputs in the padded batch


def store_answers(bundle: ExportBundle, answers: Path) -> None:
    """Answer the inputs of a file of reference answers, and store both in the bundle.

    Args:
        bundle: bundle as it ships, which is run on the CPU.
        answers: ``.npz`` file as for ``validate.parity``.
    """
    import onnxruntime as ort

    runner = runner_of(bundle).open(bundle, tokenizer=False)
    with open_answers(answers, runner) as given:
        arrays = runner.answer_again(given)
    thinned = {
        name: _thinned(array) if name.startswith(f"{runner.output_name}_") else array
        for name, array in arrays.items()
    }
    where = np.array(f"{platform.machine()}, onnxruntime {ort.__version__}")
    np.savez_compressed(bundle.folder / STORED_ANSWERS, allow_pickle=False, where=where, **thinned)


def same_answers(bundle: ExportBundle, execution: Execution = ON_CPU) -> Parity:
    """Compare a bundle with what it answered at the export.

    Texts that are written token by token are compared where all is float32: a rounded weight lets
    other processors choose another of two likely tokens.

    Args:
        bundle: bundle that is run.
        execution: provider and threads.

    Raises:
        InputError: the bundle holds no answers.
    """
    path = bundle.folder / STORED_ANSWERS
    if not path.is_file():
        raise InputError(
            f"{bundle.folder} holds no {STORED_ANSWERS}. Expected a bundle that stores what it "
            f"answered at the export. Export the model again, or name the original with --against."
        )
    runner = runner_of(bundle).open(bundle, execution, tokenizer=False)
    with open_answers(path, runner) as arrays:
        wanted, where = runner.read_answers(arrays), str(arrays["where"])
    found = [runner.run_alone(each.row) for each in wanted]
    errors = [_error(*pair) for pair in zip(found, wanted, strict=True)]
    texts = [each for each in wanted if each.tokens and kind_of(bundle) == "float32"]
    written = [tuple(runner.generate(each.row, len(each.tokens))) for each in texts]
    largest = max(float(np.nanmax(np.abs(each.output), initial=0.0)) for each in wanted)
    return Parity(
        max_abs_error=max(errors),
        max_abs_error_limit=_tolerance(bundle, execution) * largest,
        padded_max_abs_error=padding_error(runner, [each.row for each in wanted], found[:PADDED]),
        greedy_prompts=len(texts),
        greedy_identical=sum(a == b.tokens for a, b in zip(written, texts, strict=True)),
        greedy_tokens=len(texts[0].tokens) if texts else 0,
        against=f"its answers at the export ({where})",
    )


def _error(found: Array, wanted: ReferenceAnswer) -> float:
    """Find the largest difference where a value is stored."""
    stored = ~np.isnan(wanted.output)
    return max_abs_error(found[stored], wanted.output[stored])


def _tolerance(bundle: ExportBundle, execution: Execution) -> float:
    """Say how far answers may be from those of another machine, as a share of the largest."""
    kind = kind_of(bundle)
    plain = kind == "float32" and execution.provider == "cpu"
    return CPU_FLOAT32 if plain else ELSEWHERE[kind]


def _thinned(output: Array) -> Array:
    """Keep every n-th value of a large output, and write NaN elsewhere, which takes no room."""
    step = max(1, -(-output.size // VALUES))
    thinned = np.full(output.size, np.nan, output.dtype)
    thinned[::step] = output.reshape(-1)[::step]
    return thinned.reshape(output.shape)
