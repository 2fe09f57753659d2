"""Foreign graphs are opened with their constants in one place, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from edgelr.core.errors import InputError
from edgelr.graph.linears import find_linears
from edgelr.graph.open import external_files, open_foreign
from edgelr.graph.save import save_graph
from tests.helpers.foreign_graphs import Builder, mlp, random, run


def names(source: Path) -> list[str]:
    return [linear.site.name for linear in find_linears(open_foreign(source)).found]


def test_a_tied_table_is_not_stored_twice(tmp_path: Path) -> None:
    build = Builder()
    build.weight("table", 20, 12)
    build.node("Gather", ["table", "ids"], "x")
    build.node("Transpose", ["table"], "head")
    build.node("MatMul", ["x", "head"], "y", name="head")
    types = {"ids": TensorProto.INT64}
    source = build.save(tmp_path / "tied.onnx", {"ids": [3]}, ["y"], types=types)
    assert names(source) == []
    assert len(open_foreign(source).graph.initializers) == 1


def test_initializers_that_are_also_inputs_are_found(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "y", name="only")
    source = build.save(tmp_path / "inputs.onnx", {"x": [3, 12], "w": [12, 20]}, ["y"])
    assert names(source) == ["only"]


def test_external_weights_that_are_missing_or_linked_out_are_refused(tmp_path: Path) -> None:
    """ONNX Runtime refuses that link, too."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    source = mlp(folder / "mlp.onnx", external=True)
    (data,) = external_files(source)
    moved = data.rename(other / data.name)
    with pytest.raises(InputError, match="does not exist"):
        external_files(source)
    data.symlink_to(moved)
    with pytest.raises(InputError, match=r"is a link to .* follows no other link"):
        external_files(source)
    with pytest.raises(Fail, match="escapes model directory"):
        run(source, x=random(3, 48))


def in_a_cache(source: Path, blobs: Path) -> None:
    """Move every file of a folder to blobs, and leave relative links: a cache of the Hub."""
    for file in sorted(source.parent.iterdir()):
        blob = blobs / sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, file.parent))


def kept_twice(source: Path, blobs: Path) -> None:
    """Give every file of a folder a second name, as some installers do."""
    for file in sorted(source.parent.iterdir()):
        (blobs / file.name).hardlink_to(file)


@pytest.mark.parametrize("kept", [in_a_cache, kept_twice])
def test_weights_are_read_behind_the_links_that_onnx_runtime_follows(
    tmp_path: Path, kept: Callable[[Path, Path], None]
) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    source = mlp(snapshot / "mlp.onnx", external=True)
    expected = run(source, x=random(3, 48))[0]
    kept(source, blobs)
    assert external_files(source)
    (tmp_path / "out").mkdir()
    save_graph(open_foreign(source), tmp_path / "out" / "mlp.onnx", 1000, 1000, check=False)
    np.testing.assert_array_equal(run(source, x=random(3, 48))[0], expected)
    np.testing.assert_array_equal(run(tmp_path / "out" / "mlp.onnx", x=random(3, 48))[0], expected)


def function(name: str, opset: int, nodes: list[onnx.NodeProto], **more: Any) -> onnx.FunctionProto:
    versions = [helper.make_opsetid("", opset), helper.make_opsetid("pkg", 1)]
    inputs = ["x", "w1", "w2"] if name == "Block" else ["x", "w"]
    return helper.make_function("pkg", name, inputs, ["y"], nodes, versions, **more)


def with_attribute(op: str, own: str, **given: Any) -> onnx.NodeProto:
    """A node of a function whose attribute is the function's."""
    node = helper.make_node(op, ["h"], ["y"], **given)
    kind = onnx.AttributeProto.FLOAT
    node.attribute.append(onnx.AttributeProto(name=own, type=kind, ref_attr_name="slope"))
    return node


def with_functions(path: Path, opset: int = 17, last: str = "LeakyRelu") -> Path:
    """Two blocks of two linears each: functions that call functions, with an attribute."""
    linear = function(
        "Linear",
        opset,
        [helper.make_node("MatMul", ["x", "w"], ["h"]), with_attribute(last, "alpha")],
        attribute_protos=[helper.make_attribute("slope", 0.25)],
    )
    block = function(
        "Block",
        opset,
        [
            helper.make_node("Linear", ["x", "w1"], ["h"], domain="pkg", slope=0.5),
            helper.make_node("Linear", ["h", "w2"], ["y"], domain="pkg"),
        ],
    )
    build = Builder()
    for name in ("up", "down", "up2", "down2"):
        build.weight(name, *((12, 20) if name.startswith("up") else (20, 12)))
    build.node("Block", ["x", "up", "down"], "h", domain="pkg", name="first")
    build.node("Block", ["h", "up2", "down2"], "y", domain="pkg", name="second")
    build.save(path, {"x": [3, 12]}, ["y"])
    model = onnx.load(path)
    model.functions.extend([linear, block])
    model.opset_import.append(helper.make_opsetid("pkg", 1))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("opset", [16, 17])
def test_local_functions_are_inlined_with_their_attributes(tmp_path: Path, opset: int) -> None:
    """Also those of another operator set, where their operators are the same in both."""
    source = with_functions(tmp_path / "functions.onnx", opset)
    assert names(source) == ["up", "down", "up2", "down2"]
    save_graph(open_foreign(source), tmp_path / "out.onnx", 1000, 1000, check=False)
    x = random(3, 12)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x=x)[0], run(source, x=x)[0])


def test_functions_whose_operators_mean_something_else_are_refused(tmp_path: Path) -> None:
    source = with_functions(tmp_path / "functions.onnx", 11)
    with pytest.raises(InputError, match="function Linear of operator set 11, and its own is 17"):
        open_foreign(source)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_foreign(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph at all")
    with pytest.raises(InputError, match="cannot be read as an ONNX graph"):
        open_foreign(broken)
    broken.write_bytes(b"")
    with pytest.raises(InputError, match="holds no nodes"):
        open_foreign(broken)
