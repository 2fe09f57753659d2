"""What every family is held to: how far its graphs are from torch, on inputs of every kind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.forms import pivot
from edgelr.core.graph_files import encoder_beside, graph_file
from edgelr.data.padding import left_padded
from edgelr.graph.build import GraphTarget, build
from edgelr.graph.save import load_graph
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.stages.subject import DenseExport
from tests.conftest import random_ids
from tests.helpers.run_exports import batch, run_graph, run_torch

LIMIT = 1e-4  # of the largest difference from torch
# Rows, tokens, and how many of the first row are padding. Graphs are traced with 2 rows of 12.
KINDS = {"one token": (1, 1, 0), "other sizes": (3, 40, 0), "padded": (3, 12, 6)}
PROMPTS = (7, 2, 11)  # tokens
NEW_TOKENS = 9


def factors_of(model: LoadedModel, share: float) -> FactorSet:
    """This share of every site's rank, each second one pivoted; convolutions cannot be."""
    factors: FactorSet = {}
    for index, site in enumerate(find_sites(model)):
        u, s, v = torch.linalg.svd(weight_of(model, site.name).double().T, full_matrices=False)
        rank = int(share * len(s))
        product = LowRank((u[:, :rank] * s[:rank]).float(), v[:rank].float())
        pivots = share < 1 and index % 2 and not site.kernel
        factors[site.name] = pivot(product) if pivots else product
    return factors


def write_graph(model: LoadedModel, dense: DenseExport, factors: FactorSet, folder: Path) -> Path:
    """Write the graph with these factors, as for a device with an older ONNX Runtime."""
    path = folder / graph_file(model.modality, "float32")
    build(model, dense.traced, find_sites(model), factors, path, GraphTarget("float32", 23, 11))
    return path


def errors(model: LoadedModel, path: Path) -> dict[str, float]:
    """Measure the largest difference of a graph file from torch, by kind of input."""
    return {kind: error(model, path, *batch(model, *sizes)) for kind, sizes in KINDS.items()}


def longest_error(model: LoadedModel, path: Path) -> float:
    """Measure it for the longest text that the model reads."""
    return error(model, path, *batch(model, 1, model.longest_text))


def error(model: LoadedModel, path: Path, inputs: Any, mask: np.ndarray) -> float:
    """Measure it for these inputs."""
    return _largest(run_graph(model, path, inputs, mask), run_torch(model, inputs, mask))


def steps_error(model: LoadedModel, dense: DenseExport) -> float:
    """Measure it token by token: rows beside a longer one have the logits that each has alone."""
    prompts = [random_ids(1, length, seed=length)[0].tolist() for length in PROMPTS]
    following = random_ids(len(prompts), NEW_TOKENS, seed=1)
    decoder = DecoderRunner.open(dense.bundle, Execution(threads=1))
    ids, mask = left_padded(prompts, 0)
    cache = decoder.empty_cache(len(ids), max(PROMPTS) + NEW_TOKENS)
    logits, cache = decoder.logits(ids, mask, cache)
    found = [logits[:, -1]]
    for column in following.T:
        mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        logits, cache = decoder.logits(column[:, None], mask, cache)
        found.append(logits[:, -1])
    largest = []
    for row, (prompt, others) in enumerate(zip(prompts, following, strict=True)):
        whole = np.array([[*prompt, *others]])
        expected = run_torch(model, whole, np.ones_like(whole))[len(prompt) - 1 :]
        largest.append(_largest(np.stack([each[row] for each in found]), expected))
    return max(largest)


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def fusions(path: Path) -> Counter[str]:
    """Count the nodes of ONNX Runtime's own operators in a graph, by operator.

    Attention is MultiHeadAttention with the dense products before it.
    """
    paths = filter(None, (path, encoder_beside(path)))
    found = Counter(
        node.op_type for each in paths for node in load_graph(each).graph if node.domain
    )
    found["MultiHeadAttention"] += found.pop("Attention", 0)
    return +found
