"""Model families: what edgelr must know about each, as a declaration.

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
    """Declaration of one model family.

    Attributes:
        model_types: values of ``config.model_type`` in the family.
        tasks: tasks of the family's models; the first is the default.
        trace: function of ``(module, model folder, output folder, example inputs)`` that writes the
            dense float32 graph ``model.onnx``. An encoder and a decoder become two graphs, each in
            a folder of its name: see ``exporters/tracing/encoder_decoder.py``.
        example_inputs: function of ``(config, batch, tokens)`` that returns keyword tensors for one
            forward pass. For images the last argument is the side in pixels; the number of prompts
            beside them differs from ``batch``. A decoder beside an encoder also gets
            ``decoder_input_ids``, of another length.
        tiny_config: function that returns the smallest configuration worth testing, with a distinct
            size on every axis.
        fuse: function that fuses an ``onnx_ir.Model`` in place, after its linears were replaced;
            None where ``trace`` already writes fused attention.
        retrace: function of the declaration that returns the one by which a model is exported whose
            graph ``trace`` gets wrong; None where there is no other way.
        reading: function of the declaration that returns the one for tasks that read a whole text,
            where the first task is to write one; None where one declaration is for all tasks.
        prepare: function that changes a loaded module in place before it is read, so that every
            linear is an ``nn.Linear``.
        keep_dense: last name components of linears that stay dense.
        node_names: replacements ``(part, replacement)`` that turn a module's name into its node's
            path in the graph.
        tied_pairs: roles ``(first, second)`` of two linears in a block whose shapes are transposed,
            so that one matrix may serve both: the first widens, the second narrows.
        intermediate_size: name of the feed-forward width in the configuration, or function of the
            configuration that computes it.
        shape: function of the configuration that returns the fields of ``ModelShape``, for models
            whose stages differ in size.
        pooling: rule that makes an image's embedding from its tokens.
        convolutions: True where convolutions are factorized too.
        pads_texts: True where the texts beside images are padded to one length, without a mask.
        positions_after_padding: True where the positions of tokens begin after the padding's id;
            the longest text is shorter by as many tokens.
        longest_text: function of the configuration that returns the longest text, tokens; None
            where ``max_position_embeddings`` says it.
        load_options: further keyword arguments of ``from_pretrained`` for the first task.
        cache_in_place: True where the graph can write new keys and values into the tensors of the
            past (GroupQueryAttention with a shared buffer).
    """

    model_types: tuple[str, ...]
    tasks: tuple[Task, ...]
    trace: Callable[[nn.Module, Path, Path, dict[str, Any]], None]
    example_inputs: Callable[[Any, int, int], dict[str, Any]]
    tiny_config: Callable[[], Any]
    fuse: Callable[[Any], None] | None = None
    retrace: Callable[[Exporter], Exporter] | None = None
    reading: Callable[[Exporter], Exporter] | None = None
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

    def for_task(self, task: Task) -> Exporter:
        """Give the declaration by which models are exported for a task."""
        writes = task == self.tasks[0]
        return self if writes or self.reading is None else self.reading(self)


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
