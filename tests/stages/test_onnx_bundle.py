"""The split graph that ships: what was asked for, its own answers, and the same other bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelr import pipeline
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import load_profile
from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from edgelr.report.schema import from_json
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.foreign_graphs import Builder, random, run
from tests.helpers.graph_exports import exported
from tests.helpers.run_exports import Recorder

pytestmark = pytest.mark.whole


def test_it_passes_its_own_tests(graph_bundle: ExportBundle) -> None:
    (found,) = run_bundle_tests([graph_bundle.folder]).values()
    assert found
    assert all(found.values()), found


def test_a_bundle_keeps_what_was_asked_for_and_gives_its_own_answers(
    graph_bundle: ExportBundle, graph: Path, graph_inputs: Path
) -> None:
    report = from_json((graph_bundle.folder / "reports" / "generic-cpu.json").read_text())
    assert report.task == graph_bundle.manifest.task == "tensors"
    assert 0.5 < report.plan.kept <= 0.7
    validation = report.validation
    assert validation is not None
    assert validation.parity is not None
    assert validation.passed
    assert validation.text == "inputs.npz, second half (96 samples)"
    x = np.load(graph_inputs)["x"][96:]
    (dense,), (found,) = run(graph, x=x), run(graph_bundle.model_path, x=x)
    cosines = (
        (dense * found).sum(-1) / np.linalg.norm(dense, axis=-1) / np.linalg.norm(found, axis=-1)
    )
    metrics = {metric.name: metric.value for metric in validation.metrics}
    assert metrics["mean_cosine"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert report.comparison is not None
    assert list(report.comparison.ratios) == ["forward"]
    assert "python run.py FOLDER" in (graph_bundle.folder / "README.md").read_text()


def test_weights_that_stay_are_the_same_bytes(graph_bundle: ExportBundle, graph: Path) -> None:
    plan = json.loads((graph_bundle.folder / "edgelr" / "plan.json").read_text())
    dense = {site["name"] for site in plan["sites"] if site["candidate"]["form"] == "dense"}
    before, after = (
        {
            each.site.name: each.read_weight().tobytes()
            for each in find_linears(open_foreign(p)).found
        }
        for p in (graph, graph_bundle.model_path)
    )
    assert dense
    for name in dense:
        assert after[name] == before[name]


def test_a_plan_can_be_edited_and_followed(
    graph_bundle: ExportBundle, graph: Path, graph_inputs: Path, graph_cache: Cache, tmp_path: Path
) -> None:
    plan = json.loads((graph_bundle.folder / "edgelr" / "plan.json").read_text())
    for site in plan["sites"]:
        site["candidate"].update(form="low_rank", rank=5)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    settings = make_settings(
        model=str(graph), profile="generic-cpu", calibration=(str(graph_inputs),), max_drop="150%"
    )
    device = load_profile("generic-cpu")
    pipeline.export(
        settings, device, tmp_path / "out", Run(graph_cache, Recorder()), given_plan=path
    )
    weights = onnx.load(read_bundle(tmp_path / "out").model_path).graph.initializer
    shapes = sorted(tuple(each.dims) for each in weights if len(each.dims) == 2)
    assert shapes == [(5, 80), (5, 80), (32, 5), (48, 5), (80, 5), (80, 5)]


def test_linears_in_bodies_are_compressed_without_their_inputs(
    tmp_path: Path, graph_cache: Cache
) -> None:
    build = Builder()
    build.weight("w", 64, 64)
    then, otherwise = (
        helper.make_graph(
            [helper.make_node(op, inputs, [f"{name}_y"], name=name)],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
        )
        for name, op, inputs in (("then", "MatMul", ["x", "w"]), ("else", "Neg", ["x"]))
    )
    build.node("If", ["condition"], "y", then_branch=then, else_branch=otherwise)
    types = {"condition": TensorProto.BOOL}
    inputs: dict[str, list[int | str]] = {"x": ["batch", 64], "condition": []}
    graph = build.save(tmp_path / "if.onnx", inputs, ["y"], types=types)
    report = exported(graph, tmp_path / "out", graph_cache, keep=0.6)
    assert report.plan.sites[0].candidate.form == "low_rank"
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed


def every_kind(path: Path) -> Path:
    """A kernel, a weight on the left, one of integers, and a convolution in groups."""
    build = Builder()
    build.weight("kernel", 64, 6, 3, 3)
    build.weight("groups", 64, 1, 3, 3)
    build.weight("left", 48, 64)
    integers = np.random.default_rng(0).integers(-9, 10, (100, 64)).astype(np.int8)
    build.weights += [
        numpy_helper.from_array(integers, "integers"),
        numpy_helper.from_array(np.full(64, 0.01, np.float32), "scale"),
        numpy_helper.from_array(np.array([1, 64, 100], np.int64), "sizes"),
    ]
    build.node("Conv", ["x", "kernel"], "a", name="kernel", pads=[1, 1, 1, 1])
    build.node("Conv", ["a", "groups"], "b", name="groups", pads=[1, 1, 1, 1], group=64)
    build.node("Reshape", ["b", "sizes"], "c")
    build.node("MatMul", ["left", "c"], "d", name="left")
    build.node("DequantizeLinear", ["integers", "scale"], "weight")
    build.node("MatMul", ["d", "weight"], "y", name="integers")
    return build.save(path, {"x": [1, 6, 10, 10]}, ["y"])


def test_every_kind_of_linear_is_split_and_the_others_are_named(
    tmp_path: Path, graph_cache: Cache
) -> None:
    recorder = Recorder()
    graph = every_kind(tmp_path / "kinds.onnx")
    report = exported(graph, tmp_path / "out", graph_cache, recorder, keep=0.6)
    forms = {site.name: site.candidate.form for site in report.plan.sites}
    assert forms == dict.fromkeys(("kernel", "left", "integers"), "low_rank")
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    assert "Left as they are: groups (it is a convolution in groups)." in report.notes
    assert any("were smaller in kinds.onnx" in note for note in report.notes)


@pytest.mark.parametrize("given", [True, False])
def test_a_step_with_a_past_is_compressed(given: bool, tmp_path: Path, graph_cache: Cache) -> None:
    """The first step has a past of no tokens; a drawn one has as many as the mask says."""
    build = Builder()
    build.weight("w", 48, 48)
    build.node("Concat", ["past", "x"], "all", axis=1)
    build.node("Mul", ["all", "mask"], "masked")
    build.node("MatMul", ["masked", "w"], "y", name="only")
    build.node("Identity", ["past"], "past_out")
    axes = {"past": "past", "x": "tokens", "mask": "past + tokens"}
    graph = build.save(
        tmp_path / "step.onnx",
        {name: ["batch", axis, 48 if name != "mask" else 1] for name, axis in axes.items()},
        ["y", "past_out"],
    )
    options: dict[str, object] = {}
    if given:
        inputs = {"x": random(16, 1, 9, 48), "past": np.zeros((16, 1, 0, 48), np.float32)}
        np.savez(tmp_path / "first.npz", mask=np.ones((16, 1, 9, 1), np.float32), **inputs)
        options["calibration"] = (str(tmp_path / "first.npz"),)
    report = exported(graph, tmp_path / "out", graph_cache, keep=0.7, **options)
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed


def test_random_inputs_are_named_as_such(graph: Path, graph_cache: Cache, tmp_path: Path) -> None:
    recorder = Recorder()
    report = exported(graph, tmp_path / "out", graph_cache, recorder, keep=0.9)
    assert report.validation is not None
    assert report.validation.text == "random inputs, second half (32 samples)"
    assert any("drawn at random" in note for note in recorder.notes)
    assert any("drawn at random" in note for note in report.notes)


def test_the_card_runs(graph_bundle: ExportBundle, tmp_path: Path) -> None:
    from edgelr.report.usage import snippet

    path = tmp_path / "run.py"
    path.write_text(snippet("run.py"))
    done = subprocess.run(
        [sys.executable, str(path), str(graph_bundle.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[:2] == ["y", "float32"]
