"""How targets begin: what a configuration forces, and a language that is heard, as transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgelr.core.errors import InputError
from edgelr.data.generation import Start, left_out, read_start
from edgelr.model.generate import answer, start_of
from edgelr.model.loaded import LoadedModel
from tests.conftest import TINY_PROMPT, random_sources

ENGLISH, GERMAN, TRANSCRIBE, TRANSLATE, UNTIMED = 20, 21, 30, 31, 40
HEARD = TINY_PROMPT
IDS = {name: value for name, value in HEARD.items() if name != "forced_decoder_ids"}
CONFIG = {"decoder_start_token_id": 1, "eos_token_id": 2}


def begun(generation: dict[str, Any], likeliest: int = GERMAN) -> list[int]:
    """What a target begins with where this language is heard."""

    def ask(ids: np.ndarray) -> np.ndarray:
        assert ids.tolist() == [[1]]
        return np.eye(50)[[likeliest]]

    start = read_start(CONFIG, generation)
    (row,) = start.begin(1, ask).tolist()
    assert len(row) == start.length
    return row


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({}, [1]),
        ({"no_timestamps_token_id": UNTIMED, "forced_decoder_ids": [[1, UNTIMED]]}, [1, UNTIMED]),
        ({"no_timestamps_token_id": UNTIMED}, [1, UNTIMED]),
        (HEARD, [1, GERMAN, TRANSCRIBE, UNTIMED]),
        (IDS, [1, GERMAN, UNTIMED]),
        ({**HEARD, "language": "en"}, [1, ENGLISH, TRANSCRIBE, UNTIMED]),
        ({**HEARD, "language": "<|en|>", "task": "translate"}, [1, ENGLISH, TRANSLATE, UNTIMED]),
        ({**IDS, "task": "translate"}, [1, GERMAN, TRANSLATE, UNTIMED]),
        ({"forced_decoder_ids": [[1, None], [2, TRANSCRIBE]]}, [1, TRANSCRIBE]),
        ({**IDS, "forced_decoder_ids": [[2, TRANSCRIBE], [1, ENGLISH]]},
         [1, ENGLISH, TRANSCRIBE, UNTIMED]),
        ({"forced_bos_token_id": 7}, [1, 7]),
    ],
)  # fmt: skip
def test_a_target_begins_with_what_is_asked_for(
    generation: dict[str, Any], expected: list[int]
) -> None:
    assert begun(generation) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"language": "hindi"}, r"language 'hindi'; expected one of <\|de\|>, <\|en\|>"),
        ({"task": "sing"}, r"task 'sing'; expected one of transcribe, translate"),
    ],
)
def test_what_has_no_token_is_refused(asked: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_start(CONFIG, {**HEARD, **asked})


def test_some_tokens_are_ruled_out_at_the_beginning_alone() -> None:
    start = read_start(CONFIG, {"suppress_tokens": [5], "begin_suppress_tokens": [7, 2]})
    assert start == Start((1,), (2,), (5,), (7, 2))
    for generated, expected in ((0, [2, 5, 7]), (1, [5])):
        allowed = start.allowed(np.zeros((1, 10)), generated)[0]
        assert np.isneginf(allowed).nonzero()[0].tolist() == expected


@pytest.mark.parametrize("asked", [{}, {"language": "<|de|>"}, {"task": "translate"}])
def test_answers_are_those_of_transformers(
    tiny_models: dict[str, LoadedModel], asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_models["whisper"]
    module: Any = model.module
    for name, value in asked.items():
        monkeypatch.setattr(module.generation_config, name, value, raising=False)
    given = random_sources(model, 3, 9)
    sources, mask = torch.tensor(given.inputs), torch.tensor(given.mask)
    found = answer(model, sources, mask, 8)
    for source, row in zip(sources, found, strict=True):
        expected = module.generate(source[None], max_new_tokens=8, min_new_tokens=8)[0].tolist()
        assert row[start_of(model).length :] == expected[-8:]


def test_what_a_bundle_does_not_do_is_listed_and_the_rest_is_not() -> None:
    usual = {"eos_token_id": [2, 5], "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    nothing = {"num_beams": 1, "repetition_penalty": 1.0, "guidance_scale": None, "use_cache": True}
    assert left_out(usual | nothing, has_start=False) == {}
    asked = {"num_beams": 4, "no_repeat_ngram_size": 3, "something_new": "x"}
    assert left_out(usual | nothing | asked, has_start=False) == asked
    starts = {"suppress_tokens": [5], "forced_bos_token_id": 4}
    assert left_out(starts, has_start=True) == {}
    assert left_out(starts, has_start=False) == starts
