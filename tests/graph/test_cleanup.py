"""Decoders' graphs are mended: padding on the left, one table, one cache, known operators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.data.padding import left_padded
from edgelr.graph.cleanup import RenameNorms
from edgelr.graph.linears import SCOPES
from edgelr.graph.save import load_graph, save_graph
from edgelr.model.loaded import LoadedModel
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import MakeModel
from tests.helpers.run_exports import Recorder, session_cache
from tests.helpers.single_node import NEWEST, one_node, outputs_of

RANDOM = np.random.default_rng(0)


PROMPTS = [[5, 9, 40, 17, 33], [8, 12, 100, 71, 5, 60, 61, 44, 90], [3, 101]]


@pytest.fixture(scope="module")
def decoder_export(
    tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> DenseExport:
    return dense_export(tiny_decoder, Run(session_cache(tmp_path_factory), Recorder()))


def test_a_left_padded_batch_and_its_next_step_equal_the_prompts_alone(
    decoder_export: DenseExport,
) -> None:
    decoder = DecoderRunner.open(decoder_export.bundle)
    ids, mask = left_padded(PROMPTS, 0)
    new = np.array([[7], [21], [90]])
    prompt, cache = decoder.logits(ids, mask, decoder.empty_cache(len(ids), ids.shape[1] + 1))
    step, _ = decoder.logits(new, np.concatenate([mask, np.ones_like(new)], axis=1), cache)
    for row, tokens in enumerate(PROMPTS):
        room = decoder.empty_cache(1, len(tokens) + 1)
        alone, own = decoder.logits(np.array([tokens]), past=room)
        np.testing.assert_allclose(prompt[row, -len(tokens) :], alone[0], atol=1e-5)
        after, _ = decoder.logits(new[row : row + 1], past=own)
        np.testing.assert_allclose(step[row], after[0], atol=1e-5)


def test_a_cache_in_place_answers_like_one_that_grows(decoder_export: DenseExport) -> None:
    decoder = DecoderRunner.open(decoder_export.bundle)
    growing = DecoderRunner(decoder.session, decoder.config)
    ids = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
    ours, theirs = decoder.empty_cache(1, 9), growing.empty_cache(1, 9)
    for start, end in ((0, 5), (5, 6), (6, 8)):
        found, ours = decoder.logits(ids[:, start:end], past=ours)
        expected, theirs = growing.logits(ids[:, start:end], past=theirs)
        np.testing.assert_array_equal(found, expected)
    continued = [decoder.logits(np.array([[token]]), past=ours)[0] for token in (7, 8, 7)]
    np.testing.assert_array_equal(continued[0], continued[2])  # what followed is overwritten
    assert not np.array_equal(continued[0], continued[1])
    with pytest.raises(InputError, match="room for 9 tokens, and 10 were given"):
        decoder.logits(ids[:, :2], past=ours)


def test_a_tied_table_is_stored_once_and_nothing_is_transposed(
    tiny_decoder: LoadedModel, decoder_export: DenseExport
) -> None:
    graph = load_graph(decoder_export.traced).graph
    config = tiny_decoder.module.config
    table = (config.vocab_size, config.hidden_size)
    shapes = [tuple(value.shape or ()) for value in graph.initializers.values()]
    assert shapes.count(table) + shapes.count(table[::-1]) == 1
    found = Counter(node.op_type for node in graph)
    assert (found["Transpose"], found["FusedMatMul"]) == (0, 1)


def test_what_is_gathered_and_what_is_multiplied_have_two_names_for_the_same_bytes(
    decoder_export: DenseExport,
) -> None:
    path = decoder_export.bundle.model_path
    model = onnx.load(str(path), load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
    }
    head = next(node for node in model.graph.node if node.op_type == "FusedMatMul").input[1]
    table = head.removesuffix(".product")
    assert head != table
    assert places[head] == places[table]
    gathers = [node for node in model.graph.node if table in node.input]
    assert [node.op_type for node in gathers] == ["Gather"]
    names = load_graph(path).graph.initializers  # as if it had one name
    assert table in names
    assert head not in names


def test_the_caches_declare_the_head_size(
    tiny_decoder: LoadedModel, decoder_export: DenseExport
) -> None:
    graph = load_graph(decoder_export.traced).graph
    caches = [value for value in (*graph.inputs, *graph.outputs) if ".key" in (value.name or "")]
    assert [value.shape[3] for value in caches if value.shape is not None] == [
        tiny_decoder.module.config.head_dim
    ] * (2 * tiny_decoder.module.config.num_hidden_layers)


def test_genai_runs_the_folder_and_agrees(decoder_export: DenseExport) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    model = genai.Model(str(decoder_export.bundle.folder))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=24, min_length=24, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(PROMPTS[0])
    for _ in range(8):
        generator.generate_next_token()
    found = list(generator.get_sequence(0))[len(PROMPTS[0]) :]
    assert [found] == DecoderRunner.open(decoder_export.bundle).greedy(PROMPTS[:1], 8)


def test_the_renamed_norm_is_the_builders_norm(tmp_path: Path) -> None:
    node = helper.make_node(
        "SimplifiedLayerNormalization", ["x", "scale"], ["y"], "norm", axis=-1, epsilon=1e-5
    )
    model = one_node(node, {"scale": RANDOM.standard_normal(48).astype(np.float32)}, 48)
    ir.save(model, tmp_path / "builder.onnx")
    RenameNorms()(model)
    save_graph(model, tmp_path / "tidy.onnx", NEWEST, NEWEST)
    x = RANDOM.standard_normal((30, 48)).astype(np.float32)
    expected = outputs_of(tmp_path / "builder.onnx", x)
    found = outputs_of(tmp_path / "tidy.onnx", x)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-8)  # the kernels sum in orders


@pytest.mark.whole
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_graph_keeps_the_paths_of_modules_and_no_trace_of_the_machine(
    make_model: MakeModel, tmp_path: Path, family: str
) -> None:
    dense = dense_export(make_model(family), Run(Cache(tmp_path)))
    for path in (dense.traced, dense.bundle.model_path):
        noted = Counter(key for node in ir.load(path).graph for key in node.metadata_props)
        assert set(noted) <= {SCOPES}
        assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()
    assert noted[SCOPES] > 10
