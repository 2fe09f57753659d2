"""The original model as ONNX, proven against torch before anything else is computed.

A decoder's graph is built by onnxruntime-genai, which writes what it knows of a configuration. So
the graph answers random inputs, short and long, beside the model. Where a built graph differs, the
model is traced instead; where that differs too, the run ends.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from edgelr.compress.reference_outputs import write_dense_answers
from edgelr.core.bundle import Manifest, read_bundle, write_manifest
from edgelr.core.errors import EdgelrError, InputError
from edgelr.core.graph_files import encoder_file, graph_file
from edgelr.core.problems import version_of
from edgelr.core.results import DENSE_LIMIT, DenseParity
from edgelr.core.run import Run
from edgelr.core.vocabulary import Precision
from edgelr.graph.build import build, trace
from edgelr.graph.companions import copy_companions, write_genai_config
from edgelr.graph.residency import read_residencies
from edgelr.model.dimensions import compared_lengths
from edgelr.model.loaded import LoadedModel
from edgelr.report.schema import to_json
from edgelr.runtime import calls
from edgelr.stages.subject import DenseExport

PARITY = "parity.json"


def dense_export(model: LoadedModel, run: Run) -> DenseExport:
    """Export the original model, once per model and version of the exporters.

    Raises:
        InputError: no graph answers like the model.
    """
    builder = version_of("onnxruntime-genai", "onnxruntime-genai-cuda")
    versions = [builder, version_of("transformers"), version_of("onnx-ir")]

    def write(folder: Path) -> None:
        run.progress("dense export", 0, 2)
        if model.exporter.retrace is None:
            _write(model, folder)
            found = _compared(model, folder, run)
        else:
            found = _built_or_traced(model, folder, run)
        _require_equal(found, model.source)
        (folder / PARITY).write_text(to_json(found), encoding="utf-8")
        run.progress("dense export", 2, 2)

    folder = run.stage("dense", (model.digest, model.pooling, versions), write)
    bundle = read_bundle(folder / "float32")
    traced = folder / graph_file(model.modality, "float32")
    found = TypeAdapter(DenseParity).validate_json((folder / PARITY).read_bytes())
    return DenseExport(folder, traced if traced.exists() else bundle.model_path, bundle, found)


def as_exported(model: LoadedModel, dense: DenseExport) -> LoadedModel:
    """Give a model the exporter by which its dense graph was made."""
    if not dense.parity.retraced:
        return model
    assert model.exporter.retrace is not None
    return replace(model, exporter=model.exporter.retrace(model.exporter))


def _built_or_traced(model: LoadedModel, folder: Path, run: Run) -> DenseParity:
    """Build the graph; where the builder cannot, or builds another model, trace it."""
    assert model.exporter.retrace is not None
    try:
        _write(model, folder)
        found = _compared(model, folder, run)
        if found.passed:
            return found
        problem = _difference(found)
    except EdgelrError as error:
        problem = str(error).splitlines()[-1]
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run.note(f"onnxruntime-genai builds another graph of {model.source}: {problem} It is traced.")
    traced = replace(model, exporter=model.exporter.retrace(model.exporter))
    _write(traced, folder)
    return replace(_compared(traced, folder, run), retraced=True)


def _write(model: LoadedModel, folder: Path) -> None:
    """Write the graph with unpacked linears, and the finished dense bundle."""
    name = graph_file(model.modality, "float32")
    trace(model, folder)
    bundle = folder / "float32"
    (bundle / "onnx").mkdir(parents=True)
    path = bundle / "onnx" / name
    opset, ir_version = build(model, folder / name, (), {}, path)
    if model.exporter.fuse is None:  # the two graphs are one: keep it once
        for file in folder.glob("model.onnx*"):
            file.unlink()
    copy_companions(model.folder, bundle, bool(model.sentence_layers))
    write_genai_config(folder / "traced", bundle, "onnx/model.onnx", "cpu", model.longest_text)
    for file in (folder / "traced").rglob("*.onnx*"):
        file.unlink()
    manifest = dense_manifest(model, "float32", opset, ir_version, path)
    if manifest.matching is not None:  # prompts are those of a run, and others find this export
        manifest = replace(manifest, matching=replace(manifest.matching, prompts=()))
    write_manifest(bundle, manifest)


def _compared(model: LoadedModel, folder: Path, run: Run) -> DenseParity:
    """Let the model and its dense graph answer the same random inputs."""
    run.progress("dense export", 1, 2)
    lengths = compared_lengths(model.module.config, model.longest_text)
    answers = folder / "answers.npz"
    write_dense_answers(model, lengths, answers)
    found: DenseParity = calls.dense_parity(read_bundle(folder / "float32"), answers)
    answers.unlink()
    reads_text = model.image is None and model.sound is None
    return replace(found, longest=max(lengths)) if reads_text else found


def _require_equal(found: DenseParity, source: str) -> None:
    """Refuse a graph that does not answer like its model.

    Raises:
        InputError: it does not.
    """
    if not found.passed:
        raise InputError(
            f"The ONNX graph of {source} does not answer like the model in torch: "
            f"{_difference(found)} Expected no more than {DENSE_LIMIT:g} of the largest. "
            f"This exporter does not know what is special about the model; edgelr exports no "
            f"other model in its place."
        )


def _difference(found: DenseParity) -> str:
    """Say what differs, and from which position on."""
    if not found.max_abs_error <= found.limit:
        behind = "" if found.first_position is None else f" from position {found.first_position} on"
        return (
            f"outputs differ by {found.max_abs_error:.2e}{behind}, where the largest is "
            f"{found.largest_output:.2e}."
        )
    if not found.vector_max_abs_error <= DENSE_LIMIT:
        return (
            f"its tokens give other embeddings, which differ by {found.vector_max_abs_error:.2e} "
            f"where their length is 1: they are pooled otherwise."
        )
    return (
        f"in a padded batch outputs differ by {found.padded_max_abs_error:.2e} from those of the "
        f"same rows alone, where the largest is {found.largest_output:.2e}."
    )


def dense_manifest(
    model: LoadedModel, precision: Precision, opset: int, ir_version: int, graph: Path
) -> Manifest:
    """Describe a dense export, whose ``graph`` file is written."""
    encoder = encoder_file(model.modality, precision)
    return Manifest(
        task=model.task,
        modality=model.modality,
        precision=precision,
        model_file=f"onnx/{graph_file(model.modality, precision)}",
        encoder_file=f"onnx/{encoder}" if encoder else None,
        source=model.source,
        revision=model.revision,
        digest=model.digest,
        opset=opset,
        ir_version=ir_version,
        context_tokens=model.longest_text,
        pooling=model.pooling,
        mask_token=model.mask_token,
        cache_in_place=model.exporter.cache_in_place,
        image=model.image,
        sound=model.sound,
        shape=model.dimensions,
        residency=read_residencies(graph, "cpu"),
        matching=model.matching,
    )
