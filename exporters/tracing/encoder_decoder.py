"""The route of sequence-to-sequence models: one graph for the encoder, one for the decoder.

The encoder's graph also computes the keys and values of every cross attention, once for each text,
and the decoder's graph takes them as ``past_key_values.N.encoder``. It serves the first step, with
an empty past of its own, and all further ones. So the two share nothing but a table of embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.quiet import quiet

from .routes import traced_by_transformers

if TYPE_CHECKING:
    from torch import Tensor

ENCODER, DECODER = "encoder_model", "decoder_with_past_model"  # optimum's names
NEW_TOKENS = 3  # of the example; neither 0 nor 1, which tracing would specialize
_PER_BLOCK = 4  # key and value of the decoder itself, key and value of the encoder's output


def trace_pair_with_transformers(
    module: Any, folder: Path, out: Path, example: dict[str, Any]
) -> None:
    """Trace both graphs, unfused, so that scopes bind their linears.

    The model runs with another ``forward``, and not inside another module: scopes keep its names.
    """
    del folder
    source = {name: value for name, value in example.items() if name != "decoder_input_ids"}
    with quiet():
        _trace_encoder(module, source, example["decoder_input_ids"], out / ENCODER)
        _trace_decoder(module, example, out / DECODER)


def _trace_encoder(module: Any, source: dict[str, Any], ids: Tensor, out: Path) -> None:
    """Trace hidden states and the cross attention's keys and values; the rest is dead code."""

    def encode(**inputs: Tensor) -> dict[str, Tensor]:
        hidden = module.get_encoder()(**inputs).last_hidden_state
        cache = _empty_cache()
        module.get_decoder()(
            input_ids=ids[:1, :1].expand(hidden.shape[0], 1),
            encoder_hidden_states=hidden,
            past_key_values=cache,
            use_cache=True,
        )
        return {"last_hidden_state": hidden} | _named("encoder", cache.cross_attention_cache)

    shapes = {name: varying(0) if each.is_floating_point() else varying(0, 1)
              for name, each in source.items()}  # fmt: skip
    export_as(module, encode, source, shapes, out)


def _trace_decoder(module: Any, example: dict[str, Any], out: Path) -> None:
    """Trace the logits of new tokens after a past, which may be empty."""
    past = _past(module, example)
    given = {"input_ids": example["decoder_input_ids"][:, :NEW_TOKENS], "past": list(past.values())}
    masked = "attention_mask" in example
    shapes: dict[str, Any] = {"input_ids": varying(0, 1)}
    shapes["past"] = [varying(0, 2) if masked or "decoder" in name else varying(0)
                      for name in past]  # fmt: skip
    if masked:  # sounds have one length, and no mask
        given["encoder_attention_mask"] = example["attention_mask"]
        shapes["encoder_attention_mask"] = varying(0, 1)

    def decode(
        input_ids: Tensor, past: list[Tensor], encoder_attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        cache = _empty_cache()
        for index in range(len(past) // _PER_BLOCK):
            key, value, source_key, source_value = past[_PER_BLOCK * index :][:_PER_BLOCK]
            cache.self_attention_cache.update(key, value, index)
            cache.cross_attention_cache.update(source_key, source_value, index)
            cache.is_updated[index] = True
        rows, _, positions, _ = past[2].shape
        output = type(module).forward(
            module,
            # Cross attention has its keys and values: of the hidden states, only a shape is read.
            encoder_outputs=(past[2].new_zeros(rows, positions, module.config.hidden_size),),
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return {"logits": output.logits} | _named("decoder", cache.self_attention_cache)

    names = {f"past.{index}": name for index, name in enumerate(past)}
    export_as(module, decode, given, shapes, out, names)


def _past(module: Any, example: dict[str, Any]) -> dict[str, Tensor]:
    """Run the model once for keys and values by name, in the order of blocks."""
    import torch

    with torch.no_grad():
        cache = module(**example, use_cache=True).past_key_values
    parts = {"decoder": cache.self_attention_cache, "encoder": cache.cross_attention_cache}
    named = [_named(name, part, "past_key_values") for name, part in parts.items()]
    return dict(sorted((named[0] | named[1]).items(), key=lambda item: _place(item[0])))


def export_as(
    module: Any,
    forward: Callable[..., dict[str, Tensor]],
    example: dict[str, Any],
    shapes: dict[str, Any],
    out: Path,
    names: dict[str, str] | None = None,
) -> None:
    """Trace a module with another ``forward``.

    Args:
        module: model of transformers.
        forward: function that returns the outputs by name.
        example: keyword arguments of ``forward``.
        shapes: axes of the arguments that vary; see ``varying``.
        out: folder of the graph.
        names: new names of inputs, by their old ones.
    """
    module.forward = forward
    try:
        exported = traced_by_transformers(module, example, dynamic_shapes=shapes)
    finally:
        del module.forward
    for value in exported.program.graph.inputs:
        value.name = (names or {}).get(value.name, value.name)
    exported.save_pretrained(out)


def _empty_cache() -> Any:
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def _named(part: str, cache: Any, prefix: str = "present") -> dict[str, Tensor]:
    """Name the keys and values of every block as optimum does."""
    return {
        f"{prefix}.{index}.{part}.{kind}": getattr(layer, f"{kind}s")
        for index, layer in enumerate(cache.layers)
        for kind in ("key", "value")
    }


def _place(name: str) -> tuple[int, str]:
    _, index, rest = name.split(".", 2)
    return int(index), rest


def varying(*axes: int) -> dict[int, Any]:
    """Mark the axes of an input that have no fixed size."""
    from torch.export import Dim

    return dict.fromkeys(axes, Dim.DYNAMIC)
