"""Trace a decoder into one graph for prefill and decode, around ONNX Runtime's own attention.

While a model is traced, its attention is GroupQueryAttention: that looks at nothing which follows
and at no padding, and appends to a cache of keys and values, which it may be given as outputs too::

    query, key, value ── GroupQueryAttention ── output
    past ─────────────┘                     └── present

Everything else is the model's own code, traced. A batch may be padded on the left, but the
operator takes the lengths of rows whose real tokens come first: rows are rolled to the front, and
their hidden states back again before the head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic_multi_out
from transformers import AttentionInterface

from edgelr.core.errors import InputError
from edgelr.core.problems import UNTRACEABLE, library_call

from .rotary import traceable_rotations

GROUPED = "grouped_query_attention"
ROWS, TOKENS, TOTAL, CAPACITY = 2, 3, 11, 7  # of the example: no two dynamic axes have one size
HEAD_STEP = 8  # head sizes that GroupQueryAttention takes
WRAPPER = "decoder"


def export_decoder(module: Any, path: Path) -> None:
    """Write the graph of a causal language model.

    Args:
        module: model of transformers whose attention can be replaced by name.
        path: path of the graph file; the weights are written beside it.

    Raises:
        InputError: the heads cannot be traced.
    """
    config = module.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size % HEAD_STEP:
        raise InputError(
            f"The model has heads of {size}; ONNX Runtime's GroupQueryAttention takes multiples of "
            f"{HEAD_STEP}. Give another model."
        )
    blocks = range(config.num_hidden_layers)
    names = [f"{block}.{kind}" for block in blocks for kind in ("key", "value")]
    past = [torch.zeros(ROWS, heads, CAPACITY, size) for _ in names]
    ids = torch.ones(ROWS, TOKENS, dtype=torch.long)
    mask = torch.ones(ROWS, TOTAL, dtype=torch.long)
    traced = _Traced(module)
    AttentionInterface.register(GROUPED, traced.attend)
    before = config._attn_implementation
    module.set_attn_implementation(GROUPED)
    try:
        with traceable_rotations(module, lambda: traced.lengths):
            program = _program(traced, (ids, mask, past), names)
    finally:
        module.set_attn_implementation(before)
    for node in program.model.graph:  # scopes as if nothing were around the model
        for key, value in node.metadata_props.items():
            node.metadata_props[key] = value.replace(f"'{WRAPPER}.", "'")
    program.save(path, external_data=True)


def _program(traced: _Traced, inputs: tuple[Any, ...], names: list[str]) -> torch.onnx.ONNXProgram:
    told = f"torch cannot export {type(traced.decoder).__name__}"
    with torch.no_grad(), library_call(told, UNTRACEABLE):
        program = torch.onnx.export(
            traced,
            inputs,
            dynamo=True,
            opset_version=18,  # what every fusion pattern expects
            input_names=["input_ids", "attention_mask", *map("past_key_values.{}".format, names)],
            output_names=["logits", *map("present.{}".format, names)],
            dynamic_shapes=(
                {0: "batch", 1: "tokens"},
                {0: "batch", 1: "total"},
                [{0: "batch", 2: "capacity"} for _ in names],
            ),
            verbose=False,
        )
    assert program is not None
    return program


class _Cache:
    """Stand-in for a model's cache: it keeps nothing, because the operator does.

    Args:
        past: keys and values of every block, ``(batch, heads, capacity, head_size)`` each.
        last: index of every row's last token, ``(batch,)`` int32.
        length: length of a row with padding, tokens.
    """

    is_compileable = False

    def __init__(self, past: list[Tensor], last: Tensor, length: int) -> None:
        self.values, self.last, self.length = list(past), last, length

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return the new keys and values alone."""
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        """Return 0: the model is given its positions."""
        return 0


class _Traced(nn.Module):
    """A decoder with named caches, which takes batches that are padded on the left."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder
        self.cache: _Cache | None = None
        self.lengths = torch.zeros(0, 1)  # of every row so far, tokens

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: list[Tensor]) -> Any:
        """Compute the logits, and the keys and values of every block.

        Args:
            input_ids: token ids, ``(batch, tokens)``.
            attention_mask: mask ``(batch, total)``, 1 for real tokens; the last ``tokens`` are new.
            past: keys and values, see ``_Cache``.
        """
        tokens, total = input_ids.shape[1], attention_mask.shape[1]
        steps = torch.arange(tokens)
        new = attention_mask.index_select(1, steps + (total - tokens))
        real, known = new.sum(1, keepdim=True), attention_mask.sum(1, keepdim=True)
        shift = (tokens - real) * (1 - new[:, :1])  # padding in front of each row
        forward, back = steps + shift, steps - shift
        forward = torch.where(forward < tokens, forward, forward - tokens)
        back = torch.where(back < 0, back + tokens, back)
        longest = self.decoder.config.max_position_embeddings
        positions = (known - real + steps).clamp(max=longest - 1)  # behind the row: any will do
        last = (known[:, 0] - 1).to(torch.int32)
        self.cache, self.lengths = _Cache(past, last, total), known

        def rolled_back(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            rows = torch.arange(input_ids.shape[0])[:, None]
            return (inputs[0][rows, back],)

        head = self.decoder.get_output_embeddings()
        handle = head.register_forward_pre_hook(rolled_back)
        try:
            output = self.decoder(
                input_ids=input_ids.gather(1, forward),
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
            )
        finally:
            handle.remove()
        return output.logits, *self.cache.values

    def attend(
        self,
        block: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        _mask: Tensor | None,
        scaling: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attend in a block, from ``query (batch, heads, tokens, head_size)``; see transformers.

        Returns:
            Output ``(batch, tokens, heads, head_size)``, and no weights.
        """
        assert self.cache is not None
        batch, heads, tokens, size = query.shape
        cached = slice(2 * block.layer_idx, 2 * block.layer_idx + 2)
        past = self.cache.values[cached]
        grown = (batch, key.shape[1], self.cache.length, size)
        total = torch.scalar_tensor(self.cache.length, dtype=torch.int32)
        flat = [each.transpose(1, 2).flatten(2) for each in (query, key, value)]
        output, *self.cache.values[cached] = symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [*flat, *past, self.cache.last, total],
            {
                "num_heads": heads,
                "kv_num_heads": key.shape[1],
                "scale": float(size**-0.5 if scaling is None else scaling),
            },
            dtypes=[query.dtype] * 3,
            shapes=[(batch, tokens, heads * size), grown, grown],
            version=1,
        )
        return output.unflatten(2, (heads, size)), None
