"""Example inputs: a forward pass of every family takes them, in the sizes that are asked for."""

from __future__ import annotations

import pytest
import torch

from edgelr.model.loaded import LoadedModel
from tests.helpers.run_exports import MATCH_PIVOT, PAIR_PIVOT, every_exporter

Models = dict[str, LoadedModel]
ROWS, TOKENS = 2, 5


@every_exporter
def test_example_inputs_run(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    inputs = model.example_inputs(ROWS, TOKENS)
    with torch.no_grad():
        answer = model.module(**inputs)[0]
    assert len(answer) == ROWS
    assert torch.isfinite(answer).all()
    if model.image is None:
        assert inputs["input_ids"].shape == (ROWS, TOKENS)
    else:
        assert inputs["pixel_values"].shape == (ROWS, 3, model.image.side, model.image.side)


@pytest.mark.parametrize("name", [PAIR_PIVOT, "whisper"])
def test_a_source_and_its_target_have_lengths_of_their_own(tiny_models: Models, name: str) -> None:
    """A traced graph must not take two axes for one because their sizes were equal."""
    inputs = tiny_models[name].example_inputs(ROWS, TOKENS)
    source = inputs[tiny_models[name].module.main_input_name]
    assert inputs["decoder_input_ids"].shape[1] not in source.shape


def test_images_and_prompts_have_numbers_of_their_own(tiny_models: Models) -> None:
    inputs = tiny_models[MATCH_PIVOT].example_inputs(ROWS, TOKENS)
    assert len(inputs["input_ids"]) != len(inputs["pixel_values"]) == ROWS
