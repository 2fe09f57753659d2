"""What edgelr must know about a model family: a declaration, and nothing else.

The files in ``exporters/`` fill this in and register it in ``EXPORTERS``; other packages add
families through the entry-point group ``edgelr.exporters``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.errors import InputError
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import Pooling, Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Exporter:
    """One model family.

    Attributes:
        model_types: values of ``config.model_type`` that this family answers to.
        tasks: what its models are made for; the first is that of a model that does not say.
        trace: writes the dense float32 graph ``model.onnx`` of ``(module, model folder)`` into a
            folder; the last argument is an example of its inputs. An encoder and a decoder are two
            graphs, each in a folder of its name: see ``exporters/tracing/encoder_decoder.py``.
        fuse: fuses an ``onnx_ir.Model`` in place after its linears were replaced; None when
            ``trace`` already emits fused attention.
        example_inputs: keyword tensors for one forward pass, from ``(config, batch, tokens)``; of
            models that read images, from ``(config, batch, side in pixels)``; prompts beside them
            have another number. A decoder beside an encoder has ``decoder_input_ids``, of another
            length.
        prepare: changes a loaded module in place, before anything reads it: what is a linear under
            another name becomes an ``nn.Linear``.
        tiny_config: the smallest configuration worth testing, with a distinct size on every axis.
        keep_dense: last name components of linears that are not edgelr's to split.
        node_names: replacements that turn a module's name into its node's path in the graph.
        tied_pairs: roles ``(first, second)`` inside a block, of transposed shapes, of which one
            matrix may serve both: what widens, and what narrows again.
        intermediate_size: the configuration's name for the width inside a feed-forward pair, or
            what computes it from the configuration.
        shape: sizes by their names in ``types.ModelShape``, from the configuration, of models
            whose stages differ.
        pooling: how an image's tokens become its embedding.
        convolutions: whether these are factorized, too.
        pads_texts: the texts that images are compared with have one length, and no mask.
        positions_after_padding: the table of positions keeps those up to the padding's id, and
            tokens begin after them: a text may have that many tokens less.
        longest_text: computes, from the configuration, the longest text; None where it says so
            itself, as ``max_position_embeddings``.
        load_options: further keyword arguments of ``from_pretrained`` for the first task.
        cache_in_place: the graph writes new keys and values into the tensors of the past, where it
            is given them as outputs too (GroupQueryAttention with a shared buffer).
    """

    model_types: tuple[str, ...]
    tasks: tuple[Task, ...]
    trace: Callable[[nn.Module, Path, Path, dict[str, Any]], None]
    example_inputs: Callable[[Any, int, int], dict[str, Any]]
    tiny_config: Callable[[], Any]
    fuse: Callable[[Any], None] | None = None
    prepare: Callable[[Any], None] | None = None
    keep_dense: tuple[str, ...] = ()
    node_names: tuple[tuple[str, str], ...] = ()
    tied_pairs: tuple[tuple[str, str], ...] = ()
    intermediate_size: str | Callable[[Any], int] = "intermediate_size"
    shape: Callable[[Any], dict[str, Any]] | None = None
    pooling: Pooling = "cls"
    convolutions: bool = False
    pads_texts: bool = False
    positions_after_padding: bool = False
    longest_text: Callable[[Any], int] | None = None
    load_options: tuple[tuple[str, Any], ...] = ()
    cache_in_place: bool = False


EXPORTERS: Registry[Exporter] = Registry(
    "exporter", package="edgelr.exporters", group="edgelr.exporters"
)


def exporter_for(model_type: str) -> Exporter:
    """Find the family of ``config.model_type``.

    Raises:
        InputError: no family answers to it.
    """
    known: list[str] = []
    for _, exporter in EXPORTERS.items():
        if model_type in exporter.model_types:
            return exporter
        known += exporter.model_types
    raise InputError(
        f"No exporter knows the model type {model_type!r}. Known model types: "
        f"{', '.join(sorted(known))}. A family is one small file: see the module "
        f"edgelr.exporters.llama, and name yours in the entry-point group 'edgelr.exporters'."
    )
