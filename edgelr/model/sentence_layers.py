"""Dense layers of sentence-transformers behind the pooling, as a part of the module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils import ModelOutput

from edgelr.core.cache import digest, file_digest
from edgelr.core.errors import InputError
from edgelr.model.losses.distances import pool
from edgelr.model.sentence_modules import DenseLayer

if TYPE_CHECKING:
    from edgelr.core.vocabulary import Pooling


@dataclass
class SentenceOutput(ModelOutput):
    """Output of a module with layers: ``sentence_embedding (batch, features)``, as optimum says."""

    sentence_embedding: Tensor | None = None


def add_layers(module: Any, pooling: Pooling, layers: Sequence[DenseLayer]) -> str:
    """Let a model embed whole texts: its tokens are pooled, and go through the layers.

    The model runs with another ``forward``, and not inside another module: scopes keep its names.

    Args:
        module: encoder of transformers, changed in place.
        pooling: rule that makes one vector of the tokens.
        layers: layers behind it, in their order.

    Returns:
        Hash of the pooling and of the layers.

    Raises:
        InputError: a layer does not fit the vector that it reads.
    """
    width, made = int(module.config.hidden_size), []
    for layer in layers:
        linear = _linear(layer, width)
        width = linear.out_features
        made += [linear, getattr(nn, layer.activation)()]
    module.sentence_layers = nn.Sequential(*made)
    tokens = module.forward

    def forward(**inputs: Any) -> SentenceOutput:
        hidden = tokens(**inputs).last_hidden_state
        pooled = pool(hidden, inputs["attention_mask"], pooling)
        return SentenceOutput(module.sentence_layers(pooled))

    module.forward = forward
    names = [layer.activation for layer in layers]
    return digest(pooling, names, file_digest([layer.weights for layer in layers]))


def _linear(layer: DenseLayer, width: int) -> nn.Linear:
    tensors = load_file(layer.weights)
    weight, bias = tensors["linear.weight"].float(), tensors.get("linear.bias")
    if weight.shape[1] != width:
        raise InputError(
            f"{layer.weights} reads vectors of {weight.shape[1]:,} numbers, and is given "
            f"{width:,}; expected layers that fit each other. Copy or download the model again."
        )
    linear = nn.Linear(width, len(weight), bias is not None)
    linear.weight.data = weight
    if bias is not None:
        linear.bias.data = bias.float()
    return linear
