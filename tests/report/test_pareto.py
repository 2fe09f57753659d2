"""Bundles on devices: what to ship, what no other beats, and what is not compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgelr.core.errors import InputError
from edgelr.core.results import Interval, Metric
from edgelr.report.pareto import (
    collect,
    entry_of,
    from_json,
    judged,
    read_entry,
    write_entry,
)
from edgelr.report.schema import to_json
from tests.helpers.comparisons import MIB, entry, make_sweep
from tests.helpers.reports import make_report, unmeasured


def names(found: list) -> list[str]:
    return [each.name for each in found]


# --- which is best -------------------------------------------------------------------------------


def test_the_smallest_that_fits_and_passes_is_shipped() -> None:
    found = make_sweep()
    best = found.best("jetson")
    assert best is not None
    assert best.name == "edgelr, keep 0.5"
    assert found.best("pi") is None
    assert found.profiles == ["jetson", "pi"]


def test_of_equal_sizes_the_most_exact_is_shipped() -> None:
    found = make_sweep(entry("pi", "a", 40, 23.0), entry("pi", "b", 40, 22.0))
    best = found.best("pi")
    assert best is not None
    assert best.name == "b"


def test_what_has_a_problem_is_not_compared() -> None:
    found = make_sweep()
    assert names(found.at("pi")) == ["edgelr, keep 0.5"]


def test_the_front_is_what_no_other_beats() -> None:
    found = make_sweep()
    assert names(found.front("jetson")) == names(found.at("jetson"))  # each has something
    beaten = entry("jetson", "larger and worse", 70, 22.0, latency=(("decode 64", 0.8),))
    with_more = make_sweep(*found.entries, beaten)
    assert "larger and worse" not in names(with_more.front("jetson"))
    equal = entry("pi", "a", 40, 23.0), entry("pi", "b", 40, 23.0)
    assert names(make_sweep(*equal).front("pi")) == ["a", "b"]


def test_only_phases_that_both_have_are_compared() -> None:
    slow = entry("pi", "slow", 40, 23.0, latency=(("decode 64", 2.0),))
    other = entry("pi", "other", 50, 23.0, latency=(("prefill 64", 1.0),))
    assert names(make_sweep(slow, other).front("pi")) == ["slow"]


# --- from reports --------------------------------------------------------------------------------


def test_a_perplexity_is_worse_by_a_share_and_a_cosine_by_a_difference() -> None:
    found = entry("pi", "a", 40, 23.0, worst=24.0)
    assert found.loss == pytest.approx(0.15)
    assert found.worst_loss == pytest.approx(0.2)
    cosine = replace(found, value=0.9, baseline=1.0, worst=None)
    assert cosine.loss == cosine.worst_loss == pytest.approx(0.1)


def test_an_entry_has_the_figures_of_its_report() -> None:
    report = make_report()
    found = entry_of(report, "title", Path("some/folder"))
    assert (found.name, found.folder, found.profile) == ("title", "some/folder", "jetson")
    assert (found.file_bytes, found.original_bytes) == (90 * MIB, 150 * MIB)
    assert found.memory_bytes == (7620 - 819 - 1234) * MIB
    assert (found.value, found.baseline, found.worst) == (23.45, 22.55, 23.8)
    assert dict(found.latency) == {"prefill 128": 0.6875, "decode 512": 0.7125}
    assert not found.passed  # one greedy text differs


def test_one_is_like_oneself_where_there_is_no_baseline() -> None:
    metric = Metric("mean_cosine", 0.97, None, 10, interval=Interval(0.96, 0.98, 10))
    found = judged(entry("pi", "a", 40, math.nan), (metric,), "feature-extraction")
    assert (found.baseline, found.worst) == (1.0, 0.96)
    assert found.loss == pytest.approx(0.03)


def test_a_bundle_that_was_never_validated_is_refused() -> None:
    with pytest.raises(InputError, match="accuracy of folder was not measured"):
        entry_of(unmeasured(make_report()), "a", Path("folder"))


def test_bundles_of_one_name_are_told_apart_by_their_folders() -> None:
    report = make_report()
    found = collect([(Path(name), report) for name in ("a/x", "b/x", "y")], "edgelr report")
    assert names(list(found.entries)) == ["a/x", "b/x", "y"]
    assert (found.source, found.digest, found.metric) == (
        "owner/tiny-model", "sha256:abc", "perplexity",
    )  # fmt: skip


def test_several_models_are_said_to_be_several() -> None:
    report = make_report()
    other = replace(report, digest="sha256:xyz", created="2032-01-01")
    found = collect([(Path("a"), report), (Path("b"), other)], "edgelr report")
    assert found.source == "2 different models"
    assert found.digest == "sha256:abc, sha256:xyz"
    assert found.created == "2032-01-01"


def test_bundles_of_different_tasks_are_refused() -> None:
    report = make_report()
    assert report.validation is not None
    labels = replace(report.validation, metrics=(Metric("top1_agreement", 1.0, None, 9),))
    other = replace(report, task="text-classification", validation=labels)
    with pytest.raises(InputError, match="a by perplexity, b by top1_agreement"):
        collect([(Path("a"), report), (Path("b"), other)], "edgelr report")


# --- on disk -------------------------------------------------------------------------------------


def test_a_sweep_survives_its_file() -> None:
    found = make_sweep(*make_sweep().entries[:-1])
    assert from_json(to_json(found)) == found
    text = to_json(make_sweep())
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert to_json(from_json(text)) == text


def test_an_entry_survives_its_file() -> None:
    found = entry("pi", "a", 40, 23.0, latency=(("decode 64", 0.5),), worst=24.0)
    assert read_entry(write_entry(found)) == found


@pytest.mark.parametrize("text", ["", "{}", '{"schema_version": 1}'])
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"sweep cannot be read.*expected the sweep\.json"):
        from_json(text)
