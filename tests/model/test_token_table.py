"""The table of token embeddings: who has one for itself, and which heads multiply with it."""

from __future__ import annotations

import pytest
from torch import nn

from edgelr.core.vocabulary import LAYOUTS
from edgelr.model.loaded import LoadedModel
from edgelr.model.token_table import find_table, table_layouts, tied_heads, token_table
from tests.conftest import MakeModel
from tests.helpers.run_exports import IMAGE_PIVOT, MATCH_PIVOT, PAIR_PIVOT

BLOCK = min(each.block_size for each in LAYOUTS.values())
Models = dict[str, LoadedModel]
WIDE = {"hidden_size": 2 * BLOCK, "num_attention_heads": 4}


@pytest.mark.parametrize("tied", [False, True])
def test_a_table_is_the_linear_that_a_tied_head_is(make_model: MakeModel, tied: bool) -> None:
    model = make_model("llama", **WIDE, num_key_value_heads=2, tie_word_embeddings=tied)
    table = model.table
    assert table is not None
    module = model.module.get_submodule(table.name)
    assert isinstance(module, nn.Embedding)
    assert (table.out_features, table.in_features) == tuple(module.weight.shape)
    assert list(tied_heads(model)) == (["lm_head"] if tied else [])
    assert token_table(model) is module


def test_rows_that_end_inside_a_block_have_no_choice_of_precision(tiny_models: Models) -> None:
    model = tiny_models["bert"]
    assert token_table(model).weight.shape[1] % BLOCK
    assert find_table(model) is None


@pytest.mark.parametrize("name", [IMAGE_PIVOT, MATCH_PIVOT, PAIR_PIVOT, "whisper"])
def test_a_model_without_a_table_of_one_graph_has_none(tiny_models: Models, name: str) -> None:
    assert tiny_models[name].table is None


def test_a_table_that_two_graphs_share_has_none(make_model: MakeModel) -> None:
    model = make_model("t5", d_model=2 * BLOCK)
    assert token_table(model).weight.shape[1] % BLOCK == 0
    assert model.table is None


def test_a_table_takes_the_precisions_whose_blocks_fill_its_rows() -> None:
    assert table_layouts(96) == ("int8", "int4")
    assert table_layouts(576) == ("int8", "int4", "int4_b64", "int2_b64")
    assert set(table_layouts(384)) == set(LAYOUTS)
