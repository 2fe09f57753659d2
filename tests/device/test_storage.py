"""Bytes: what is counted is what forms, files and ONNX Runtime's kernels have."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgelr.compress.block_quantized import quantize
from edgelr.compress.factors import LowRank
from edgelr.compress.forms import pivot
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import LAYOUTS, Form, GroupKind, WeightPrecision
from edgelr.device.storage import (
    largest_rank,
    matrix_bytes,
    nearest_divisors,
    packed_bytes,
    stored,
    tensor_bytes,
)

ALIGNMENT = 256  # bytes that a packed layout may have more, for its beginning and its parts

every_quantized = pytest.mark.parametrize("precision", LAYOUTS)


def group(*outputs: int, inputs: int = 40, kind: GroupKind = "one") -> SiteGroup:
    sites = [
        LinearSite(str(index), inputs, each, False, "role", index, "x")
        for index, each in enumerate(outputs)
    ]
    return SiteGroup("group", tuple(sites), kind)


# --- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (24, 24)])
@pytest.mark.parametrize("rank", [1, 7, 23])
def test_a_pivoted_site_stores_the_factors_that_pivoting_makes(
    shape: tuple[int, int], rank: int
) -> None:
    """A square one pivots its outputs: fewer nodes move values there."""
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(shape[0], rank, generator=generator)
    up = torch.randn(rank, shape[1], generator=generator)
    made = pivot(LowRank(down, up))
    kept = stored("pivoted", group(shape[1], inputs=shape[0]), rank)
    assert kept.own == ((tuple(made.first.shape), tuple(made.second.shape)),)
    assert (kept.shared, kept.indices) == ((), len(made.order))


@pytest.mark.parametrize("form", ["low_rank", "pivoted"])
def test_sites_that_share_a_basis_store_it_once(form: Form) -> None:
    kept = stored(form, group(24, 8, kind="input"), 6)
    rows = 40 - 6 * (form == "pivoted")
    assert kept.shared == ((rows, 6),)
    assert kept.own == (((6, 24),), ((6, 8),))
    assert kept.parameters == 6 * (rows + 24 + 8)
    assert kept.indices == 40 * (form == "pivoted")


def test_a_tied_pair_stores_one_matrix_for_both() -> None:
    kept = stored("tied", group(24, 24, kind="tied"), 24)
    assert (kept.matrices, kept.own) == (((40, 24),), ((), ()))


@pytest.mark.parametrize("terms", [1, 3])
def test_kronecker_terms_store_their_factors_side_by_side(terms: int) -> None:
    kept = stored("kronecker", group(24, inputs=40), terms)
    (n1, n2), (m1, m2) = nearest_divisors(40), nearest_divisors(24)
    assert kept.parameters == terms * (m1 * n1 + m2 * n2)
    assert kept.parameters < 40 * 24


@pytest.mark.parametrize("size", [1, 2, 12, 17, 40, 576, 1536])
def test_divisors_are_the_nearest_to_the_root(size: int) -> None:
    small, large = nearest_divisors(size)
    assert small * large == size
    assert small <= large
    assert not [each for each in range(small + 1, large) if size % each == 0]


@pytest.mark.parametrize(
    ("form", "made", "largest"),
    [
        ("low_rank", group(24), 24),
        ("low_rank", group(64), 40),
        ("pivoted", group(24), 23),
        ("pivoted", group(64), 39),
        ("pivoted", group(40), 39),
        ("pivoted", group(20, 8, kind="input"), 28),  # inputs are pivoted, and there are more
        ("pivoted", group(40, 24, kind="input"), 39),
        ("kronecker", group(24), 4 * 5),
    ],
)
def test_every_rank_up_to_the_largest_leaves_something_on_both_sides(
    form: Form, made: SiteGroup, largest: int
) -> None:
    assert largest_rank(form, made) == largest
    assert all(min(shape) > 0 for shape in stored(form, made, largest).matrices)


# --- bytes ---------------------------------------------------------------------------------------


@every_quantized
@pytest.mark.parametrize("inputs", [8, 32, 33, 96, 128, 129])
def test_files_hold_whole_blocks_with_a_scale_and_a_zero_point_each(
    precision: WeightPrecision, inputs: int
) -> None:
    blocks = quantize(np.ones((inputs, 10), np.float32), precision)
    full, half = (tensor_bytes((inputs, 10), precision, each) for each in ("float32", "float16"))
    assert full == (blocks.packed.nbytes, blocks.scales.nbytes, blocks.zero_points.nbytes)
    assert half == (full[0], full[1] / 2, full[2])
    assert matrix_bytes((inputs, 10), precision, "float16") == sum(half)


def product(precision: WeightPrecision, weight: np.ndarray) -> onnx.ModelProto:
    """A graph with one constant matrix, as ``edgelr.graph`` writes it for a CPU."""
    if precision == "float32":
        tensors = {"weight": weight}
        node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    else:
        blocks = quantize(weight, precision)
        points = blocks.zero_points.ravel()
        tensors = {"weight": blocks.packed, "scales": blocks.scales, "points": points}
        node = helper.make_node(
            "MatMulNBits", ["x", *tensors], ["y"], domain="com.microsoft", K=len(weight),
            N=weight.shape[1], bits=blocks.layout.bits,
            block_size=blocks.layout.block_size, accuracy_level=4,
        )  # fmt: skip
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in zip("xy", weight.shape, strict=True)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph([node], "product", values[:1], values[1:], constants)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def kernel_bytes(model: onnx.ModelProto, folder: Path) -> int:
    """Let ONNX Runtime save the layout that its kernel multiplies with, and read its size."""
    external = {"save_as_external_data": True, "location": "model.data", "size_threshold": 0}
    onnx.save_model(model, folder / "model.onnx", **external)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "packed.onnx")
    for name, value in {
        "session.optimized_model_external_initializers_file_name": "packed.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "0",
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(name, value)
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(folder / "model.onnx", options, providers=providers)
    saved = onnx.load(folder / "packed.onnx", load_external_data=False).graph.initializer
    (told,) = (each.value for one in saved for each in one.external_data
               if each.key.startswith("prepacked"))  # fmt: skip
    return sum(int(part.split(";")[1]) for part in told.split("|")[1:])


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="other CPUs have layouts of their own"
)
@pytest.mark.parametrize("precision", ["float32", *LAYOUTS])
@pytest.mark.parametrize("shape", [(64, 512), (100, 256), (256, 128)])
def test_packed_bytes_are_those_of_the_kernels_layout(
    precision: WeightPrecision, shape: tuple[int, int], tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = kernel_bytes(product(precision, weight), tmp_path)
    assert 0 <= found - packed_bytes(shape, precision) < ALIGNMENT
