"""A modality of another package: one file for each registry, and no edit of edgelr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edgelr.report.schema import to_json
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.paths import ROOT
from tests.helpers.reports import make_report
from tests.helpers.runtime_graphs import make_model, write_bundle

STEPS, AHEAD = 12, 3  # values that are read of a series, and that are forecast
WEIGHT = np.random.default_rng(0).standard_normal((STEPS, AHEAD)).astype(np.float32)
MODALITY = """
from edgelr.core.modality import Modality
from edgelr.core.tasks import TaskTraits

SERIES = Modality("series", ("series-forecast",), "series", "past_values")
FORECAST = TaskTraits("", "", "", "outputs", "mean_cosine")
"""
RUNNER = """
import numpy as np
from edgelr.core.results import Metric
from edgelr.runtime.evaluators import Evaluator
from edgelr.runtime.graphs import open_graph, random_values
from edgelr.runtime.requests import ON_CPU, CappedRuns, TimedPhase
from edgelr.runtime.runners import ReferenceAnswer, Runner, numbered


class SeriesRunner(Runner):
    answer_names = ("series_0", "output_0")

    def __init__(self, session):
        self.session = session

    @classmethod
    def open(cls, bundle, execution=ON_CPU, tokenizer=True):
        return cls(open_graph(bundle, execution))

    @classmethod
    def phases(cls, bundle, sizes):
        return [TimedPhase("forward", batch, bundle.manifest.context_tokens) for batch in (1, 4)]

    @classmethod
    def profiled_phase(cls, bundle, tokens):
        return TimedPhase("forward", 1, bundle.manifest.context_tokens)

    @classmethod
    def capped_runs(cls, bundle, sizes):
        steps = bundle.manifest.context_tokens
        return CappedRuns((TimedPhase("forward", sizes.batch, steps),), steps, steps)

    def samples(self, evaluation):
        series = np.loadtxt(evaluation.source, np.float32, delimiter=",")
        return [row for row in series][: evaluation.size.images]

    def read_answers(self, answers):
        pairs = zip(numbered(answers, "series"), numbered(answers, "output"))
        return [ReferenceAnswer(*pair) for pair in pairs]

    def forecast(self, rows):
        (found,), _ = self.session.run({"past_values": np.stack(rows)}, ["forecast"])
        return found

    def run_alone(self, row):
        return self.forecast([row])[0]

    def run_together(self, rows):
        return list(self.forecast(rows))

    def prepare(self, phase, inputs):
        rows = random_values(phase.batch, phase.tokens)
        return lambda: self.forecast(rows)


def compare_forecasts(reference, candidate, samples, progress=None):
    first, second = (runner.forecast(samples) for runner in (reference, candidate))
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    if progress:
        progress("forecast", len(samples), len(samples))
    cosines = (first * second).sum(-1) / norms
    return (Metric("mean_cosine", float(cosines.mean()), None, len(samples)),)


FORECASTS = Evaluator(("series-forecast",), compare_forecasts)
"""
TESTED = """
from pathlib import Path
import numpy as np
from edgelr.report.usage import Usage
from edgelr.runtime.reference_tests import ReferenceTest
from edgelr.runtime.reference_tests.values import ReferenceValues
from series_runner import SeriesRunner


def collect(original, bundle, source):
    first, second = (SeriesRunner.open(each) for each in (original, bundle))
    rows = np.loadtxt(source, np.float32, delimiter=",")
    wanted, found = first.forecast(rows), second.forecast(rows)
    cosine = float((wanted * found).sum() / np.linalg.norm(wanted) / np.linalg.norm(found))
    return ReferenceValues({"rows": rows, "found": found}, float(np.abs(found).max()), 0.0, cosine)


SUITE = ReferenceTest(collect, Path(__file__).with_name("series_suite.py"))
USAGES = {
    "series-forecast": Usage("Save this as `forecast.py`.", "print(1)", "time-series-forecasting")
}
"""
SUITE = """
def test_forecasts_are_those_of_the_export(session, stored, expected, difference):
    (found,) = session.run(["forecast"], {"past_values": stored["rows"]})
    assert difference(found, stored["found"]) <= expected["tolerance"]
"""
ENTRY_POINTS = """
[edgelr.modalities]
series = series_modality:SERIES
[edgelr.tasks]
series-forecast = series_modality:FORECAST
[edgelr.runners]
series = series_runner:SeriesRunner
[edgelr.evaluators]
series = series_runner:FORECASTS
[edgelr.reference_tests]
series = series_tested:SUITE
[edgelr.usages]
series = series_tested:USAGES
"""
USE = """
import json, sys
from pathlib import Path
from edgelr.core.bundle import read_bundle
from edgelr.core.graph_files import graph_file
from edgelr.device.profile import load_profile
from edgelr.report.card import model_card
from edgelr.report.schema import from_json
from edgelr.runtime import calls
from edgelr.runtime.measure import measure
from edgelr.runtime.memory_cap import run_under_cap
from edgelr.runtime.requests import Execution

folder = Path(sys.argv[1])
original, bundle = (read_bundle(folder / name) for name in ("original", "bundle"))
one = Execution(threads=1)
(folder / "bundle/tests").mkdir()
calls.write_references(original, bundle, folder / "series.csv", folder / "bundle/tests")
report = from_json((folder / "report.json").read_text())
cap = run_under_cap(bundle, load_profile("generic-cpu"), one)
print(json.dumps({
    "parity": calls.parity(bundle, folder / "answers.npz", 1e-5, one).passed,
    "other": calls.parity(original, folder / "answers.npz", 1e-5, one).max_abs_error,
    "cosine": calls.accuracy(original, bundle, folder / "series.csv", one)[0].value,
    "ratios": list(measure(original, bundle, one, repetitions=3).ratios),
    "operators": [each.operator for each in calls.operators(bundle, 1, one, 2)],
    "cap": [cap.problem, cap.prefill_tokens],
    "graph": graph_file("series", "float16"),
    "card": model_card(report, "series"),
}))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Install a package that edgelr has never heard of."""
    root = tmp_path / "package"
    info = root / "series-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (info / "METADATA").write_text("Name: series\nVersion: 1.0\n")
    files = {"modality": MODALITY, "runner": RUNNER, "tested": TESTED, "suite": SUITE}
    for name, text in files.items():
        (root / f"series_{name}.py").write_text(text)
    return root


def test_a_modality_of_another_package_is_opened_judged_timed_and_tested(
    package: Path, tmp_path: Path
) -> None:
    """Its original has weights that are rounded otherwise."""
    generator = np.random.default_rng(1)
    series = generator.standard_normal((9, STEPS)).astype(np.float32)
    np.savetxt(tmp_path / "series.csv", series, delimiter=",")
    weights = {"bundle": WEIGHT, "original": (WEIGHT * 1.1).round(1)}
    for name, weight in weights.items():
        model = make_model(
            [("MatMul", ["past_values", "weight"], ["forecast"], {})],
            [("past_values", TensorProto.FLOAT, ["batch", STEPS])],
            [("forecast", TensorProto.FLOAT, ["batch", AHEAD])],
            {"weight": weight},
        )
        write_bundle(
            tmp_path / name, model, modality="series", task="series-forecast",
            context_tokens=STEPS, pooling=None, gate_passed=True,
        )  # fmt: skip
    answers = {f"series_{i}": row for i, row in enumerate(series)}
    answers |= {f"output_{i}": row @ WEIGHT for i, row in enumerate(series)}
    np.savez(tmp_path / "answers.npz", **answers)
    (tmp_path / "report.json").write_text(to_json(replace(make_report(), task="series-forecast")))
    path = os.pathsep.join((str(package), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wanted, other = (series @ weights[name] for name in ("bundle", "original"))
    assert found["parity"]
    assert found["other"] == pytest.approx(float(np.abs(wanted - other).max()), rel=1e-4)
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(other, axis=1)
    assert found["cosine"] == pytest.approx(float(((wanted * other).sum(1) / norms).mean()))
    assert found["ratios"] == [f"forward {STEPS}", f"forward 4x{STEPS}"]
    assert found["operators"] == ["MatMul"]
    assert found["cap"] == ["", STEPS]
    assert found["graph"] == "model_fp16.onnx"
    assert "pipeline_tag: time-series-forecasting" in found["card"]
    assert "Save this as `forecast.py`.\n\n```python\nprint(1)" in found["card"]
    tests = tmp_path / "bundle" / "tests"
    regression = ROOT / "edgelr" / "report" / "snippets" / "regression"
    (tests / "conftest.py").write_text((regression / "conftest.py").read_text())
    (outcome,) = run_bundle_tests([tmp_path / "bundle"]).values()
    assert outcome == {"test_forecasts_are_those_of_the_export": True}
