"""What the graph is compared with: answers in torch, and how far float32 decides them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgelr.compress.factors import LowRank
from edgelr.compress.reference_outputs import write_answers
from edgelr.model.loaded import LoadedModel

PROMPTS = [np.array(ids) for ids in ([5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15])]
GATE = "model.layers.0.mlp.gate_proj"


def test_a_decoders_answers_are_its_logits_and_greedy_tokens(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    write_answers(tiny_decoder, {}, PROMPTS, 4, tmp_path / "answers.npz")
    found = np.load(tmp_path / "answers.npz")
    assert found["lengths"].tolist() == [4, 1, 6]
    for index, prompt in enumerate(PROMPTS):
        assert found["prompts"][index].tolist() == [*prompt, *[0] * (6 - len(prompt))]
        tokens = list(prompt)
        for token in found["greedy"][index].tolist():  # without a cache
            with torch.no_grad():
                logits = tiny_decoder.module(torch.tensor([tokens])).logits[0]
            if len(tokens) == len(prompt):
                np.testing.assert_allclose(found[f"logits_{index}"], logits, atol=1e-4)
            assert token == int(logits[-1].argmax())
            tokens.append(token)
    assert found["greedy"].shape == (3, 4)


def test_an_encoders_answers_are_its_hidden_states(
    tiny_encoder: LoadedModel, tmp_path: Path
) -> None:
    write_answers(tiny_encoder, {}, PROMPTS, 4, tmp_path / "answers.npz")
    found = np.load(tmp_path / "answers.npz")
    for index, prompt in enumerate(PROMPTS):
        assert found[f"input_ids_{index}"].tolist() == prompt.tolist()
        with torch.no_grad():
            expected = tiny_encoder.module(torch.tensor(prompt[None])).last_hidden_state[0]
        np.testing.assert_allclose(found[f"output_{index}"], expected, atol=1e-5)


def test_what_is_not_compressed_rounds_as_it_did(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    write_answers(tiny_decoder, {}, PROMPTS, 1, tmp_path / "answers.npz")
    assert np.load(tmp_path / "answers.npz")["rounding"] == 0


@pytest.mark.parametrize(("size", "least", "most"), [(1.0, 0.0, 1e-5), (1e4, 1e-5, 1.0)])
def test_factors_that_cancel_leave_answers_less_decided(
    tiny_decoder: LoadedModel, tmp_path: Path, size: float, least: float, most: float
) -> None:
    """Two components that are large and opposite: float32 keeps what they leave badly."""
    weight = tiny_decoder.module.get_submodule(GATE).weight.detach()  # type: ignore[union-attr]
    outputs, inputs = weight.shape
    large = size * torch.ones(1, outputs)
    down = torch.cat((torch.eye(inputs), torch.ones(inputs, 2) / inputs), dim=1)
    factors = LowRank(down, torch.cat((weight.T, large, -large)).contiguous())
    path = tmp_path / "answers.npz"
    write_answers(tiny_decoder, {GATE: factors}, PROMPTS, 1, path)
    assert least < np.load(path)["rounding"] < most
