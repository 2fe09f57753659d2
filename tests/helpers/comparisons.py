"""Recipes, and bundles, beside each other: small values to draw and to write."""

from __future__ import annotations

import math

from edgelr.core.tasks import MetricName
from edgelr.report.comparison import Figures, JudgedText, MethodBench, Row, Score
from edgelr.report.pareto import Entry, Sweep

MIB = 2**20
TEXTS = ("ours", "theirs")


def scored(recipe: str, keep: float | None, values: tuple[float, ...], dense: float) -> Row:
    """A row with one value for every text."""
    scores = tuple(
        Score(text, value, value / dense) for text, value in zip(TEXTS, values, strict=True)
    )
    share = 1.0 if keep is None else keep
    notes = () if keep is None else (f"{recipe} was healed.",)
    figures = Figures(share, int(40 * MIB * share), 1, 2, 0.125, scores, notes)
    seconds = {"statistics": 3.0, "plan": 0.5, "evaluation": 100.0}
    return Row(f"{recipe} {keep}", recipe, keep, seconds, figures)


def make_bench(metric: MetricName = "perplexity") -> MethodBench:
    """Two recipes at two shares; one of them could not be made."""
    dense, good, bad = (20.0, 22.0, 44.0) if metric == "perplexity" else (1.0, 0.9, 0.5)
    rows = (
        scored("dense", None, (dense, dense), dense),
        scored("first", 0.5, (bad, good), dense),
        scored("second", 0.5, (good, math.nan), dense),
        scored("first", 0.9, (good, good), dense),
        Row("x", "second", 0.9, {}, None, "the budget\n is too small"),
    )
    texts = tuple(JudgedText(name, f"{name}.txt", 1024, 8) for name in TEXTS)
    environment = {"cpu": "EPYC", "torch": "2.13"}
    return MethodBench(
        1, "2031-05-06", "edgelr bench methods m", "/models/tiny", "sha256:abc", "jetson", metric,
        texts, ("self",), environment, rows,
    )  # fmt: skip


def entry(profile: str, name: str, size: int, value: float, **more: object) -> Entry:
    """A bundle of ``size`` MiB that fits and passes, unless it is told otherwise."""
    known = {"fits": True, "passed": True, "baseline": 20.0, "memory_bytes": 2 * size * MIB}
    return Entry(profile, name, name, size * MIB, value=value, **{**known, **more})  # type: ignore[arg-type]


def make_sweep(*entries: Entry) -> Sweep:
    """A sweep of what is given, or of two devices."""
    given = entries or (
        entry("jetson", "edgelr, keep 0.5", 40, 23.0, latency=(("decode 64", 0.5),)),
        entry("jetson", "edgelr, keep 0.7", 60, 20.4, latency=(("decode 64", 0.75),)),
        entry("jetson", "dense int8", 50, 20.5, fits=False),
        entry("jetson", "dense float32", 100, 20.0, latency=(("decode 64", 1.0),)),
        entry("pi", "edgelr, keep 0.5", 40, 30.0, passed=False),
        entry("pi", "edgelr, keep 0.1", 10, math.nan, problem="nothing\n fits"),
    )
    environment = {"cpu": "EPYC", "onnxruntime": "1.31"}
    return Sweep(
        1, "2031-05-06", "edgelr sweep m", "/models/tiny", "sha256:abc", "perplexity", "a text",
        ("self",), environment, given,
    )  # fmt: skip
