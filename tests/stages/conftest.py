"""One small graph, its inputs and its bundle: what tests of ONNX sources start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from tests.helpers.foreign_graphs import mlp
from tests.helpers.graph_exports import exported


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mlp(tmp_path_factory.mktemp("source") / "mlp.onnx")


@pytest.fixture(scope="session")
def graph_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Correlated inputs: 48 features of which six directions hold nearly everything."""
    generator = np.random.default_rng(5)
    mixes = generator.standard_normal((6, 48))
    x = generator.standard_normal((192, 6)) @ mixes + 0.05 * generator.standard_normal((192, 48))
    path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
    np.savez(path, x=0.3 * x.astype(np.float32))
    return path


@pytest.fixture(scope="session")
def graph_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("graph_cache"))


@pytest.fixture(scope="session")
def graph_bundle(
    graph: Path, graph_inputs: Path, graph_cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> ExportBundle:
    out = tmp_path_factory.mktemp("out") / "bundle"
    exported(graph, out, graph_cache, keep=0.7, calibration=(str(graph_inputs),), with_tests=True)
    return read_bundle(out, verify=True)
