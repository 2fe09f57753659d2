"""Faults that a bundle may have although its files are whole: the checksums are written again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgelr.core.bundle import describe_files, read_bundle, write_manifest

Fault = Callable[[Path], None]


def rewrite_checksums(folder: Path) -> None:
    """Let the manifest say that the files are as they should be."""
    manifest = json.loads((folder / "edgelr/manifest.json").read_text())
    paths = [file["path"] for file in manifest["files"]]
    manifest["files"] = []
    (folder / "edgelr/manifest.json").write_text(json.dumps(manifest))
    found = read_bundle(folder).manifest
    write_manifest(folder, replace(found, files=describe_files(folder, paths)))


@contextmanager
def edited(folder: Path) -> Iterator[ModelProto]:
    """Give the graph of a bundle, and write it again."""
    (path,) = (folder / "onnx").glob("*.onnx")
    model = onnx.load(path)
    yield model
    sidecar = path.with_name(path.name + ".data")
    sidecar.unlink()
    onnx.save_model(
        model, path, save_as_external_data=True, location=sidecar.name, size_threshold=1024
    )
    rewrite_checksums(folder)


def weight(model: ModelProto, *endings: str) -> TensorProto:
    """Find the first initializer whose name ends in one of these."""
    for each in model.graph.initializer:
        if each.name.endswith(endings):
            return each
    raise AssertionError(f"nothing ends in {endings}")


def change(tensor: TensorProto, values: np.ndarray) -> None:
    before = numpy_helper.to_array(tensor)
    assert values.shape == before.shape
    assert not np.array_equal(values, before), f"the fault leaves {tensor.name} as it is"
    tensor.CopyFrom(numpy_helper.from_array(values.astype(before.dtype), tensor.name))


def nothing(folder: Path) -> None:
    rewrite_checksums(folder)


def scaled_factor(folder: Path) -> None:
    """By two percent."""
    with edited(folder) as model:
        factor = weight(model, "output.dense.second", "mlp.down_proj.second")
        change(factor, 1.02 * numpy_helper.to_array(factor))


def transposed_factor(folder: Path) -> None:
    with edited(folder) as model:
        factors = (numpy_helper.to_array(each) for each in model.graph.initializer)
        pairs = zip(model.graph.initializer, factors, strict=True)
        square = [
            (each, values)
            for each, values in pairs
            if values.ndim == 2 and values.dtype.kind == "f" and values.shape == values.shape[::-1]
        ]
        change(square[0][0], square[0][1].T)


def swapped_sites(folder: Path) -> None:
    """Two layers of one size take each other's factor."""
    with edited(folder) as model:
        pair = [
            weight(model, f"{layer}.intermediate.dense.second", f"{layer}.mlp.gate_proj.second")
            for layer in (0, 1)
        ]
        first, second = map(numpy_helper.to_array, pair)
        rows = min(len(first), len(second))
        for tensor, own, other in ((pair[0], first, second), (pair[1], second, first)):
            change(tensor, np.concatenate([other[:rows], own[rows:]]))


def dropped_bias(folder: Path) -> None:
    with edited(folder) as model:
        bias = weight(model, "1.output.dense.bias", "0.attn.q_proj.Add.bias", "qkv_proj.Add.bias")
        change(bias, 0 * numpy_helper.to_array(bias))


def permuted_rows(folder: Path) -> None:
    with edited(folder) as model:
        factor = weight(model, "attention.output.dense.first", "o_proj.first", "down_proj.first")
        change(factor, np.roll(numpy_helper.to_array(factor), 1, axis=0))


def truncated_sidecar(folder: Path) -> None:
    (path,) = (folder / "onnx").glob("*.data")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def wrong_mask(folder: Path) -> None:
    """The graph takes padding for text."""
    with edited(folder) as model:
        one = helper.make_tensor("fault.one", TensorProto.INT64, [], [1])
        model.graph.initializer.append(one)
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                if name == "attention_mask":
                    node.input[place] = "fault.mask"
        node = helper.make_node("Max", ["attention_mask", "fault.one"], ["fault.mask"])
        model.graph.node.insert(0, node)


def wrong_position_ids(folder: Path) -> None:
    """Twice as far apart where only differences count, in rotary positions; else moved by one."""
    with edited(folder) as model:
        names = {each.name for each in model.graph.initializer}
        if "cos_cache" in names:
            for name in ("cos_cache", "sin_cache"):
                values = numpy_helper.to_array(weight(model, name))
                twice = np.minimum(2 * np.arange(len(values)), len(values) - 1)
                change(weight(model, name), values[twice])
        else:
            table = weight(model, "position_embeddings.weight")
            change(table, np.roll(numpy_helper.to_array(table), 1, axis=0))


def wrong_zero_point(folder: Path) -> None:
    """The quantized values of one matrix are read as if 129 and not 128 meant zero."""
    with edited(folder) as model:
        node = next(each for each in model.graph.node if each.op_type == "MatMulNBits")
        stored = numpy_helper.to_array(weight(model, node.input[1]))
        scales = numpy_helper.to_array(weight(model, node.input[2]))
        points = np.full(scales.shape, 129, np.uint8)
        assert stored.dtype == np.uint8
        model.graph.initializer.append(numpy_helper.from_array(points, "fault.zero_points"))
        del node.input[3:]
        node.input.append("fault.zero_points")


def stale_tokenizer(folder: Path) -> None:
    """Two tokens have changed their ids since."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["e"], vocabulary["a"] = vocabulary["a"], vocabulary["e"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    rewrite_checksums(folder)


def shifted_logits(folder: Path) -> None:
    """All by the same: no probability changes, and no token."""
    with edited(folder) as model:
        name = model.graph.output[0].name
        for node in model.graph.node:
            for place, output in enumerate(node.output):
                if output == name:
                    node.output[place] = "fault.unshifted"
        shift = helper.make_tensor("fault.shift", TensorProto.FLOAT, [], [0.05])
        model.graph.initializer.append(shift)
        node = helper.make_node("Add", ["fault.unshifted", "fault.shift"], [name])
        model.graph.node.append(node)


def random_head(folder: Path) -> None:
    with edited(folder) as model:
        (last,) = (node for node in model.graph.node if model.graph.output[0].name in node.output)
        head = weight(model, last.input[1])
        values = numpy_helper.to_array(head)
        noise = np.random.default_rng(0).standard_normal(values.shape)
        change(head, noise * values.std())


FAULTS: tuple[Fault, ...] = (
    scaled_factor,
    transposed_factor,
    swapped_sites,
    dropped_bias,
    permuted_rows,
    truncated_sidecar,
    wrong_mask,
    wrong_position_ids,
    stale_tokenizer,
    shifted_logits,
)
