"""What the rows of the token table are worth, and what rounding them is predicted to lose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgelr.compress.compressed_model import all_answers, multiplied
from edgelr.compress.embedding_table import (
    TableStatistics,
    collect_table,
    read_table_statistics,
    round_table,
)
from edgelr.compress.factors import Dense
from edgelr.compress.statistics import units_per_token
from edgelr.compress.stored_weights import read_blocks, read_losses
from edgelr.core.vocabulary import WeightPrecision
from edgelr.data.calibration import from_samples
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import divergence
from edgelr.model.token_table import find_table
from tests.conftest import MakeModel, random_ids, tiny_texts


@pytest.fixture(scope="module")
def wide(make_model: MakeModel) -> LoadedModel:
    """Rows of its table are whole blocks."""
    return make_model("llama", hidden_size=96)


def collect(model: LoadedModel, rows: int = 64) -> TableStatistics:
    return collect_table(model, [from_samples(random_ids(rows, 12), "")], 0, lambda *_: None)


def rounded_table(
    model: LoadedModel, known: TableStatistics, units: float, folder: Path, rounding: str = "gptq"
) -> tuple[dict[WeightPrecision, float], dict[WeightPrecision, Dense]]:
    """Predicted losses of the table in int8 and int4, and what it becomes."""
    table, asked = find_table(model), ("int8", "int4")
    assert table is not None
    round_table(model, known, units, (rounding, asked), table, folder)
    lost = read_losses(folder, table.name)
    stored = {each: read_blocks(folder, table.name, table.name, each) for each in asked}
    return (
        {each: lost[each].dense for each in asked},
        {each: Dense(torch.from_numpy(blocks.dense())) for each, blocks in stored.items()},
    )


def test_a_table_is_the_linear_of_its_tied_head(wide: LoadedModel) -> None:
    table = find_table(wide)
    assert table is not None
    assert (table.name, table.in_features, table.out_features) == ("model.embed_tokens", 96, 160)


def test_rows_of_broken_blocks_stay_as_they_are(tiny_decoder: LoadedModel) -> None:
    assert find_table(tiny_decoder) is None


def test_means_are_over_the_tokens(wide: LoadedModel) -> None:
    ids = random_ids(64, 12)
    found = collect(wide)
    expected = torch.bincount(torch.tensor(ids).flatten(), minlength=160) / ids.size
    # The last token of a row has a gradient as well: that of its own logits.
    torch.testing.assert_close(found.frequency, expected.float())
    with torch.no_grad():
        hidden = wide.module.model(input_ids=torch.tensor(ids)).last_hidden_state.flatten(0, 1)
    torch.testing.assert_close(found.input_gram, hidden.T @ hidden / len(hidden))
    assert (found.squares > 0).all()


def test_padding_counts_as_nothing(make_model: MakeModel) -> None:
    model = make_model("bert", hidden_size=96)
    texts = tiny_texts(model)
    found = collect_table(model, [texts], 0, lambda *_: None)
    assert float(found.frequency.sum()) == pytest.approx(1)
    assert (found.squares == 0).all()


def test_the_predicted_loss_is_near_the_divergence(wide: LoadedModel, tmp_path: Path) -> None:
    """Of the rounded table, read and multiplied with: in nats per token."""
    ids = torch.tensor(random_ids(64, 12, seed=1))
    table = find_table(wide)
    assert table is not None
    lost, stored = rounded_table(wide, collect(wide, 256), 1.0, tmp_path)
    with torch.no_grad():
        before = wide.module(input_ids=ids).logits.log_softmax(-1)
        with multiplied(wide.module, {table.name: stored["int4"]}):
            after = wide.module(input_ids=ids).logits.log_softmax(-1)
    divergence = float((before.exp() * (before - after)).sum(-1).mean())
    assert 0.5 * divergence < lost["int4"] < 2 * divergence


def test_a_head_that_fills_masks_is_judged_at_the_masks(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("bert", "fill-mask", hidden_size=96)
    texts, table = tiny_texts(model, 64), find_table(model)
    assert table is not None
    known, units = (
        collect_table(model, [texts], 0, lambda *_: None),
        units_per_token(model, [texts]),
    )
    masked = torch.tensor((texts.inputs == model.mask_token) & (texts.mask == 1))
    head = model.module.get_submodule("cls.predictions.transform")
    lost, stored = rounded_table(model, known, units, tmp_path)
    ids, mask = torch.tensor(texts.inputs), torch.tensor(texts.mask)
    with torch.no_grad():
        hidden = head(model.module.bert(ids, attention_mask=mask).last_hidden_state)[masked]
        before = all_answers(model, texts)
        with multiplied(model.module, {table.name: stored["int4"]}):
            measured = float(divergence(all_answers(model, texts), before).mean())
    torch.testing.assert_close(known.input_gram, hidden.T @ hidden / len(hidden))
    assert 0.5 * measured < lost["int4"] < 2 * measured


def test_more_bits_and_a_better_rounding_lose_less(wide: LoadedModel, tmp_path: Path) -> None:
    known = collect(wide)
    units = units_per_token(wide, [from_samples(random_ids(2, 8), "")])
    lost, _ = rounded_table(wide, known, units, tmp_path)
    nearest, _ = rounded_table(wide, known, units, tmp_path, "nearest")
    assert 0 < lost["int8"] < lost["int4"] / 50
    assert lost["int4"] < 0.8 * nearest["int4"]


def test_statistics_are_read_back(wide: LoadedModel, tmp_path: Path) -> None:
    known = collect(wide)
    known.write(tmp_path)
    again = read_table_statistics(tmp_path)
    torch.testing.assert_close(again.squares, known.squares)
    torch.testing.assert_close(again.gradient_gram, known.gradient_gram)
