"""Write the bundle of a model, and compare it with the compressed model in torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.compress.decompose import in_forms
from edgelr.compress.reference_outputs import write_answers
from edgelr.core.bundle import ExportBundle, read_bundle, write_manifest
from edgelr.core.graph_files import graph_file
from edgelr.core.results import Parity
from edgelr.core.vocabulary import Precision
from edgelr.graph.build import GraphTarget, build
from edgelr.graph.companions import copy_companions, write_genai_config
from edgelr.runtime import calls
from edgelr.stages.source import Written
from edgelr.stages.staging import Staging
from edgelr.stages.transformers.dense import dense_manifest
from edgelr.stages.transformers.factorize import Factored
from edgelr.stages.transformers.rows import rows_of
from edgelr.stages.transformers.subject import ModelPlanned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgelr.compress.block_quantized import Blocks
    from edgelr.compress.factors import FactorSet

PARITY_LIMIT = 1e-3  # of float32 logits or hidden states
FLOAT16_LIMIT = 2e-2  # of the largest output: eleven bits, through every layer
QUANTIZED_LIMIT = 0.25  # the same, for values that products round to int8: a wrong scale, zero
# point or bit order gives other answers altogether
GREEDY_TOKENS = 64


def write_bundle(made: ModelPlanned, factored: Factored, place: Staging) -> Written:
    """Write the graph and its companions, and what the torch model answers.

    A bundle that ships in float16, or multiplies int8 or int4, gets a float32 twin in the scratch
    folder, whose weights are what the stored ones stand for: both are one plan, and the twin can be
    compared with torch to the last digits.
    """
    subject = made.subject
    factors = in_forms(factored.factors, made.plan, subject.device.rank_multiple)
    prompts = rows_of(subject.model).parity_inputs(subject, made.costs.calibration)
    write_answers(subject.model, factors, prompts, GREEDY_TOKENS, place.answers)
    bundle = _write(made, factored.blocks, factors, place.bundle, subject.precision)
    write_genai_config(
        made.dense.folder / "traced",
        place.bundle,
        bundle.manifest.model_file,
        subject.device.provider,
        subject.context_tokens,
    )
    twin = None
    if subject.precision != "float32" or factored.blocks:
        twin = _write(made, {}, factors, place.scratch / "float32", "float32")
    return Written(bundle, twin, factored.notes)


def _write(
    made: ModelPlanned,
    blocks: Mapping[str, Blocks],
    factors: FactorSet,
    folder: Path,
    precision: Precision,
) -> ExportBundle:
    """Write the graph of a plan in one precision, its companions and its manifest."""
    subject = made.subject
    model, device, settings = subject.model, subject.device, subject.settings
    path = folder / "onnx" / graph_file(model.modality, precision)
    path.parent.mkdir(parents=True)
    newest = min(device.max_opset, settings.opset or device.max_opset)
    target = GraphTarget(precision, newest, device.ir_version, device.accuracy_level)
    traced = made.dense.traced
    opset, ir_version = build(model, traced, subject.sites, factors, path, target, blocks)
    copy_companions(model.folder, folder, bool(model.sentence_layers))
    manifest = dense_manifest(model, precision, opset, ir_version, path)
    manifest = replace(
        manifest,
        profile=device.id,
        max_drop=subject.max_drop,
        context_tokens=subject.context_tokens,
        shape=subject.shape,
    )
    write_manifest(folder, manifest)
    return read_bundle(folder)


def compare_with_torch(written: Written, place: Staging) -> Parity:
    """Compare what was written, or its exact twin, with the compressed model in torch."""
    answers, bundle = place.answers, written.bundle
    parity = calls.parity(written.twin or bundle, answers, limit=PARITY_LIMIT)
    if written.twin is None:
        return parity
    quantized = bundle.manifest.residency is not None and bundle.manifest.residency.quantized
    error = calls.twin_error(bundle, written.twin, answers)
    limit = QUANTIZED_LIMIT if quantized else FLOAT16_LIMIT
    return replace(parity, twin_max_error=error, twin_limit=limit)
