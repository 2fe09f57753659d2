"""What a finished bundle says of itself is read as it was written, or refused by its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgelr.core.errors import InputError
from edgelr.report.reading import read_lock, read_reports, report_files
from edgelr.report.schema import to_json
from tests.helpers.reports import make_report


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with reports for two devices, and a lock."""
    for name in ("reports", "edgelr"):
        (tmp_path / name).mkdir()
    for profile in ("pi", "jetson"):
        text = to_json(replace(make_report(), profile=profile))
        (tmp_path / "reports" / f"{profile}.json").write_text(text, encoding="utf-8")
        (tmp_path / "reports" / f"{profile}.md").write_text("# not this one")
    lock = {"seed": 7, "settings": {"keep": 0.5, "model": "m", "forms": ["dense"]}, "model": {}}
    (tmp_path / "edgelr" / "lock.json").write_text(json.dumps(lock))
    return tmp_path


def test_a_bundle_has_a_report_for_every_device(bundle: Path) -> None:
    assert [path.name for path in report_files(bundle)] == ["jetson.json", "pi.json"]
    reports = read_reports(bundle)
    assert [each.profile for each in reports] == ["jetson", "pi"]
    assert replace(reports[1], profile="jetson") == reports[0] == make_report()


def test_a_lock_has_dotted_names_and_words(bundle: Path) -> None:
    assert read_lock(bundle) == {
        "seed": "7",
        "settings.keep": "0.5",
        "settings.model": "m",
        "settings.forms": '["dense"]',
    }


def test_a_folder_without_reports_is_refused_and_one_without_a_lock_is_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no reports/\*\.json"):
        read_reports(tmp_path)
    assert read_lock(tmp_path) == {}


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"'])
def test_a_lock_that_is_none_is_refused(bundle: Path, content: str) -> None:
    (bundle / "edgelr" / "lock.json").write_text(content)
    with pytest.raises(InputError, match=r"lock\.json cannot be read"):
        read_lock(bundle)


def test_a_broken_report_is_refused(bundle: Path) -> None:
    (bundle / "reports" / "pi.json").write_text("{}")
    with pytest.raises(InputError, match="schema version None"):
        read_reports(bundle)
