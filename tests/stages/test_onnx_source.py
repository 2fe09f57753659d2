"""An .onnx file as source: numbers, plans, bundles, messages, and no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelr import pipeline
from edgelr.commands.validate import validate_again
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import BudgetError, InputError
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import load_profile
from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from edgelr.report.schema import from_json
from edgelr.runtime import measure
from edgelr.runtime.evaluators.tensors import compare_tensors, distance, relative_error
from edgelr.stages.onnx.components import decompose, read_components, write_components
from edgelr.stages.onnx.sensitivity import loss_curve, open_probe
from edgelr.stages.subject import Planned
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.foreign_graphs import Builder, mlp, random, run
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import Recorder

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mlp(tmp_path_factory.mktemp("source") / "mlp.onnx")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Correlated inputs: 48 features of which six directions hold nearly everything."""
    generator = np.random.default_rng(5)
    mixes = generator.standard_normal((6, 48))
    x = generator.standard_normal((192, 6)) @ mixes + 0.05 * generator.standard_normal((192, 48))
    path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
    np.savez(path, x=0.3 * x.astype(np.float32))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def planned(source: Path, cache: Cache, **options: object) -> Planned:
    settings = make_settings(model=str(source), profile="generic-cpu", **options)
    return pipeline.plan(settings, load_profile("generic-cpu"), Run(cache, Recorder()))


def exported(
    source: Path, out: Path, cache: Cache, recorder: Recorder | None = None, **options: object
) -> Report:
    settings = make_settings(model=str(source), profile="generic-cpu", **options)
    device = load_profile("generic-cpu")
    listener = recorder or Recorder()
    return pipeline.export(settings, device, out, Run(cache, listener), force=True)


@pytest.fixture(scope="module")
def bundle(
    source: Path, inputs: Path, cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> ExportBundle:
    out = tmp_path_factory.mktemp("out") / "bundle"
    exported(source, out, cache, keep=0.7, calibration=(str(inputs),), with_tests=True)
    return read_bundle(out, verify=True)


def test_it_passes_its_own_tests(bundle: ExportBundle) -> None:
    (found,) = run_bundle_tests([bundle.folder]).values()
    assert found
    assert all(found.values()), found


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_dropped_error_is_the_error_that_is_measured(shape: tuple[int, int]) -> None:
    weight = random(*shape).astype(np.float64)
    x = random(500, shape[1], seed=2) @ random(shape[1], shape[1], seed=3)
    gram = x.T.astype(np.float64) @ x / len(x)
    down, up, error = decompose(weight, gram)
    np.testing.assert_allclose((down @ up).T, weight, atol=1e-8)
    assert (np.diff(error) <= 0).all()
    for rank in (2, 7, 15):
        dropped = weight - (down[:, :rank] @ up[:rank]).T
        damped = 0.99 * gram + 0.01 * np.trace(gram) / len(gram) * np.eye(len(gram))
        assert np.trace(dropped @ damped @ dropped.T) == pytest.approx(error[rank], rel=1e-6)


def test_whitening_beats_the_plain_svd_on_correlated_inputs() -> None:
    weight = random(16, 24).astype(np.float64)
    x = random(500, 24, seed=2) * np.geomspace(1, 0.01, 24)
    whitened, plain = (decompose(weight, gram) for gram in (x.T @ x / len(x), None))
    errors = [
        np.linalg.norm(x @ (weight - (down[:, :6] @ up[:6]).T).T)
        for down, up, _ in (whitened, plain)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_inputs_that_never_vary_do_not_break_the_decomposition() -> None:
    weight = random(16, 24).astype(np.float64)
    for gram in (np.zeros((24, 24)), np.ones((24, 24))):
        down, up, error = decompose(weight, gram)
        np.testing.assert_allclose((down @ up).T, weight, atol=1e-8)
        assert np.isfinite(error).all()


def test_grams_are_those_of_what_the_linears_read(
    source: Path, cache: Cache, tmp_path: Path
) -> None:
    """The first linear reads the input itself: its components are those of the input's Gram."""
    graph = mlp(tmp_path / "mlp.onnx")
    x = random(40, 1, 48, seed=4)
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, {"x": x}, folder, lambda *_: None)
    found = read_components(folder, ["first", "second", "last"])
    flat = x.reshape(-1, 48).astype(np.float64)
    weight = find_linears(open_foreign(graph)).found[0].read_weight().astype(np.float64)
    _, _, error = decompose(weight, flat.T @ flat / len(flat))
    np.testing.assert_allclose(found.errors["first"], error, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.truncate("first", 48).dense(), weight, atol=1e-5)


def test_the_gram_of_a_convolution_has_the_positions_that_it_reads(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 20, 12, 1, 1)
    build.node("Conv", ["x", "w"], "y", name="conv", strides=[2, 2])
    graph = build.save(tmp_path / "conv.onnx", {"x": [1, 12, 6, 6]}, ["y"])
    x = random(4, 1, 12, 6, 6)
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, {"x": x}, folder, lambda *_: None)
    flat = np.moveaxis(x[:, 0, :, ::2, ::2], 1, -1).reshape(-1, 12).astype(np.float64)
    weight = find_linears(open_foreign(graph)).found[0].read_weight().astype(np.float64)
    _, _, error = decompose(weight, flat.T @ flat / len(flat))
    found = read_components(folder, ["conv"]).errors["conv"]
    np.testing.assert_allclose(found, error, rtol=1e-5, atol=1e-8)


def test_weights_are_replaced_run_by_run(source: Path, tmp_path: Path) -> None:
    graph = mlp(tmp_path / "mlp.onnx")
    samples = {"x": random(3, 1, 48)}
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, samples, folder, lambda *_: None)
    probe = open_probe(graph, read_components(folder, ["first", "second", "last"]))
    (expected,) = run(graph, x=samples["x"][0])
    np.testing.assert_allclose(probe.outputs({}, samples)[0]["y"], expected, atol=1e-5)
    np.testing.assert_allclose(
        probe.outputs({"last": 32, "first": 48}, samples)[0]["y"], expected, atol=1e-4
    )
    changed = probe.outputs({"second": 3}, samples)
    distances = [
        distance(run(graph, x=x)[0], each["y"])
        for x, each in zip(samples["x"], changed, strict=True)
    ]
    found = probe.distances({"second": 3}, samples, probe.outputs({}, samples))
    assert found == pytest.approx(distances, rel=1e-3)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["mlp.onnx"]


def test_loss_curves_meet_what_was_measured_and_fall() -> None:
    error = np.array([8.0, 5.0, 3.0, 1.0, 0.0])
    loss = loss_curve(error, [1, 3], [0.5, 0.2])
    assert loss[[1, 3, 4]] == pytest.approx([0.5, 0.2, 0.0])
    assert (np.diff(loss) <= 0).all()


def test_distance_is_exact_where_it_is_small() -> None:
    x = random(1000)
    assert distance(x, x) == 0.0
    assert distance(x, -x) == pytest.approx(2.0)
    assert distance(x, 3 * x) == pytest.approx(0.0, abs=1e-12)
    assert relative_error(x, 3 * x) == pytest.approx(2.0)
    assert distance(np.array([1.0, -np.inf]), np.array([2.0, 5.0])) == 0.0
    assert np.isnan(distance(np.ones(2), np.array([1.0, np.nan])))


class _Scaled:
    def __init__(self, shift: float) -> None:
        self.shift = shift

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        return {"same": x, "moved": x + self.shift * np.roll(x, 1)}


def test_the_evaluator_tells_outputs_apart() -> None:
    found = compare_tensors(_Scaled(0.0), _Scaled(0.5), {"x": random(6, 2, 9)})
    metrics = {metric.name: metric.value for metric in found}
    assert metrics["cosine of same"] == pytest.approx(1.0)
    assert metrics["relative_error of moved"] == pytest.approx(0.5)
    assert metrics["mean_cosine"] == pytest.approx((1 + metrics["cosine of moved"]) / 2)
    assert metrics["min_cosine"] <= metrics["cosine of moved"] < 0.98


# --- plans and bundles -------------------------------------------------------------------------


def test_a_bundle_keeps_what_was_asked_for_and_gives_its_own_answers(
    bundle: ExportBundle, source: Path, inputs: Path
) -> None:
    report = from_json((bundle.folder / "reports" / "generic-cpu.json").read_text())
    assert report.task == bundle.manifest.task == "tensors"
    assert 0.5 < report.plan.kept <= 0.7
    validation = report.validation
    assert validation is not None
    assert validation.parity is not None
    assert validation.passed
    assert validation.text == "inputs.npz, second half (96 samples)"
    x = np.load(inputs)["x"][96:]
    (dense,), (found,) = run(source, x=x), run(bundle.model_path, x=x)
    cosines = (
        (dense * found).sum(-1) / np.linalg.norm(dense, axis=-1) / np.linalg.norm(found, axis=-1)
    )
    metrics = {metric.name: metric.value for metric in validation.metrics}
    assert metrics["mean_cosine"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert report.comparison is not None
    assert list(report.comparison.ratios) == ["forward"]
    assert "python run.py FOLDER" in (bundle.folder / "README.md").read_text()


def test_weights_that_stay_are_the_same_bytes(bundle: ExportBundle, source: Path) -> None:
    plan = json.loads((bundle.folder / "edgelr" / "plan.json").read_text())
    dense = {site["name"] for site in plan["sites"] if site["candidate"]["form"] == "dense"}
    before, after = (
        {
            each.site.name: each.read_weight().tobytes()
            for each in find_linears(open_foreign(p)).found
        }
        for p in (source, bundle.model_path)
    )
    assert dense
    for name in dense:
        assert after[name] == before[name]


def test_ranks_follow_the_effect_on_the_outputs(tmp_path: Path, cache: Cache) -> None:
    """Two equal linears, one of which hardly reaches the output: that one pays."""
    build = Builder()
    build.weight("loud", 64, 64)
    build.weights.append(numpy_helper.from_array(random(64, 64, seed=8), "quiet"))
    build.weights.append(numpy_helper.from_array(np.array(0.01, np.float32), "little"))
    build.node("MatMul", ["x", "loud"], "a", name="loud")
    build.node("MatMul", ["x", "quiet"], "b", name="quiet")
    build.node("Mul", ["b", "little"], "c")
    build.node("Add", ["a", "c"], "y")
    source = build.save(tmp_path / "two.onnx", {"x": ["batch", 64]}, ["y"])
    plan = planned(source, cache, keep=0.8).plan
    ranks = {site.name: site.candidate for site in plan.sites}
    assert ranks["loud"].form == "dense"
    assert ranks["quiet"].form == "low_rank"


def test_without_an_aim_the_smallest_plan_inside_the_gate_is_taken(
    source: Path, inputs: Path, cache: Cache
) -> None:
    made = [
        planned(source, cache, max_drop=drop, calibration=(str(inputs),)) for drop in (1e-4, 0.2)
    ]
    assert made[0].plan.planned_bytes > made[1].plan.planned_bytes
    assert made[1].loss_factor is not None


def test_files_stay_within_max_size(
    source: Path, inputs: Path, cache: Cache, tmp_path: Path
) -> None:
    largest = 40_000
    exported(source, tmp_path / "out", cache, max_size=str(largest), calibration=(str(inputs),))
    found = read_bundle(tmp_path / "out")
    assert 0.6 * largest < found.weight_bytes <= largest
    with pytest.raises(BudgetError, match="The nearest feasible point"):
        planned(source, cache, max_size="8KB", calibration=(str(inputs),))


def test_a_plan_can_be_edited_and_followed(
    bundle: ExportBundle, source: Path, inputs: Path, cache: Cache, tmp_path: Path
) -> None:
    plan = json.loads((bundle.folder / "edgelr" / "plan.json").read_text())
    for site in plan["sites"]:
        site["candidate"].update(form="low_rank", rank=5)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    settings = make_settings(
        model=str(source), profile="generic-cpu", calibration=(str(inputs),), max_drop=1.5
    )
    device = load_profile("generic-cpu")
    pipeline.export(settings, device, tmp_path / "out", Run(cache, Recorder()), given_plan=path)
    weights = onnx.load(read_bundle(tmp_path / "out").model_path).graph.initializer
    shapes = sorted(tuple(each.dims) for each in weights if len(each.dims) == 2)
    assert shapes == [(5, 80), (5, 80), (32, 5), (48, 5), (80, 5), (80, 5)]


def test_linears_in_bodies_are_compressed_without_their_inputs(
    tmp_path: Path, cache: Cache
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
    source = build.save(tmp_path / "if.onnx", inputs, ["y"], types=types)
    report = exported(source, tmp_path / "out", cache, keep=0.6)
    assert report.plan.sites[0].candidate.form == "low_rank"
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed


def test_random_inputs_are_named_as_such(source: Path, cache: Cache, tmp_path: Path) -> None:
    recorder = Recorder()
    report = exported(source, tmp_path / "out", cache, recorder, keep=0.9)
    assert report.validation is not None
    assert report.validation.text == "random inputs, second half (32 samples)"
    assert any("drawn at random" in note for note in recorder.notes)
    assert any("drawn at random" in note for note in report.notes)


# --- again -------------------------------------------------------------------------------------


def test_a_bundle_is_measured_and_judged_again(
    bundle: ExportBundle, source: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, cache: Cache
) -> None:
    monkeypatch.setenv("EDGELR_CACHE", str(cache.root))
    found = measure.measure_one(bundle, repetitions=3)
    assert [phase.key for phase in found.phases] == ["forward"]
    own = validate_again(bundle, None, None, None, "cpu", Run(cache))
    given = validate_again(bundle, str(source), inputs, 1e-9, "cpu", Run(cache))
    assert own.passed
    assert not given.passed
    assert given.metrics[0].samples == 192


# --- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 2, "recipe": "svd"}, "--recipe, --rounds cannot be used with an ONNX graph"),
        ({"forms": ("pivoted",)}, "linears of an ONNX graph can be dense or low_rank"),
        ({"task": "text-generation"}, "an ONNX graph has the task tensors"),
        ({"precision": "float16"}, "the weights of .* are float32"),
        ({"calibration": ("a.npz", "b.npz")}, "--calibration is given 2 times"),
    ],
)
def test_settings_that_do_not_apply_are_refused(
    options: dict[str, object], message: str, source: Path, cache: Cache
) -> None:
    with pytest.raises(InputError, match=message):
        planned(source, cache, **options)


def test_one_sample_is_not_enough(source: Path, cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=random(1, 48))
    with pytest.raises(InputError, match="holds one sample"):
        planned(source, cache, calibration=(str(path),))
    planned(source, cache, calibration=(str(path),), evaluation=str(path), keep=0.9)


def test_a_graph_without_linears_is_refused(tmp_path: Path, cache: Cache) -> None:
    build = Builder()
    build.node("Tanh", ["x"], "y")
    path = build.save(tmp_path / "tanh.onnx", {"x": [1, 4]}, ["y"])
    with pytest.raises(InputError, match="has no linear that can be factorized"):
        planned(path, cache)


def test_a_graph_without_float_outputs_is_refused(tmp_path: Path, cache: Cache) -> None:
    build = Builder()
    build.weight("w", 12, 20)
    build.node("MatMul", ["x", "w"], "h")
    build.node("ArgMax", ["h"], "y")
    path = build.save(
        tmp_path / "labels.onnx", {"x": [1, 12]}, ["y"], types={"y": TensorProto.INT64}
    )
    with pytest.raises(InputError, match="has no output of floating-point numbers"):
        planned(path, cache)


# --- the command -------------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys
from edgelr.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "transformers", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_commands_import_no_torch(source: Path, inputs: Path, tmp_path: Path) -> None:
    def edgelr(*arguments: str) -> str:
        environment = os.environ | {"EDGELR_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = (str(source), "--profile", "generic-cpu", "--calibration", str(inputs))
    assert "second" in edgelr("inspect", str(source))
    assert "plan.json" in edgelr("plan", *options, "--keep", "0.7")
    shown = edgelr("export", *options, "--plan", "plan.json", "--max-drop", "0.5", "--out", "out")
    assert "Parity passed" in shown
    assert "mean_cosine" in edgelr(
        "validate", "out", "--against", str(source), "--data", str(inputs)
    )
    assert "forward" in edgelr("measure", "out", "--repetitions", "3")
    assert "mean_cosine" in edgelr("report", "out")
    assert "MatMul" in edgelr("measure", "out", "--operators", "--repetitions", "3")


def test_the_card_runs(bundle: ExportBundle, tmp_path: Path) -> None:
    from edgelr.report.usage import snippet

    path = tmp_path / "run.py"
    path.write_text(snippet("run.py"))
    done = subprocess.run(
        [sys.executable, str(path), str(bundle.folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[:2] == ["y", "float32"]
