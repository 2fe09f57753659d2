"""The original model, every weight in one precision: what a bundle is compared with, fairly.

Rounding every weight to 8 or 4 bits at full rank is what people do instead of factorizing. The
rounding is that of ONNX Runtime's own quantizer for MatMulNBits, without any data.
"""

from __future__ import annotations

from pathlib import Path

import torch

from edgelr.compress.block_quantized import Blocks, quantize
from edgelr.compress.embedding_table import find_table
from edgelr.compress.factors import Dense, FactorSet
from edgelr.core.bundle import ExportBundle, read_bundle, write_manifest
from edgelr.core.cache import Cache, digest
from edgelr.core.graph_files import graph_file
from edgelr.core.vocabulary import WEIGHT_BITS, Precision, WeightPrecision
from edgelr.device.profile import DeviceProfile
from edgelr.graph.build import GraphTarget, build
from edgelr.graph.companions import copy_companions
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from edgelr.stages.subject import DENSE_FORMAT, DenseExport, dense_manifest


def dense_in(
    model: LoadedModel,
    dense: DenseExport,
    weights: WeightPrecision,
    device: DeviceProfile,
    cache: Cache,
    values: Precision | None = None,
) -> ExportBundle:
    """Export the original model at full rank.

    Args:
        model: in float32.
        dense: its export in float32.
        weights: of every linear, and of the table of embeddings where that can be stored.
        device: whose operators are used, and whose accuracy level.
        cache: keeps the export.
        values: what whole numbers are multiplied with; None takes the device's precision.
    """
    if weights == "float32":
        return dense.bundle
    whole = weights in WEIGHT_BITS
    computed: Precision = (values or device.precision) if whole else "float16"

    def write(folder: Path) -> None:
        (folder / "onnx").mkdir()
        path = folder / "onnx" / graph_file(model.task, computed)
        factors, blocks = _rounded(model, weights) if whole else ({}, {})
        sites = find_sites(model) if whole else ()
        target = GraphTarget(computed, device.max_opset, device.ir_version, device.accuracy_level)
        opset, ir_version = build(model, dense.traced, sites, factors, path, target, blocks)
        copy_companions(model.folder, folder)
        write_manifest(folder, dense_manifest(model, computed, opset, ir_version, path))

    level = device.accuracy_level if whole else None
    lowered = (device.max_opset, device.ir_version, level)
    key = digest(DENSE_FORMAT, dense.folder.name, weights, computed, lowered)
    return read_bundle(cache.stage("dense", key, write)[0])


def _rounded(model: LoadedModel, weights: WeightPrecision) -> tuple[FactorSet, dict[str, Blocks]]:
    """Round every linear and the table."""
    factors: FactorSet = {}
    blocks: dict[str, Blocks] = {}
    table = find_table(model)
    for site in (*find_sites(model), *(() if table is None else (table,))):
        weight = weight_of(model, site.name).T.float().contiguous()
        stored = quantize(weight.numpy(), weights)
        blocks[f"{site.name}.weight"] = stored
        factors[site.name] = Dense(torch.from_numpy(stored.dense()))
    return factors, blocks
