from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle
from edgelr.core.errors import InputError
from edgelr.runtime.requests import TextRequest
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.sampling import draw, sample_tokens
from tests.helpers.runtime_graphs import VOCABULARY, decoder_model, encoder_model, write_bundle

BOS, EOS = 1, 2


@pytest.fixture
def bundle(tmp_path: Path) -> ExportBundle:
    return write_bundle(tmp_path / "decoder", decoder_model())


def test_drawing_inverts_the_cumulative_distribution() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((40, 1000)).astype(np.float32)  # no multiple of a block
    uniforms = np.concatenate([generator.random(38), [0.0, np.nextafter(1.0, 0.0)]])
    weights = np.exp(logits.astype(np.float64))
    shares = weights.cumsum(-1) / weights.sum(-1, keepdims=True)
    expected = np.minimum((shares <= uniforms[:, None]).sum(-1), 999)
    assert np.abs(draw(logits, uniforms) - expected).max() <= 1  # the last bit of float32


def test_draws_follow_the_probabilities() -> None:
    probabilities = np.array([0.5, 0.3, 0.0, 0.2])
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities).astype(np.float32)
    uniforms = (np.arange(1000) + 0.5) / 1000
    counts = np.bincount(draw(np.tile(logits, (1000, 1)), uniforms), minlength=4)
    assert np.abs(counts / 1000 - probabilities).max() <= 1e-3
    assert counts[2] == 0


def test_equal_seeds_give_equal_rows(bundle: ExportBundle) -> None:
    first = sample_tokens(bundle, TextRequest(100, 16, 4, seed=0, prefix=(BOS,)))
    assert (first.shape, first.dtype) == ((7, 16), np.int64)
    np.testing.assert_array_equal(
        first, sample_tokens(bundle, TextRequest(100, 16, 4, seed=0, prefix=(BOS,)))
    )
    assert (first != sample_tokens(bundle, TextRequest(100, 16, 4, seed=1, prefix=(BOS,)))).any()


def test_rows_start_with_the_prefix_and_then_anywhere(bundle: ExportBundle) -> None:
    rows = sample_tokens(bundle, TextRequest(128, 4, 32, seed=0, prefix=(BOS, 5)))
    assert (rows[:, :2] == (BOS, 5)).all()
    assert len(np.unique(rows[:, 2])) > VOCABULARY // 2


def test_after_an_end_another_text_starts_anywhere(bundle: ExportBundle) -> None:
    """Where the model would go on with one token, any may come."""
    rows = sample_tokens(bundle, TextRequest(4000, 40, 100, seed=0, temperature=20.0))
    ends = rows[:, :-1] == EOS
    assert ends.sum() > VOCABULARY
    assert len(np.unique(rows[:, 1:][ends])) > VOCABULARY // 2


def test_a_low_temperature_is_greedy(bundle: ExportBundle) -> None:
    rows = sample_tokens(bundle, TextRequest(9, 9, 1, seed=0, prefix=(4,), temperature=1e-4))
    first = int(rows[0, 1])
    greedy = DecoderRunner.open(bundle).greedy([[4, first]], 7)[0]
    upto = greedy.index(EOS) if EOS in greedy else 7
    assert rows[0, 2 : upto + 2].tolist() == greedy[:upto]


def test_progress_reaches_the_total(bundle: ExportBundle) -> None:
    calls: list[tuple[str, int, int]] = []
    request = TextRequest(48, 8, 4, 0, (BOS,))
    sample_tokens(bundle, request, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("sample", 48, 48)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_encoders_and_senseless_numbers_are_refused(bundle: ExportBundle, tmp_path: Path) -> None:
    encoder = write_bundle(tmp_path / "encoder", encoder_model())
    with pytest.raises(InputError, match="feature-extraction"):
        sample_tokens(encoder, TextRequest(8, 8, 1, 0, (BOS,)))
    with pytest.raises(InputError, match="positive"):
        sample_tokens(bundle, TextRequest(8, 8, 1, 0, (BOS,), temperature=0))
