from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelr.compress.factors import LowRank
from edgelr.core.errors import EdgelrError, InputError
from edgelr.core.sites import LinearSite
from edgelr.data.padding import left_padded
from edgelr.graph.bind import Binding, bind
from edgelr.graph.cleanup import RenameNorms
from edgelr.graph.factorize import FactorizeLinears
from edgelr.graph.float16 import LARGEST, ToFloat16
from edgelr.graph.save import load_graph, save_graph
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from edgelr.runtime.runners.decoder import Decoder
from edgelr.runtime.session import open_session
from edgelr.stages.subject import DenseExport, dense_export
from tests.helpers.run_exports import Recorder, session_cache

PROMPTS = [[5, 9, 40, 17, 33], [8, 12, 100, 71, 5, 60, 61, 44, 90], [3, 101]]
NEWEST = 1000
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def decoder_export(
    tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> DenseExport:
    return dense_export(tiny_decoder, session_cache(tmp_path_factory), Recorder())


@pytest.fixture(scope="module", params=["tiny_decoder", "tiny_encoder"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LoadedModel, DenseExport]:
    model: LoadedModel = request.getfixturevalue(request.param)
    return model, dense_export(model, session_cache(tmp_path_factory), Recorder())


def one_node(
    node: onnx.NodeProto, weights: dict[str, np.ndarray], features: int, opset: int = 20
) -> ir.Model:
    """A graph of one node from ``x (n, features)`` to ``y``."""
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def outputs_of(path: Path, x: np.ndarray) -> np.ndarray:
    (y,), _ = open_session(path, "cpu", 1).run({"x": x}, ["y"])
    return y


# --- tidy ----------------------------------------------------------------------------------------


def test_a_left_padded_batch_and_its_next_step_equal_the_prompts_alone(
    decoder_export: DenseExport,
) -> None:
    decoder = Decoder.open(decoder_export.bundle)
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
    decoder = Decoder.open(decoder_export.bundle)
    growing = Decoder(decoder.session, decoder.config)
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
    assert [found] == Decoder.open(decoder_export.bundle).greedy(PROMPTS[:1], 8)


# --- bind ----------------------------------------------------------------------------------------


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


# --- rewrite, on a Gemm --------------------------------------------------------------------------


def gemm(alpha: float) -> tuple[ir.Model, list[Binding], np.ndarray]:
    """A Gemm with a bias and its weight ``(out, in)`` transposed, bound to a site."""
    weight = RANDOM.standard_normal((20, 12)).astype(np.float32)
    bias = RANDOM.standard_normal(20).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "/head/Gemm", transB=1, alpha=alpha)
    model = one_node(node, {"w": weight, "b": bias}, 12)
    site = LinearSite("head", 12, 20, True, "head", None, "head")
    return model, bind(model.graph, [site], lambda _: weight), weight


def test_a_gemm_keeps_its_bias(tmp_path: Path) -> None:
    import torch

    model, bindings, weight = gemm(alpha=1.0)
    assert bindings[0].transposed
    ir.save(model, tmp_path / "dense.onnx")
    u, s, v = torch.linalg.svd(torch.tensor(weight).T, full_matrices=False)
    FactorizeLinears(bindings, {"head": LowRank(u * s, v)})(model)
    save_graph(model, tmp_path / "split.onnx", NEWEST, NEWEST)
    x = RANDOM.standard_normal((7, 12)).astype(np.float32)
    expected = outputs_of(tmp_path / "dense.onnx", x)
    np.testing.assert_allclose(outputs_of(tmp_path / "split.onnx", x), expected, atol=1e-4)
    assert [node.op_type for node in model.graph] == ["MatMul", "MatMul", "Add"]


def test_a_gemm_that_scales_is_refused() -> None:
    import torch

    model, bindings, weight = gemm(alpha=2.0)
    factors = LowRank(torch.tensor(weight.T[:, :4]), torch.tensor(weight[:4]))
    with pytest.raises(EdgelrError, match=r"Gemm of head has alpha=2\.0"):
        FactorizeLinears(bindings, {"head": factors})(model)


# --- precision and operator sets ------------------------------------------------------------------


def test_a_weight_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    weight = np.full((48, 8), 1e6, np.float32)
    model = one_node(helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": weight}, 48)
    ToFloat16()(model)
    with pytest.raises(EdgelrError, match=r"weight w reaches 1e\+06; float16 ends at 65504"):
        save_graph(model, tmp_path / "half.onnx", NEWEST, NEWEST)


def test_angles_keep_their_digits_in_float16(tmp_path: Path) -> None:
    """Two thousand turns later, a position still has its own cosine; a shared weight has both."""
    positions = np.arange(1990, 2048)
    nodes = [
        helper.make_node("Cast", ["positions"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "speeds"], ["angles"]),
        helper.make_node("Cos", ["angles"], ["cosines"]),
        helper.make_node("Add", ["cosines", "speeds"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("positions", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([1, 0.37, 0.01], np.float32), "speeds")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(made))
    ToFloat16()(model)
    save_graph(model, tmp_path / "model.onnx", NEWEST, NEWEST)
    session = open_session(tmp_path / "model.onnx", "cpu", 1)
    ((found,), _) = session.run({"positions": positions[:, None]}, ["y"])
    assert found.dtype == np.float16
    speeds = np.array([1, 0.37, 0.01])
    expected = np.cos(positions[:, None] * speeds) + speeds
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_minus_infinity_of_a_mask_becomes_the_lowest_float16(tmp_path: Path) -> None:
    lowest = np.array(np.finfo(np.float32).min)
    model = one_node(helper.make_node("Add", ["x", "m"], ["y"]), {"m": lowest}, 48)
    ToFloat16()(model)
    save_graph(model, tmp_path / "half.onnx", NEWEST, NEWEST)
    found = outputs_of(tmp_path / "half.onnx", np.zeros((1, 48), np.float32))
    np.testing.assert_array_equal(found, np.full((1, 48), -LARGEST, np.float16))


def test_an_operator_that_stayed_the_same_may_be_lowered(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = one_node(node, {"w": np.ones((48, 8), np.float32)}, 48, opset=23)
    save_graph(model, tmp_path / "old.onnx", 17, 8)
    found = onnx.load(tmp_path / "old.onnx")
    assert (found.opset_import[0].version, found.ir_version) == (17, 8)
    assert outputs_of(tmp_path / "old.onnx", np.ones((2, 48), np.float32)).shape == (2, 8)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [("RMSNormalization", ["x", "s"], {}), ("ReduceSum", ["x", "axes"], {"keepdims": 1})],
)
def test_an_operator_that_changed_is_refused(
    tmp_path: Path, operator: str, inputs: list[str], attributes: dict[str, int]
) -> None:
    weights = {"s": np.ones(48, np.float32), "axes": np.array([1], np.int64)}
    node = helper.make_node(operator, inputs, ["y"], "it", **attributes)
    model = one_node(node, {inputs[1]: weights[inputs[1]]}, 48, opset=23)
    with pytest.raises(EdgelrError, match=f"{operator} of 'it' changed between opset 11 and 23"):
        save_graph(model, tmp_path / "old.onnx", 11, NEWEST)
