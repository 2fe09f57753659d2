"""Sizes of models: what is counted of them is what their modules have."""

from __future__ import annotations

import numpy as np
import torch

from edgelr.core.tasks import TASKS
from edgelr.device.budget import cache_bytes
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import as_tensors, named_inputs
from tests.conftest import MakeModel, random_rows
from tests.helpers.run_exports import every_exporter, every_pair

Models = dict[str, LoadedModel]
TOKENS = 7


def run(model: LoadedModel) -> dict[str, torch.Tensor]:
    given = random_rows(model, 1, TOKENS)
    caches = {"use_cache": True} if TASKS.get(model.task).loss.endswith("_token") else {}
    with torch.no_grad():
        named = named_inputs(model, *as_tensors(given.inputs, given.mask))
        answer: dict[str, torch.Tensor] = model.module(**named, **caches)
    return answer


@every_exporter
def test_logits_are_as_wide_as_the_vocabulary_and_caches_as_large_as_budgets_say(
    tiny_models: Models, exporter: str
) -> None:
    model = tiny_models[exporter]
    shape, answer = model.dimensions, run(model)
    if shape.vocab_size:
        assert answer["logits"].shape[-1] == shape.vocab_size
    cached = [
        part for layer in answer.get("past_key_values") or () for part in layer[:2]
    ]  # keys and values
    held = sum(part.nbytes for part in cached)
    assert held == cache_bytes(shape, 1, TOKENS, "float32")
    assert len(cached) == (2 * shape.layers if shape.kv_heads else 0)


@every_exporter
def test_linears_are_as_wide_as_the_model(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    shape = model.dimensions
    sizes = {size for weight in model.module.parameters() for size in weight.shape}
    assert {shape.hidden_size, shape.intermediate_size} <= sizes
    assert shape.layers >= 1
    assert shape.head_size * shape.attention_heads in sizes | {0}  # without attention


@every_pair
def test_a_decoder_beside_an_encoder_counts_the_positions_of_the_source(
    tiny_models: Models, exporter: str
) -> None:
    model = tiny_models[exporter]
    shape, longest = model.dimensions, model.longest_text
    assert shape.source_tokens == (model.sound.tokens if model.sound else longest)
    assert shape.kv_heads > 0
    assert run(model)["logits"].shape[-1] == shape.vocab_size


def test_an_image_is_as_long_as_its_tokens(tiny_models: Models) -> None:
    model = tiny_models["vit"]
    assert model.image is not None
    assert model.longest_text == model.image.tokens


def test_a_sliding_window_ends_the_context(make_model: MakeModel) -> None:
    assert make_model("mistral", sliding_window=40).longest_text == 40
    assert make_model("mistral", sliding_window=None).longest_text == 128


def test_positions_that_are_kept_for_padding_shorten_the_context(make_model: MakeModel) -> None:
    assert make_model("roberta").longest_text == 72 - 1
    assert make_model("bert").longest_text == 72


def test_the_longest_text_runs_and_a_longer_one_does_not(make_model: MakeModel) -> None:
    model = make_model("roberta")
    longest = model.longest_text
    for tokens, fits in ((longest, True), (longest + 1, False)):
        ids = torch.tensor(np.full((1, tokens), 7))
        try:
            model.module(input_ids=ids)
        except (IndexError, RuntimeError):
            assert not fits
        else:
            assert fits
