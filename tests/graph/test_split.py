"""Linears of foreign graphs are split, and nothing changes but the rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelr.graph.linears import Linears, find_linears
from edgelr.graph.open import external_files, open_foreign
from edgelr.graph.save import save_graph
from edgelr.graph.split import ArrayLowRank, SplitLinears
from tests.helpers.foreign_graphs import IR_VERSIONS, Builder, mlp, random, run

NEWEST = 1000


def products(linears: Linears, share: float) -> dict[str, ArrayLowRank]:
    """Plain truncated SVDs of all linears, of a share of the full rank."""
    found = {}
    for linear in linears.found:
        u, s, v = np.linalg.svd(linear.read_weight().astype(np.float64), full_matrices=False)
        rank = max(1, round(share * len(s)))
        found[linear.site.name] = ArrayLowRank(v[:rank].T, (u[:, :rank] * s[:rank]).T)
    return found


def split(source: Path, share: float) -> Path:
    model = open_foreign(source)
    linears = find_linears(model)
    SplitLinears(linears, products(linears, share))(model)
    path = source.with_name(f"split-{share}.onnx")
    save_graph(model, path, NEWEST, NEWEST, check=False)
    return path


def names(source: Path) -> list[str]:
    return [linear.site.name for linear in find_linears(open_foreign(source)).found]


def truncated(weight: np.ndarray, share: float) -> np.ndarray:
    u, s, v = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    rank = max(1, round(share * len(s)))
    matrix: np.ndarray = (u[:, :rank] * s[:rank]) @ v[:rank]
    return matrix


def matmul(path: Path, opset: int) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    build = Builder(opset)
    weight = build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "y")
    build.save(path, {"x": [2, 3, 12]}, ["y"])
    return path, lambda x, share: x @ truncated(weight, share)


def gemm(path: Path, opset: int) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    build = Builder(opset)
    weight, bias = build.weight("w", 12, 20), build.weight("b", 20)
    build.node("Gemm", ["x", "w", "b"], "y", alpha=0.5, beta=3.0)
    build.save(path, {"x": [5, 12]}, ["y"])
    return path, lambda x, share: 0.5 * (x @ truncated(weight, share)) + 3 * bias


def gemm_transposed(
    path: Path, opset: int
) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    build = Builder(opset)
    weight = build.weight("w", 20, 12)
    build.node("Gemm", ["x", "w"], "y", transB=1)
    build.save(path, {"x": [5, 12]}, ["y"])
    return path, lambda x, share: x @ truncated(weight, share).T


def conv(path: Path, opset: int) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    """With strides and padding: the border is the bias alone."""
    build = Builder(opset)
    weight, bias = build.weight("w", 20, 12, 1, 1), build.weight("b", 20)
    build.node("Conv", ["x", "w", "b"], "y", strides=[2, 3], pads=[1, 0, 2, 1])
    build.save(path, {"x": [2, 12, 7, 5]}, ["y"])

    def expected(x: np.ndarray, share: float) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))[:, :, ::2, ::3]
        found = np.einsum("oi,nihw->nohw", truncated(weight[:, :, 0, 0], share), padded)
        return found + bias[:, None, None]

    return path, expected


def conv1d(path: Path, opset: int) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    build = Builder(opset)
    weight = build.weight("w", 20, 12, 1)
    build.node("Conv", ["x", "w"], "y")
    build.save(path, {"x": [2, 12, 7]}, ["y"])
    return path, lambda x, share: np.einsum("oi,nil->nol", truncated(weight[:, :, 0], share), x)


def matmul_left(path: Path, opset: int) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    build = Builder(opset)
    weight = build.weight("w", 20, 12)
    build.node("MatMul", ["w", "x"], "y")
    build.save(path, {"x": [2, 12, 7]}, ["y"])
    return path, lambda x, share: truncated(weight, share) @ x


def batch_of_one(path: Path, opset: int) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    """The product of a matrix has three axes, before and after."""
    build = Builder(opset)
    weight = build.weight("w", 1, 12, 20)
    build.node("MatMul", ["x", "w"], "y")
    build.save(path, {"x": [5, 12]}, ["y"])
    return path, lambda x, share: (x @ truncated(weight[0], share))[None]


def kernel(path: Path, opset: int) -> tuple[Path, Callable[[np.ndarray, float], np.ndarray]]:
    """Patches, gathered by hand: dilations, strides and uneven zeros stay with the first."""
    build = Builder(opset)
    weight, bias = build.weight("w", 20, 12, 3, 2), build.weight("b", 20)
    attributes = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}
    build.node("Conv", ["x", "w", "b"], "y", kernel_shape=[3, 2], **attributes)
    build.save(path, {"x": [2, 12, 7, 5]}, ["y"])

    def expected(x: np.ndarray, share: float) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        patches = windows[:, :, ::2, :, :, ::2]  # (images, channels, height, width, 3, 2)
        short = truncated(weight.reshape(20, -1), share).reshape(weight.shape)
        return np.einsum("ocij,nchwij->nohw", short, patches) + bias[:, None, None]

    return path, expected


KINDS = {
    matmul: (2, 3, 12), gemm: (5, 12), gemm_transposed: (5, 12), conv: (2, 12, 7, 5),
    conv1d: (2, 12, 7), matmul_left: (2, 12, 7), batch_of_one: (5, 12), kernel: (2, 12, 7, 5),
}  # fmt: skip


@pytest.mark.parametrize("opset", sorted(IR_VERSIONS))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_linear_is_split_in_every_opset(
    kind: Callable[..., object], opset: int, tmp_path: Path
) -> None:
    x = random(*KINDS[kind])
    source, expected = kind(tmp_path / "dense.onnx", opset)  # type: ignore[misc]
    (dense,) = run(source, x=x)
    np.testing.assert_allclose(dense, expected(x, 1.0), atol=1e-4)
    np.testing.assert_allclose(run(split(source, 1.0), x=x)[0], dense, atol=1e-4)
    half = split(source, 0.5)
    np.testing.assert_allclose(run(half, x=x)[0], expected(x, 0.5), atol=1e-4)
    written = onnx.load(half)
    assert [entry.version for entry in written.opset_import] == [opset]
    assert "w" not in {weight.name for weight in written.graph.initializer}


def test_nodes_that_share_a_weight_share_their_factors(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12)
    build.node("MatMul", ["x", "w"], "h", name="once")
    build.node("Tanh", ["h"], "t")
    build.node("MatMul", ["t", "w"], "y", name="twice")
    source = build.save(tmp_path / "shared.onnx", {"x": [3, 12]}, ["y"])
    assert names(source) == ["once"]
    x = random(3, 12)
    np.testing.assert_allclose(run(split(source, 1.0), x=x)[0], run(source, x=x)[0], atol=1e-4)
    model = open_foreign(split(source, 0.5))
    assert len(model.graph.initializers) == 2
    assert [node.op_type for node in model.graph] == [
        "MatMul",
        "MatMul",
        "Tanh",
        "MatMul",
        "MatMul",
    ]


def test_only_float_weights_of_a_dynamically_quantized_graph_are_split(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "h", name="float")
    build.nodes.append(
        helper.make_node("DynamicQuantizeLinear", ["h"], ["q", "scale", "zero"], name="quantize")
    )
    integers = np.random.default_rng(0).integers(-9, 9, (20, 8)).astype(np.int8)
    build.weights.append(numpy_helper.from_array(integers, "wq"))
    build.node("MatMulInteger", ["q", "wq", "zero"], "z", name="integers")
    build.node("Cast", ["z"], "f", to=TensorProto.FLOAT)
    build.node("Mul", ["f", "scale"], "y")
    source = build.save(tmp_path / "quantized.onnx", {"x": [5, 12]}, ["y"])
    assert names(source) == ["float"]
    x = random(5, 12)
    path = split(source, 1.0)
    # Rounding to 8 bits may fall on the other side: within two steps of it.
    np.testing.assert_allclose(run(path, x=x)[0], run(source, x=x)[0], atol=2.0)
    stored = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    assert stored["wq"].tobytes() == integers.tobytes()


def branch(name: str, weight: str, constant: bool) -> onnx.GraphProto:
    """A body that multiplies the outer ``x``; its weight is outside, or a node of its own."""
    nodes = []
    if constant:
        array = np.random.default_rng(7).standard_normal((12, 12)).astype(np.float32)
        value = numpy_helper.from_array(array, f"{name}_value")
        nodes.append(helper.make_node("Constant", [], [f"{name}_w"], value=value))
        weight = f"{name}_w"
    nodes.append(helper.make_node("MatMul", ["x", weight], [f"{name}_y"], name=f"/{name}/MatMul"))
    output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [output])


def conditional(path: Path) -> Path:
    """``x @ w`` outside; inside an If, ``x @ w`` again or a product with a constant of the body."""
    build = Builder()
    build.weight("w", 12, 12)
    build.node("MatMul", ["x", "w"], "h", name="/outer/MatMul")
    build.node(
        "If", ["condition"], "z",
        then_branch=branch("then", "w", False), else_branch=branch("else", "", True),
    )  # fmt: skip
    build.node("Add", ["h", "z"], "y")
    types = {"condition": TensorProto.BOOL}
    return build.save(path, {"x": [3, 12], "condition": []}, ["y"], types=types)


@pytest.mark.parametrize("condition", [True, False])
def test_bodies_of_if_are_split_with_the_rest(condition: bool, tmp_path: Path) -> None:
    source = conditional(tmp_path / "if.onnx")
    assert names(source) == ["outer", "else"]
    feeds = {"x": random(3, 12), "condition": np.array(condition)}
    (dense,) = run(source, **feeds)
    np.testing.assert_allclose(run(split(source, 1.0), **feeds)[0], dense, atol=1e-4)
    assert np.abs(run(split(source, 0.5), **feeds)[0] - dense).max() > 0.1


def test_a_linear_in_a_loop_is_split(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go"]),
            helper.make_node("MatMul", ["state_in", "w"], ["product"], name="step"),
            helper.make_node("Tanh", ["product"], ["state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [3, 12]),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3, 12]),
        ],
    )
    build.weights.append(numpy_helper.from_array(np.array(4, np.int64), "times"))
    build.weights.append(numpy_helper.from_array(np.array(True), "always"))
    build.node("Loop", ["times", "always", "x"], "y", body=body)
    source = build.save(tmp_path / "loop.onnx", {"x": [3, 12]}, ["y"])
    (linear,) = find_linears(open_foreign(source)).found
    assert linear.site.name == "step"
    assert linear.readings == ()  # what a body reads cannot be an output of the graph
    x = random(3, 12)
    np.testing.assert_allclose(run(split(source, 1.0), x=x)[0], run(source, x=x)[0], atol=1e-4)


def test_weights_that_are_nodes_are_found(tmp_path: Path) -> None:
    build = Builder()
    array = random(12, 20)
    build.nodes.append(
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(array, "value"))
    )
    build.node("MatMul", ["x", "w"], "y", name="only")
    source = build.save(tmp_path / "constant.onnx", {"x": [3, 12]}, ["y"])
    assert names(source) == ["only"]
    x = random(3, 12)
    np.testing.assert_allclose(run(split(source, 1.0), x=x)[0], x @ array, atol=1e-4)


def test_constants_behind_identity_and_transpose_are_found(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 20, 12)
    build.weight("v", 20, 20)
    build.node("Transpose", ["w"], "wt")
    build.node("MatMul", ["x", "wt"], "h", name="first")
    build.node("Identity", ["v"], "same")
    build.node("MatMul", ["h", "same"], "g", name="second")
    build.node("Identity", ["g"], "y")
    source = build.save(tmp_path / "folded.onnx", {"x": [3, 12]}, ["y"])
    assert names(source) == ["first", "second"]
    x = random(3, 12)
    np.testing.assert_allclose(run(split(source, 1.0), x=x)[0], run(source, x=x)[0], atol=1e-4)


def test_external_weights_are_read_late_and_written_beside(tmp_path: Path) -> None:
    source = mlp(tmp_path / "mlp.onnx", external=True)
    model = open_foreign(source)
    weight = model.graph.initializers["w2"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    assert external_files(source)
    assert external_files(mlp(tmp_path / "inline.onnx")) == []
    path = split(source, 1.0)
    assert path.with_name(f"{path.name}.data").stat().st_size > 4 * 48 * 80
    x = random(5, 48)
    np.testing.assert_allclose(run(path, x=x)[0], run(source, x=x)[0], atol=1e-4)


def test_float16_weights_stay_float16(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20, dtype=np.float16)
    build.node("MatMul", ["x", "w"], "y")
    types = {"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16}
    source = build.save(tmp_path / "half.onnx", {"x": [3, 12]}, ["y"], types=types)
    x = random(3, 12).astype(np.float16)
    found = run(split(source, 1.0), x=x)[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, run(source, x=x)[0], atol=0.05)
