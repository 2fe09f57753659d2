"""Finished stages: whole or absent, found by the hash of what went into them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from platform import node

import pytest

from edgelr.core.cache import (
    Cache,
    default_root,
    digest,
    file_digest,
    replace_folder,
    require_space,
    write_atomically,
)
from edgelr.core.errors import EnvironmentProblem


def writing(text: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "result.txt").write_text(text)

    return build


def failing(folder: Path) -> None:
    (folder / "result.txt").write_text("half")
    raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def ended_process() -> int:
    """The id of a process that was there and is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_stage_is_built_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    first, reused = cache.stage("stage", "key", writing("first"))
    assert (first.name, reused) == ("stage-key", False)
    assert cache.stage("stage", "key", writing("second")) == (first, True)
    assert (first / "result.txt").read_text() == "first"


def test_another_key_is_another_stage(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.stage("stage", "a", writing("a"))
    other, reused = cache.stage("stage", "b", writing("b"))
    assert not reused
    assert (other / "result.txt").read_text() == "b"


def test_without_reuse_a_stage_is_built_again(tmp_path: Path) -> None:
    Cache(tmp_path).stage("stage", "key", writing("old"))
    folder, reused = Cache(tmp_path, reuse=False).stage("stage", "key", writing("new"))
    assert not reused
    assert (folder / "result.txt").read_text() == "new"
    assert names(tmp_path) == ["stage-key"]


def test_an_interrupted_stage_is_absent(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).stage("stage", "key", failing)
    assert names(tmp_path) == []


def test_an_interrupted_stage_leaves_the_old_one_whole(tmp_path: Path) -> None:
    Cache(tmp_path).stage("stage", "key", writing("old"))
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path, reuse=False).stage("stage", "key", failing)
    assert names(tmp_path) == ["stage-key"]
    assert (tmp_path / "stage-key" / "result.txt").read_text() == "old"


def test_a_build_starts_in_an_empty_folder(tmp_path: Path) -> None:
    found: list[list[str]] = []
    Cache(tmp_path).stage("stage", "key", writing("old"))
    Cache(tmp_path, reuse=False).stage("stage", "key", lambda folder: found.append(names(folder)))
    assert found == [[]]


def test_what_a_killed_process_left_is_removed(tmp_path: Path, ended_process: int) -> None:
    (tmp_path / f".stage-key.partial-{node()}-{ended_process}").mkdir()
    write_atomically(tmp_path / "stage-key", writing("new"))
    assert names(tmp_path) == ["stage-key"]


def test_what_a_killed_process_had_set_aside_comes_back(tmp_path: Path, ended_process: int) -> None:
    aside = tmp_path / f".stage-key.previous-{node()}-{ended_process}"
    aside.mkdir()
    (aside / "result.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "stage-key", failing)
    assert names(tmp_path) == ["stage-key"]
    assert (tmp_path / "stage-key" / "result.txt").read_text() == "old"


def test_what_others_still_write_is_left_alone(tmp_path: Path) -> None:
    running = [f".stage-key.partial-{node()}-{os.getppid()}", ".stage-key.partial-elsewhere-1"]
    for name in running:
        (tmp_path / name).mkdir()
    write_atomically(tmp_path / "stage-key", writing("new"))
    assert names(tmp_path) == sorted([*running, "stage-key"])


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert names(tmp_path) == ["old"]
    assert names(tmp_path / "old") == ["new.txt"]


def test_a_digest_tells_its_parts_apart() -> None:
    assert digest("a", 1, {"x": 1, "y": 2}) == digest("a", 1, {"y": 2, "x": 1})
    different = [digest("a", "b"), digest("ab"), digest("b", "a"), digest("a", "b", None)]
    different += [digest("a", 1), digest("a", "1"), digest(["a"], 1)]
    assert len(set(different)) == len(different)
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in different)


def test_a_files_digest_is_that_of_its_content(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    first.write_bytes(b"x" * 3_000_000)
    second.write_bytes(b"x" * 3_000_000)
    third.write_bytes(b"x" * 2_999_999 + b"y")
    assert file_digest([first]) == file_digest([second]) != file_digest([third])
    assert file_digest([first, third]) != file_digest([third, first])


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("EDGELR_CACHE", raising=False)
    assert default_root() == tmp_path / "xdg" / "edgelr"
    monkeypatch.setenv("EDGELR_CACHE", str(tmp_path / "ours"))
    assert default_root() == tmp_path / "ours"


def test_what_the_disk_cannot_hold_is_refused_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there", 1, "A bundle")
    with pytest.raises(EnvironmentProblem, match=r"A bundle needs about .* MiB are free"):
        require_space(tmp_path / "not" / "there", 2**70, "A bundle")
    assert not (tmp_path / "not").exists()
