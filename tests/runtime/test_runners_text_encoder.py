"""Text encoders: vectors and labels of texts; what they share with encoders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.errors import InputError
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.runners.forward import each_decision, forward_phases, pooled
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from tests.helpers.runtime_graphs import (
    FEATURES,
    decoder_model,
    embedding_table,
    encoder_model,
    write_bundle,
)


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoderRunner:
    bundle = write_bundle(tmp_path / "encoder", encoder_model())
    return TextEncoderRunner.open(bundle, Execution(threads=1))


def test_embeddings_are_unit_means_of_the_real_tokens(encoder: TextEncoderRunner) -> None:
    found = encoder.embed(["red green", "sea", "sun moon blue"], batch=2)
    table = embedding_table()
    expected = np.stack([table[[1, 2]].mean(0), table[7], table[[9, 10, 3]].mean(0)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (found.shape, found.dtype) == ((3, FEATURES), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cls_pooling_and_truncation(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", encoder_model(), pooling="cls", context_tokens=2)
    encoder = TextEncoderRunner.open(bundle)
    first = embedding_table()[1]
    np.testing.assert_allclose(encoder.embed(["red sea"])[0], first / np.linalg.norm(first), 1e-6)
    mean = TextEncoderRunner(encoder.session, encoder.tokenizer, "mean", max_tokens=2)
    np.testing.assert_array_equal(mean.embed(["red sea sky sun"]), mean.embed(["red sea"]))


def test_a_graph_of_another_kind_is_refused(tmp_path: Path) -> None:
    decoder = DecoderRunner.open(write_bundle(tmp_path / "decoder", decoder_model()))
    with pytest.raises(InputError, match="past_key_values"):
        TextEncoderRunner(decoder.session)


def test_tokens_have_labels_where_they_are_real(encoder: TextEncoderRunner) -> None:
    """The hidden states stand for logits: those of two and of three tokens."""
    found = encoder.decide(["red green", "sea sky sun"])
    np.testing.assert_array_equal(found, embedding_table()[[1, 2, 7, 8, 9]])


def test_a_model_that_fills_masks_decides_about_them_alone(encoder: TextEncoderRunner) -> None:
    filling = TextEncoderRunner(encoder.session, encoder.tokenizer, mask_token=10)
    found = filling.decide(["red green blue one two three sea", "sky"])
    np.testing.assert_array_equal(found, embedding_table()[[10, 10]])


def test_pooling_leaves_padding_out() -> None:
    hidden = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    means = np.stack([hidden[0].mean(0), hidden[1, :2].mean(0)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled(hidden, mask, "mean"), expected, rtol=1e-6)
    first = hidden[:, 0] / np.linalg.norm(hidden[:, 0], axis=1, keepdims=True)
    np.testing.assert_array_equal(pooled(hidden, mask, "cls"), first)


def test_each_label_becomes_a_decision_between_yes_and_no() -> None:
    found = each_decision(np.array([[3.0, -1.0], [0.5, 2.0]]))
    assert found.tolist() == [[3, 0], [-1, 0], [0.5, 0], [2, 0]]


def test_one_input_and_several_are_timed() -> None:
    assert [(each.batch, each.tokens) for each in forward_phases(9)] == [(1, 9), (8, 9)]
