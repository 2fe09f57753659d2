"""Nodes are bound to sites by where they come from, and refused unless their weight agrees."""

from __future__ import annotations

import numpy as np
import pytest

from edgelr.core.errors import EdgelrError
from edgelr.core.run import Run
from edgelr.core.sites import LinearSite
from edgelr.graph.bind import Binding, bind
from edgelr.graph.save import load_graph
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.dense import dense_export
from tests.helpers.run_exports import Recorder, session_cache

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module", params=["tiny_decoder", "tiny_encoder"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LoadedModel, DenseExport]:
    model: LoadedModel = request.getfixturevalue(request.param)
    return model, dense_export(model, Run(session_cache(tmp_path_factory), Recorder()))


def bind_sites(
    model: LoadedModel, dense: DenseExport, sites: tuple[LinearSite, ...], add: float = 0.0
) -> list[Binding]:
    graph = load_graph(dense.traced).graph
    names = model.exporter.node_names
    return bind(graph, sites, lambda name: weight_of(model, name).numpy() + add, names)


def test_every_site_is_bound_to_a_node_of_its_own(
    exported: tuple[LoadedModel, DenseExport],
) -> None:
    sites = find_sites(exported[0])
    bindings = bind_sites(*exported, sites)
    assert [binding.site for binding in bindings] == list(sites)
    assert len({id(binding.node) for binding in bindings}) == len(sites)


def test_a_node_with_another_weight_is_refused(exported: tuple[LoadedModel, DenseExport]) -> None:
    with pytest.raises(EdgelrError, match="weight differs from the module's by"):
        bind_sites(*exported, find_sites(exported[0])[:1], add=0.01)


def test_a_site_without_a_node_is_refused(exported: tuple[LoadedModel, DenseExport]) -> None:
    site = LinearSite("model.layers.9.nothing", 48, 48, False, "nothing", 9, "x")
    with pytest.raises(EdgelrError, match=r"no MatMul or Gemm of model\.layers\.9\.nothing"):
        bind_sites(*exported, (site,))
