"""GPT-2 decoders: learned positions, pre-norm blocks, query, key and value in one linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .tracing.inputs import token_batch
from .tracing.routes import fuse_with_transformers, trace_decoder

if TYPE_CHECKING:
    from transformers import GPT2Config


def tiny_gpt2() -> GPT2Config:
    """Configure two blocks with heads of 16, and a distinct size on every axis."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=160,
        n_positions=128,
        n_embd=48,
        n_inner=80,
        n_layer=2,
        n_head=3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def feed_forward_width(config: Any) -> int:
    """Return the feed-forward width: four times the hidden size unless ``n_inner`` is set."""
    return int(config.n_inner or 4 * config.n_embd)


def plain_linears(module: Any) -> None:
    """Replace every Conv1D, a linear whose weight is stored ``(in, out)``, by an ``nn.Linear``."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, conv in list(module.named_modules()):
        if isinstance(conv, Conv1D):
            inputs, outputs = conv.weight.shape
            linear = nn.Linear(inputs, outputs, device="meta")
            linear.weight = nn.Parameter(conv.weight.T.contiguous())
            linear.bias = conv.bias
            module.set_submodule(name, linear)


GPT2 = Exporter(
    model_types=("gpt2",),
    tasks=("text-generation",),
    trace=trace_decoder,
    fuse=fuse_with_transformers,
    prepare=plain_linears,
    example_inputs=token_batch,
    tiny_config=tiny_gpt2,
    intermediate_size=feed_forward_width,
    keep_dense=("lm_head",),
    tied_pairs=(("mlp.c_fc", "mlp.c_proj"),),
    cache_in_place=True,
)
EXPORTERS.register("gpt2")(GPT2)
