"""Targets in torch: drawn or likeliest, the same alone and in a batch, and ended as they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgelr.model import generate
from edgelr.model.generate import answer, draw, start_of
from edgelr.model.loaded import LoadedModel
from tests.conftest import random_sources
from tests.helpers.run_exports import PAIR_PIVOT, every_pair

Models = dict[str, LoadedModel]


@every_pair
def test_a_batch_is_answered_as_each_of_its_rows_alone(tiny_models: Models, exporter: str) -> None:
    """A sound has no padding."""
    model = tiny_models[exporter]
    given = random_sources(model, 3, 9)
    sources, mask = torch.tensor(given.inputs), torch.tensor(given.mask)
    rows = [sources[:1], sources[1:2], sources[2:]]
    if model.sound is None:
        mask[1, 5:] = 0
        rows[1] = rows[1][:, :5]
    together = answer(model, sources, mask, 6)
    single = [answer(model, row, torch.ones(row.shape[:2]), 6)[0] for row in rows]
    assert together == single
    assert all(len(row) == start_of(model).length + 6 for row in together)


@every_pair
def test_drawn_answers_follow_their_seed(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    given = random_sources(model, 4, 9)
    sources, mask = torch.tensor(given.inputs), torch.tensor(given.mask)

    def drawn(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return answer(model, sources, mask, 8, generator)

    assert drawn(0) == drawn(0) != drawn(1)


@pytest.mark.parametrize("together", [1, 3])
def test_every_source_is_answered_in_its_order(
    tiny_models: Models, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    model = tiny_models[PAIR_PIVOT]
    monkeypatch.setattr(generate, "BATCH", together)
    sources, told = random_sources(model, 5, 9), []
    rows = draw(model, sources, 4, 0, lambda done, total: told.append((done, total)))
    assert told[-1] == (5, 5)
    assert len(told) == -(-5 // together)
    start = start_of(model)
    assert all(len(row) <= start.length + 4 for row in rows)
    assert {tuple(row[: start.length]) for row in rows} == {tuple(start.tokens)}


def test_a_drawn_answer_ends_with_the_end_of_its_text(tiny_models: Models) -> None:
    """Every token ends it here: one is drawn, and kept."""
    model = tiny_models[PAIR_PIVOT]
    generation = model.module.generation_config
    before, every = generation.eos_token_id, list(range(model.module.config.vocab_size))
    generation.eos_token_id = every
    try:
        rows = draw(model, random_sources(model, 3, 9), 8, 0)
    finally:
        generation.eos_token_id = before
    start = replace(start_of(model), ends=tuple(every))
    assert [len(row) - start.length for row in rows] == [len(start.until_end([0]))] * 3
