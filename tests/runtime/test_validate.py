from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.data.text import EvaluationSize
from edgelr.runtime.validate import accuracy, max_abs_error, parity, twin_error
from tests.helpers.runtime_bundles import PROMPTS, reference_answers
from tests.helpers.runtime_graphs import (
    VOCABULARY,
    WORDS,
    decoder_logits,
    decoder_model,
    encoder_model,
    write_bundle,
)

SMALL = EvaluationSize(chunks=3, length=16, sentences=10)


@pytest.fixture
def decoder(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "decoder", decoder_model())


@pytest.fixture
def encoder(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "encoder", encoder_model())


def decoder_answers() -> dict[str, np.ndarray]:
    return reference_answers("decoder")


def saved(path: Path, answers: dict[str, np.ndarray]) -> Path:
    np.savez(path, **answers)
    return path


def words(count: int) -> str:
    return " ".join(np.random.default_rng(0).choice(WORDS[1:], size=count))


def test_other_logits_fail_with_their_distance(decoder: ExportBundle, tmp_path: Path) -> None:
    answers = decoder_answers()
    answers["logits_4"][1, 2] += 0.5
    found = parity(decoder, saved(tmp_path / "answers.npz", answers))
    assert not found.passed
    assert found.max_abs_error == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("rounding", "passes"),
    [(1e-6, False), (0.1, False), (0.15, True), (np.inf, False), (np.nan, False)],
)
def test_answers_that_float32_decides_badly_may_differ_more(
    decoder: ExportBundle, tmp_path: Path, rounding: float, passes: bool
) -> None:
    answers = decoder_answers()
    answers["logits_4"][1, 2] += 0.5
    answers["rounding"] = np.array(rounding)
    found = parity(decoder, saved(tmp_path / "answers.npz", answers))
    measured = 4 * rounding if np.isfinite(rounding) else 0.0
    assert found.max_abs_error_limit == pytest.approx(max(1e-3, measured))
    assert found.passed is passes


def test_one_other_greedy_token_fails(decoder: ExportBundle, tmp_path: Path) -> None:
    answers = decoder_answers()
    answers["greedy"][2, 5] = (answers["greedy"][2, 5] + 1) % VOCABULARY
    found = parity(decoder, saved(tmp_path / "answers.npz", answers))
    assert (found.greedy_identical, found.passed) == (4, False)


def test_an_answer_that_is_not_finite_never_passes() -> None:
    zeros, broken = np.zeros(3), np.array([0, np.nan, 0])
    assert max_abs_error(zeros, zeros) == 0
    assert max_abs_error(zeros, broken) == max_abs_error(broken, zeros) == float("inf")


def test_unreadable_answers_are_refused(decoder: ExportBundle, tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    incomplete = saved(tmp_path / "incomplete.npz", {"prompts": np.zeros((1, 1))})
    for path in (tmp_path / "none.npz", tmp_path / "broken.npz", incomplete):
        with pytest.raises(InputError, match="Cannot read the reference answers"):
            parity(decoder, path)


def test_twins_differ_by_their_weights(decoder: ExportBundle, tmp_path: Path) -> None:
    """By the largest difference, as a share of the largest output of the twin."""
    other = write_bundle(tmp_path / "other", decoder_model(seed=1))
    twins = [(decoder_logits(prompt), decoder_logits(prompt, seed=1)) for prompt in PROMPTS]
    expected = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in twins)
    answers = saved(tmp_path / "answers.npz", decoder_answers())
    assert twin_error(decoder, decoder, answers) == 0
    assert twin_error(other, decoder, answers) == pytest.approx(expected, abs=1e-4)


def test_progress_is_that_of_every_evaluator(decoder: ExportBundle, tmp_path: Path) -> None:
    uniform = write_bundle(tmp_path / "uniform", decoder_model(uniform=True))
    text = tmp_path / "text.txt"
    text.write_text(words(60))
    calls: list[tuple[str, int, int]] = []
    found = accuracy(decoder, uniform, text, size=SMALL, progress=lambda *call: calls.append(call))
    expected = [("evaluate", done, 3) for done in (1, 2, 3)]
    assert calls == expected + [("generate", done, 4) for done in (1, 2, 3, 4)]
    names = [metric.name for metric in found]
    assert names[:4] == ["perplexity", "kl_divergence", "top1_agreement", "same_tokens"]
    assert found[0].value == pytest.approx(VOCABULARY, rel=1e-6)
    assert found[0].samples == 3 * 15


def test_chunks_are_no_longer_than_the_context(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", decoder_model(), context_tokens=8)
    (tmp_path / "text.txt").write_text(words(60))
    found = accuracy(bundle, bundle, tmp_path / "text.txt", size=SMALL)
    assert found[0].samples == 3 * 7


def test_a_bundle_of_another_task_is_refused(decoder: ExportBundle, encoder: ExportBundle) -> None:
    with pytest.raises(InputError, match="one task"):
        accuracy(decoder, encoder)
