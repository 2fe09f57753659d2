"""Staging: what has no room is refused before, and nothing half-finished is shown."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from edgelr.core.bundle import MANIFEST
from edgelr.core.cache import Cache
from edgelr.core.errors import EnvironmentProblem
from edgelr.core.run import Run
from edgelr.stages.staging import require_room, staging


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(Cache(tmp_path / "cache"))


def bundle(folder: Path) -> Path:
    (folder / MANIFEST).parent.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    return folder


def test_a_bundle_appears_in_one_step_and_scratch_goes_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staging(out, False) as place:
        (place.bundle / "file").write_text("content")
        (place.scratch / "other").write_text("content")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_that_fails_leaves_nothing_and_what_was_there_before(tmp_path: Path) -> None:
    out = bundle(tmp_path / "out")
    with suppress(KeyboardInterrupt), staging(out, True) as place:
        (place.bundle / "file").write_text("content")
        raise KeyboardInterrupt
    assert (out / MANIFEST).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("room", "what"), [((2**60, 0), "The cache"), ((0, 2**60), "The bundle")])
def test_what_the_disk_cannot_hold_is_not_begun(
    tmp_path: Path, run: Run, room: tuple[int, int], what: str
) -> None:
    with pytest.raises(EnvironmentProblem, match=f"{what}.* needs about"):
        require_room(room, tmp_path / "out", run)
