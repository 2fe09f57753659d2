"""Tables: figures beside each other, and a dash where there is none."""

from __future__ import annotations

import dataclasses

import pytest

from edgelr.core.report import Report
from edgelr.core.results import Interval, Metric
from edgelr.report import tables
from edgelr.report.tables import memory_table
from tests.helpers.paths import ROOT
from tests.helpers.reports import make_report

DOCUMENTATION = ROOT / "docs" / "report.md"


@pytest.fixture
def report() -> Report:
    return make_report()


def test_the_memory_of_a_gpu_stands_beside_that_of_the_process(report: Report) -> None:
    assert report.comparison is not None
    dense, bundle = report.comparison.dense, report.comparison.bundle
    assert "on the GPU" not in memory_table(report.comparison).columns
    memory = dataclasses.replace(bundle.memory, gpu_bytes=924 << 20)
    ran = dataclasses.replace(bundle, provider="CUDAExecutionProvider", memory=memory)
    table = memory_table(ran)
    assert dict(zip(table.columns, table.rows[0], strict=True))["on the GPU"] == "924.0"
    assert (memory.most_bytes, dense.memory.most_bytes) == (924 << 20, dense.memory.peak_bytes)


def test_every_row_has_a_cell_for_every_column(report: Report) -> None:
    assert report.comparison is not None
    assert report.prediction is not None
    assert report.validation is not None
    assert report.validation.parity is not None
    found = [
        tables.budget_table(report.budget, 0),
        tables.size_table(report),
        tables.accuracy_table(report.validation),
        tables.parity_table(report.validation.parity),
        tables.latency_table(report.comparison),
        tables.phase_table(report.comparison.dense),
        tables.memory_table(report.comparison),
        tables.prediction_table(report.prediction),
        tables.prediction_table(report.prediction, report.comparison),
        tables.ledger_table(report),
        tables.device_table([report, dataclasses.replace(report, host_is_device=True)]),
    ]
    for table in found:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_a_ledger_adds_up(report: Report) -> None:
    table = tables.ledger_table(report)
    columns = [[row[index] for row in table.rows] for index in (2, 3, 4)]
    for cells in columns:
        *parts, total = (float(cell.replace(",", "")) for cell in cells)
        assert sum(parts) == pytest.approx(total, abs=0.1)
    assert [row[1] for row in table.rows] == ["1", "1", "1", "–", "3"]


def test_parity_has_only_the_rows_that_were_checked(report: Report) -> None:
    assert report.validation is not None
    parity = report.validation.parity
    assert parity is not None
    assert [row[1:] for row in tables.parity_table(parity).rows] == [
        ("0.00015", "0.001"), ("0.00025", "0.001"), ("7 of 8", "8 of 8"), ("0.0125", "0.05"),
    ]  # fmt: skip
    less = dataclasses.replace(
        parity, against="the original", padded_max_abs_error=0.0, greedy_prompts=0,
        twin_max_error=None,
    )  # fmt: skip
    assert len(tables.parity_table(less).rows) == 1
    unlimited = dataclasses.replace(parity, twin_limit=None)
    assert tables.parity_table(unlimited).rows[-1][1:] == ("0.0125", "none")


def test_a_phase_that_one_side_lacks_was_not_measured(report: Report) -> None:
    assert report.comparison is not None
    short = dataclasses.replace(
        report.comparison.bundle, phases=report.comparison.bundle.phases[:1]
    )
    comparison = dataclasses.replace(
        report.comparison, bundle=short, ratios={"prefill 128": 0.6875}
    )
    prefill, decode = tables.latency_table(comparison, percentiles=False).rows
    assert prefill == ("prefill 128", "98.5", "67.5", "0.688", "640.0", "640.0")
    assert decode == ("decode 512", "24.6", "not measured", "not measured", "40.0", "not measured")


def test_predictions_are_held_against_what_was_measured(report: Report) -> None:
    assert report.prediction is not None
    alone = tables.prediction_table(report.prediction)
    assert alone.columns == ("PREDICTED", "dense", "bundle")
    beside = tables.prediction_table(report.prediction, report.comparison)
    assert beside.rows[0] == ("prefill 128, ms", "33.5", "22.75", "0.34", "0.34")
    assert beside.rows[-1] == ("resident memory, MiB", "–", "512.0", "–", "–")


def test_intervals_say_what_was_resampled(report: Report) -> None:
    assert report.validation is not None
    alone = Metric("top1", 0.5, None, 128, interval=Interval(0.4, 0.6, 128))
    found = dataclasses.replace(report.validation, metrics=(*report.validation.metrics, alone))
    rows = tables.accuracy_table(found).rows
    assert [row[3:] for row in rows] == [
        ("23.1 to 23.8", "16,384 in 128 parts"),
        ("0.4 to 0.6", "128"),
    ]
    assert rows[1][1] == "–"
