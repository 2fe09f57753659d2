"""Calibration batches: every real token once, and no padding counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgelr.core.errors import InputError
from edgelr.data.calibration import (
    Calibration,
    encode_prefix,
    from_chunks,
    from_samples,
    from_texts,
    load_tokenizer,
    spread,
    weights,
)
from edgelr.model.loaded import LoadedModel
from tests.conftest import SENTENCES

TEXT = " ".join(SENTENCES)
EVERYTHING = 10**6


@pytest.fixture
def tokenizer(tiny_decoder: LoadedModel) -> Tokenizer:
    """A new one for every test: texts of encoders change its truncation."""
    return load_tokenizer(tiny_decoder.folder)


@pytest.fixture
def encoder_tokenizer(tiny_encoder: LoadedModel) -> Tokenizer:
    return load_tokenizer(tiny_encoder.folder)


@pytest.fixture
def texts(encoder_tokenizer: Tokenizer) -> Calibration:
    return from_texts(list(SENTENCES), encoder_tokenizer, EVERYTHING, 24, "sentences")


def test_chunks_are_the_text_without_special_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    found = from_chunks(TEXT, tokenizer, EVERYTHING, 12, "text")
    assert found.inputs.shape == (len(ids) // 12, 12)
    assert found.inputs.ravel().tolist() == ids[: found.inputs.size]
    assert found.tokens == found.inputs.size
    assert (found.mask == 1).all()


def test_chunks_stop_at_the_tokens_that_were_asked_for(tokenizer: Tokenizer) -> None:
    assert from_chunks(TEXT, tokenizer, 50, 12, "text").inputs.shape == (4, 12)


def test_a_text_shorter_than_a_chunk_is_refused(tokenizer: Tokenizer) -> None:
    count = len(encode_prefix(TEXT, tokenizer, EVERYTHING))
    with pytest.raises(InputError, match=rf"my text\) holds {count:,} tokens.*chunk of 5,000"):
        from_chunks(TEXT, tokenizer, EVERYTHING, 5000, "my text")


def test_padding_of_the_tokenizer_never_reaches_a_chunk(tokenizer: Tokenizer) -> None:
    """Some tokenizers come with padding to a fixed length switched on."""
    expected = encode_prefix(TEXT, tokenizer, EVERYTHING)
    tokenizer.enable_padding(length=2 * len(expected))
    assert encode_prefix(TEXT, tokenizer, EVERYTHING) == expected


def test_texts_are_rows_with_special_tokens_and_padding_on_the_right(
    encoder_tokenizer: Tokenizer,
) -> None:
    found = from_texts(list(SENTENCES), encoder_tokenizer, EVERYTHING, 1000, "sentences")
    assert len(found.inputs) == len(SENTENCES)
    for row, mask, sentence in zip(found.inputs, found.mask, SENTENCES, strict=True):
        expected = encoder_tokenizer.encode(sentence).ids
        assert (expected[0], expected[-1]) == (1, 2)
        assert row[: len(expected)].tolist() == expected
        assert mask.tolist() == [1] * len(expected) + [0] * (found.inputs.shape[1] - len(expected))


def test_long_texts_are_cut_with_their_special_tokens(texts: Calibration) -> None:
    assert texts.inputs.shape == (len(SENTENCES), 24)
    assert texts.inputs[:, -1].tolist() == [2] * len(SENTENCES)


def test_texts_stop_once_there_are_enough_tokens(encoder_tokenizer: Tokenizer) -> None:
    found = from_texts(list(SENTENCES), encoder_tokenizer, 30, 24, "sentences")
    assert (len(found.inputs), found.tokens) == (2, 48)


def test_no_texts_are_refused(encoder_tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"\(nothing\) is empty"):
        from_texts([], encoder_tokenizer, 30, 24, "nothing")


def test_batches_hold_every_real_token_once() -> None:
    mask = np.tril(np.ones((7, 7), np.int64))  # rows of one to seven tokens
    calibration = Calibration(np.arange(49).reshape(7, 7), mask, "triangle")
    batches = list(calibration.batches(3))
    assert [ids.shape for ids, _ in batches] == [(3, 3), (3, 6), (1, 7)]
    found = np.concatenate([ids[kept == 1] for ids, kept in batches])
    assert found.tolist() == calibration.inputs[mask == 1].tolist()
    assert calibration.tokens == 28


@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (24, 1), (60, 2), (96, 4), (10**6, 6)])
def test_the_first_tokens_come_from_all_over_the_text(
    texts: Calibration, tokens: int, rows: int
) -> None:
    found = texts.first(tokens)
    assert len(found.inputs) == len(found.mask) == rows
    assert found.inputs[0].tolist() == texts.inputs[0].tolist()
    assert rows == 1 or found.inputs[-1].tolist() == texts.inputs[-1].tolist()


def rows_of_ones(*rows: int) -> list[Calibration]:
    return [from_samples(np.ones((each, 5), np.int64), str(each)) for each in rows]


def test_texts_weigh_by_the_roots_of_their_lengths() -> None:
    assert weights(rows_of_ones(4, 36)) == pytest.approx([0.25, 0.75])
    assert weights(rows_of_ones(7)) == [1.0]


@pytest.mark.parametrize(("tokens", "kept"), [(40, [10, 30]), (80, [20, 60]), (10**6, [20, 60])])
def test_spread_texts_keep_their_weights(tokens: int, kept: list[int]) -> None:
    found = spread(rows_of_ones(4, 36), tokens)
    assert [part.tokens for part in found] == kept
    assert [part.description for part in found] == ["4", "36"]


def test_spreading_equal_texts_over_all_they_have_changes_nothing() -> None:
    parts = rows_of_ones(6, 6)
    assert [part.key for part in spread(parts, 10**6)] == [part.key for part in parts]


def test_the_key_is_that_of_the_tokens(texts: Calibration) -> None:
    same = Calibration(texts.inputs.copy(), texts.mask.copy(), "another name")
    assert same.key == texts.key
    changed = texts.inputs.copy()
    changed[2, 3] += 1
    assert Calibration(changed, texts.mask, "").key != texts.key
    assert Calibration(texts.inputs, 1 - texts.mask, "").key != texts.key
    assert Calibration(texts.inputs.T, texts.mask.T, "").key != texts.key


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json.*Save one"):
        load_tokenizer(tmp_path)
