"""The contract of every exporter: trace, full-rank rewrite, ONNX Runtime equals torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from edgelr.cache import Cache
from edgelr.compressed import installed
from edgelr.errors import InputError
from edgelr.exporter import EXPORTERS, exporter_for
from edgelr.factors import FactorSet, LowRank
from edgelr.files import encoder_beside, graph_file
from edgelr.forms import pivot
from edgelr.graph.build import build
from edgelr.graph.save import load_graph
from edgelr.planning import DenseExport, dense_export
from edgelr.runtime.decoder import Decoder, left_padded
from edgelr.shapes import shape_of
from edgelr.sites import find_sites, weight_of
from edgelr.tasks import TASKS
from edgelr.types import LoadedModel
from tests.conftest import MakeModel, random_ids
from tests.exports import (
    CASES,
    Recorder,
    batch,
    every_decoder,
    run_graph,
    run_torch,
    session_cache,
)

NAMES = EXPORTERS.names()
NEW_TOKENS = 9


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tiny_models: dict[str, LoadedModel]) -> LoadedModel:
    return tiny_models[request.param]


@pytest.fixture(scope="module")
def dense(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> DenseExport:
    return dense_export(model, session_cache(tmp_path_factory), Recorder())


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
    path = folder / graph_file(model.task, "float32")
    build(model, dense.traced, find_sites(model), factors, path, "float32", 23, 11)
    return path


def fusions(path: Path) -> Counter[str]:
    """How many nodes of ONNX Runtime's own operators a graph has, by operator.

    Attention is MultiHeadAttention with the dense products before it.
    """
    paths = filter(None, (path, encoder_beside(path)))
    found = Counter(
        node.op_type for each in paths for node in load_graph(each).graph if node.domain
    )
    found["MultiHeadAttention"] += found.pop("Attention", 0)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_declaration_is_complete(name: str) -> None:
    exporter = EXPORTERS.get(name)
    config = exporter.tiny_config()
    assert config.model_type in exporter.model_types
    assert exporter_for(config.model_type) is exporter
    assert all(hasattr(transformers, TASKS[task].auto_class) for task in exporter.tasks)
    inputs = exporter.example_inputs(config, 3, 7)
    if inputs.keys() == {"pixel_values"}:
        assert inputs["pixel_values"].shape == (3, 3, 7, 7)
        return
    if TASKS[exporter.tasks[0]].matches:
        assert inputs.pop("pixel_values").shape == (3, 3, 7, 7)
        assert {len(tensor) for tensor in inputs.values()} == {4}
        assert int(inputs["input_ids"].max()) < config.text_config.vocab_size
        return
    target = inputs.pop("decoder_input_ids", None)
    assert (target is not None) == TASKS[exporter.tasks[0]].has_pairs
    assert target is None or target.shape == (3, 4)
    assert {tuple(tensor.shape) for tensor in inputs.values()} == {(3, 7)}
    assert int(inputs["input_ids"].max()) < config.vocab_size


def test_no_two_families_answer_to_one_model_type() -> None:
    types = [kind for _, exporter in EXPORTERS.items() for kind in exporter.model_types]
    assert len(types) == len(set(types))


def test_an_unknown_model_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'rwkv'.*Known model types: .*llama"):
        exporter_for("rwkv")


def test_the_tiny_model_has_a_distinct_size_on_every_axis(model: LoadedModel) -> None:
    shape, longest = shape_of(model)
    sizes = [shape.hidden_size, shape.intermediate_size, shape.vocab_size, longest]
    assert len(set(sizes)) == len(sizes)
    assert shape.layers >= 2


def test_nothing_that_is_kept_dense_is_a_site(model: LoadedModel) -> None:
    last = {site.name.rpartition(".")[2] for site in find_sites(model)}
    assert not last & set(model.exporter.keep_dense)


def test_the_dense_graph_equals_torch(model: LoadedModel, dense: DenseExport) -> None:
    for inputs in (batch(model, 1, 1), batch(model, 2, 9), batch(model, 2, 9, padded=5)):
        found = run_graph(model, dense.bundle.model_path, *inputs)
        np.testing.assert_allclose(found, run_torch(model, *inputs), atol=1e-4)


@every_decoder
def test_a_padded_batch_goes_on_like_torch(model: LoadedModel, dense: DenseExport) -> None:
    """Token by token, rows beside a longer one have the logits that each has alone."""
    prompts = [random_ids(1, length, seed=length)[0].tolist() for length in (7, 2, 11)]
    following = random_ids(len(prompts), NEW_TOKENS, seed=1)
    decoder = Decoder.open(dense.bundle, threads=1)
    ids, mask = left_padded(prompts, 0)
    logits, cache = decoder.logits(ids, mask, decoder.empty_cache(len(ids), 11 + NEW_TOKENS))
    found = [logits[:, -1]]
    for column in following.T:
        mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        logits, cache = decoder.logits(column[:, None], mask, cache)
        found.append(logits[:, -1])
    for row, (prompt, others) in enumerate(zip(prompts, following, strict=True)):
        whole = np.array([[*prompt, *others]])
        expected = run_torch(model, whole, np.ones_like(whole))[len(prompt) - 1 :]
        np.testing.assert_allclose([each[row] for each in found], expected, atol=1e-4)


def test_the_longest_text_runs(model: LoadedModel, dense: DenseExport) -> None:
    inputs = batch(model, 1, shape_of(model)[1])
    found = run_graph(model, dense.bundle.model_path, *inputs)
    np.testing.assert_allclose(found, run_torch(model, *inputs), atol=1e-4)


def test_the_graph_at_full_rank_equals_torch(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    path = write_graph(model, dense, factors_of(model, 1), tmp_path)
    for inputs in (batch(model, 1, 1), batch(model, 3, 12), batch(model, 3, 12, padded=6)):
        expected = run_torch(model, *inputs)
        np.testing.assert_allclose(run_graph(model, path, *inputs), expected, atol=1e-4)


def test_the_graph_at_half_rank_equals_the_compressed_model(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    factors = factors_of(model, 0.5)
    path = write_graph(model, dense, factors, tmp_path)
    for inputs in (batch(model, 1, 1), batch(model, 3, 40), batch(model, 3, 12, padded=6)):
        with installed(model.module, factors):
            expected = run_torch(model, *inputs)
        np.testing.assert_allclose(run_graph(model, path, *inputs), expected, atol=1e-4)
        assert np.abs(expected - run_torch(model, *inputs)).max() > 0.01


def test_every_fusion_of_the_dense_graph_survives(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    found = fusions(write_graph(model, dense, factors_of(model, 0.5), tmp_path))
    assert found == fusions(dense.bundle.model_path)
    fused = found["MultiHeadAttention"] + found["GroupQueryAttention"] + found["FusedMatMul"]
    assert fused > 0 or not shape_of(model)[0].attention_heads


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gpt2", {"n_embd": 36}, "heads of 12.*multiples of 8"),
        ("gpt_neox", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0,
                                          "partial_rotary_factor": 0.25}}, "'dynamic' change"),
    ],
)  # fmt: skip
def test_what_cannot_be_traced_is_refused(
    make_model: MakeModel, family: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        dense_export(make_model(family, **changes), Cache(tmp_path), Recorder())
