"""Bundles that answer: what their runners answer, and a refusal for every other question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import read_tokenizer
from edgelr.core.errors import InputError
from edgelr.data.generation import until_end
from edgelr.runtime.open_bundle import Bundle
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from tests.helpers.runtime_graphs import decoder_model, encoder_model, write_bundle

TEXTS = ["red green blue", "one two"]


def test_vectors_are_those_of_the_runner_and_of_unit_length(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "encoder", encoder_model())
    found = Bundle(tmp_path / "encoder", threads=1).embed(TEXTS)
    np.testing.assert_array_equal(found, TextEncoderRunner.open(written).embed(TEXTS))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_a_text_is_continued_by_the_likeliest_tokens(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "decoder", decoder_model())
    decoder, tokenizer = DecoderRunner.open(written), read_tokenizer(written)
    prompt = np.array(tokenizer.encode(TEXTS[0]).ids)
    (tokens,) = decoder.continued([prompt], 4)
    expected = tokenizer.decode(until_end(tokens.tolist(), decoder.ends))
    assert expected
    assert Bundle(tmp_path / "decoder", threads=1).generate(TEXTS[0], max_tokens=4) == expected


@pytest.mark.parametrize(
    ("method", "argument"),
    [("embed", TEXTS), ("classify", TEXTS), ("transcribe", []), ("run", None)],
)
def test_what_a_decoder_cannot_answer_is_refused_by_name(
    tmp_path: Path, method: str, argument: list[str] | None
) -> None:
    write_bundle(tmp_path / "decoder", decoder_model())
    asked = getattr(Bundle(tmp_path / "decoder"), method)
    with pytest.raises(InputError, match=f"is for text-generation, and {method} takes bundles"):
        asked() if argument is None else asked(argument)


def test_a_folder_that_is_no_bundle_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no edgelr/manifest\.json"):
        Bundle(tmp_path)
