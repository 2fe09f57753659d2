"""The original model, every weight in one precision: what a bundle is compared with, fairly.

Rounding every weight to 8 or 4 bits at full rank is what people do instead of factorizing. The
rounding is that of ONNX Runtime's own quantizer for MatMulNBits, without any data.
"""

from __future__ import annotations

from pathlib import Path

import torch

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.compress.factors import Dense, FactorSet
from edgelr.core.bundle import ExportBundle, read_bundle, write_manifest
from edgelr.core.graph_files import graph_file
from edgelr.core.run import Run
from edgelr.core.vocabulary import LAYOUTS, Precision, WeightPrecision
from edgelr.device.kernels import fast_on_cpu
from edgelr.device.profile import DeviceProfile
from edgelr.graph.build import GraphTarget, build
from edgelr.graph.companions import copy_companions
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.dense import dense_manifest


def dense_in(
    model: LoadedModel,
    dense: DenseExport,
    weights: WeightPrecision,
    device: DeviceProfile,
    run: Run,
    values: Precision | None = None,
) -> ExportBundle:
    """Export the original model at full rank.

    Args:
        model: original in float32.
        dense: export of the original in float32.
        weights: precision of every linear, and of the table of embeddings where it has one.
        device: profile with operator set and accuracy level.
        run: cache that keeps the export.
        values: precision that int8 and int4 are multiplied with; None takes the device's.
    """
    if weights == "float32":
        return dense.bundle
    whole = weights in LAYOUTS
    computed: Precision = (values or device.precision) if whole else "float16"

    def write(folder: Path) -> None:
        (folder / "onnx").mkdir()
        path = folder / "onnx" / graph_file(model.modality, computed)
        factors, blocks = _rounded(model, weights) if whole else ({}, {})
        if computed == "float32" and weights not in fast_on_cpu(device.accuracy_level):
            blocks = {}  # a GPU's bundle, as the CPU judges it: the numbers that they stand for
        sites = model.sites if whole else ()
        target = GraphTarget(computed, device.max_opset, device.ir_version, device.accuracy_level)
        opset, ir_version = build(model, dense.traced, sites, factors, path, target, blocks)
        copy_companions(model.folder, folder, bool(model.sentence_layers))
        write_manifest(folder, dense_manifest(model, computed, opset, ir_version, path))

    level = device.accuracy_level if whole else None
    lowered = (device.max_opset, device.ir_version, level)
    return read_bundle(run.stage("dense", (dense.folder.name, weights, computed, lowered), write))


def _rounded(model: LoadedModel, weights: WeightPrecision) -> tuple[FactorSet, dict[str, Blocks]]:
    """Round every linear and the table."""
    factors: FactorSet = {}
    blocks: dict[str, Blocks] = {}
    for site in (*model.sites, *(() if model.table is None else (model.table,))):
        weight = weight_of(model, site.name).T.float().contiguous()
        stored = quantize(weight.numpy(), weights)
        blocks[f"{site.name}.weight"] = stored
        factors[site.name] = Dense(torch.from_numpy(stored.dense()))
    return factors, blocks
