"""Rotary positions whose frequencies change with the length of the text, in one graph.

The frequencies are chosen in the graph, and no buffer is written: of ``longrope``, those of long
texts for every row that is longer than the model was first trained on. (transformers chooses for a
whole batch, so that a short text's answer depends on the texts beside it.) Those of ``dynamic``
change behind the longest text that a graph takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

CHANGING = ("longrope", "dynamic")


@contextmanager
def traceable_rotations(module: Any, lengths: Callable[[], Tensor]) -> Iterator[None]:
    """Let rotary embeddings be traced while the block runs.

    Args:
        module: model of transformers.
        lengths: function that returns the length of every row so far, ``(batch, 1)``.
    """
    changing = [each for each in module.modules() if _changes(each)]
    for each in changing:
        each.forward = _chosen_in_the_graph(each, lengths)
    try:
        yield
    finally:
        for each in changing:
            del each.forward  # the class's own is behind it


def _changes(module: Any) -> bool:
    kind = getattr(module, "rope_type", None)
    return isinstance(kind, str) and kind in CHANGING and hasattr(module, "original_inv_freq")


def _chosen_in_the_graph(
    rotation: Any, lengths: Callable[[], Tensor]
) -> Callable[[Tensor, Tensor], Any]:
    """Make the forward function of a rotary embedding."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = inspect.unwrap(type(rotation).forward)  # without the update of the buffer
    constants = {
        "attention_scaling": rotation.attention_scaling,
        "config": rotation.config,
        "rope_type": "default",
    }
    short = SimpleNamespace(inv_freq=rotation.original_inv_freq.clone(), **constants)
    if rotation.rope_type != "longrope":
        return lambda x, position_ids: plain(short, x, position_ids)
    trained = int(rotation.config.rope_parameters["original_max_position_embeddings"])
    compute = ROPE_INIT_FUNCTIONS[rotation.rope_type]
    frequencies = compute(rotation.config, short.inv_freq.device, seq_len=trained + 1)[0]
    long = SimpleNamespace(inv_freq=frequencies, **constants)

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, ...]:
        is_long = (lengths() > trained)[..., None]
        both = zip(plain(long, x, position_ids), plain(short, x, position_ids), strict=True)
        return tuple(torch.where(is_long, *pair) for pair in both)

    return forward
