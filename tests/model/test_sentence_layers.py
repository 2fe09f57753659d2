"""Dense layers behind the pooling: what a module answers with them, and what tells them apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgelr.exporters.bert import tiny_sizes
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertModel

from edgelr.core.errors import InputError
from edgelr.model.sentence_layers import add_layers
from edgelr.model.sentence_modules import DenseLayer

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def encoder() -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**tiny_sizes()), add_pooling_layer=False).eval()


def layer(path: Path, wide: int, narrow: int, activation: str, seed: int = 0) -> DenseLayer:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(narrow, wide, generator=generator) / wide**0.5
    tensors = {"linear.weight": weight, "linear.bias": torch.ones(narrow)}
    save_file(tensors, path)
    return DenseLayer(path, activation)


@torch.no_grad()
def test_tokens_are_pooled_and_go_through_the_layers_in_their_order(tmp_path: Path) -> None:
    layers = [layer(tmp_path / "a", 48, 24, "Tanh"), layer(tmp_path / "b", 24, 12, "ReLU", 1)]
    module: nn.Module = encoder()
    hidden = module(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert add_layers(module, "mean", layers)
    found = module(input_ids=IDS, attention_mask=MASK).sentence_embedding
    mean = torch.stack([hidden[0].mean(0), hidden[1, :2].mean(0)])
    first, tanh, second, relu = module.sentence_layers  # type: ignore[misc]
    torch.testing.assert_close(found, relu(second(tanh(first(mean)))))
    assert found.shape == (2, 12)
    assert torch.equal(first.bias, torch.ones(24))


def test_the_hash_tells_weights_activations_and_poolings_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = add_layers(encoder(), "mean", [layer(path, 48, 24, "Tanh")])
    assert first == add_layers(encoder(), "mean", [layer(path, 48, 24, "Tanh")])
    others = {
        add_layers(encoder(), "cls", [layer(path, 48, 24, "Tanh")]),
        add_layers(encoder(), "mean", [layer(path, 48, 24, "GELU")]),
        add_layers(encoder(), "mean", [layer(path, 48, 24, "Tanh", seed=1)]),
    }
    assert len({first, *others}) == 4


def test_a_layer_that_reads_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads vectors of 40 numbers, and is given 48"):
        add_layers(encoder(), "mean", [layer(tmp_path / "a", 40, 24, "Tanh")])
