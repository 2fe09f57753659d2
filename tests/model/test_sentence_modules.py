"""Modules of sentence-transformers: poolings of old and new files, and refusals by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Pooling
from edgelr.model.losses import pool
from edgelr.model.sentence_modules import (
    DenseLayer,
    dense_layers_of,
    pooling_of,
    prompts_of,
    transformer_folder,
)
from edgelr.runtime.runners.forward import pooled

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules."


def written(
    folder: Path, config: dict[str, Any] | None, *kinds: str, prefix: str = OLD, path: str = ""
) -> Path:
    """Write modules.json with a Transformer and others, and the configuration of a pooling."""
    modules = [{"idx": 0, "name": "0", "path": path, "type": f"{prefix}Transformer"}]
    for index, kind in enumerate(kinds, 1):
        place = f"{index}_{kind}"
        modules.append({"idx": index, "path": place, "type": f"{prefix}{kind}"})
        (folder / place).mkdir(parents=True)
        if kind == "Pooling" and config is not None:
            (folder / place / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "max"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted_mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last_token"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"word_embedding_dimension": 48}, "mean"),
    ],
)
def test_poolings_of_old_and_new_files_are_read(
    tmp_path: Path, config: dict[str, Any], pooling: str
) -> None:
    for prefix in (OLD, f"{NEW}pooling."):
        folder = tmp_path / prefix
        folder.mkdir()
        written(folder, config, "Pooling", "Normalize", prefix=prefix)
        assert pooling_of(folder) == pooling


def test_without_modules_the_mean_is_taken(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) == "mean"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls_token and mean"),
        ({"pooling_mode": "attention"}, "the pooling attention; expected one of cls, mean, max"),
        ({"pooling_mode": "mean", "include_prompt": False}, "which leaves prompts out"),
    ],
)
def test_other_poolings_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pooling_of(written(tmp_path, config, "Pooling"))


@pytest.mark.parametrize("kind", ["LayerNorm", "LSTM", "WeightedLayerPooling", "CNN"])
def test_other_modules_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=f"Transformer, Pooling, {kind}.*without {kind} would"):
        pooling_of(written(tmp_path, {"pooling_mode": "mean"}, "Pooling", kind))


def test_modules_in_another_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Pooling, Normalize, Dense.*Expected Transformer"):
        pooling_of(written(tmp_path, {"pooling_mode": "mean"}, "Pooling", "Normalize", "Dense"))


def dense(folder: Path, **config: Any) -> Path:
    """Write modules.json with a Dense layer behind the pooling."""
    written(folder, {"pooling_mode": "mean"}, "Pooling", "Dense", "Normalize")
    (folder / "2_Dense" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("torch.nn.modules.activation.Tanh", "Tanh"),
        ("torch.nn.modules.linear.Identity", "Identity"),
        ("torch.nn.modules.activation.GELU", "GELU"),
    ],
)
def test_dense_layers_are_read_with_their_activation(tmp_path: Path, told: str, name: str) -> None:
    dense(tmp_path, in_features=4, out_features=2, bias=True, activation_function=told)
    weights = tmp_path / "2_Dense" / "model.safetensors"
    weights.write_bytes(b"")
    assert dense_layers_of(tmp_path) == (DenseLayer(weights, name),)
    assert pooling_of(tmp_path) == "mean"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, "the activation .*Softm"),
        ({"module_input_name": "token_embeddings"}, "Dense layer of token_embeddings"),
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, "holds no model.safetensors"),
    ],
)
def test_other_dense_layers_are_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dense_layers_of(dense(tmp_path, **config))


def test_a_transformer_elsewhere_is_found(tmp_path: Path) -> None:
    assert transformer_folder(tmp_path) == tmp_path
    written(tmp_path, None, "Pooling", path="0_Transformer")
    assert transformer_folder(tmp_path) == tmp_path / "0_Transformer"
    assert pooling_of(tmp_path) == "mean"


def test_texts_that_are_changed_first_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    with pytest.raises(InputError, match="lower-cased"):
        pooling_of(tmp_path)


def test_prompts_are_read_with_the_usual_one(tmp_path: Path) -> None:
    assert prompts_of(tmp_path) == {}
    told = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(told))
    assert prompts_of(tmp_path) == {"query": "query: ", "": "query: "}


# --- the rules, in torch and in numpy ------------------------------------------------------------

HIDDEN = np.array([[[3.0, 0.0], [1.0, 4.0], [9.0, -9.0]], [[1.0, 1.0], [2.0, 0.0], [0.0, 5.0]]])
MASK = np.array([[1, 1, 0], [1, 1, 1]])
EXPECTED = {  # of both texts, by hand
    "cls": [[3.0, 0.0], [1.0, 1.0]],
    "mean": [[2.0, 2.0], [1.0, 2.0]],
    "max": [[3.0, 4.0], [2.0, 5.0]],
    "last_token": [[1.0, 4.0], [0.0, 5.0]],
    "weighted_mean": [[5 / 3, 8 / 3], [5 / 6, 16 / 6]],
    "mean_sqrt_len": [[4 / 2**0.5, 4 / 2**0.5], [3 / 3**0.5, 6 / 3**0.5]],
}


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_every_pooling_is_that_of_sentence_transformers(pooling: Pooling) -> None:
    expected = np.array(EXPECTED[pooling])
    found = pool(torch.tensor(HIDDEN), torch.tensor(MASK), pooling)
    np.testing.assert_allclose(found.numpy(), expected)
    units = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(pooled(HIDDEN, MASK, pooling), units, atol=1e-6)
    if pooling not in ("cls",):  # the same tokens behind padding
        padded = np.roll(HIDDEN[:1], 1, axis=1), np.array([[0, 1, 1]])
        np.testing.assert_allclose(pooled(*padded, pooling), units[:1], atol=1e-6)
