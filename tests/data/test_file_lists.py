"""Lists of files: they change with the files, and are divided so that every folder has a part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgelr.core.errors import InputError
from edgelr.data.file_lists import (
    IMAGES,
    SOUNDS,
    halves,
    list_files,
    listed,
    listed_line,
    spread_evenly,
    spread_lines,
)
from edgelr.data.images import list_images
from edgelr.stages.transformers.text_selection import choose_files
from tests.data.test_images import picture

WriteImages = Callable[..., Path]


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Write so many small images into every one of two sub-folders."""

    def write(name: str, count: int) -> Path:
        for label in ("cat", "dog"):
            (tmp_path / name / label).mkdir(parents=True)
            for index in range(count):
                picture(6, 5, seed=index).save(tmp_path / name / label / f"{index:02}.png")
        return tmp_path / name

    return write


def test_a_folder_is_listed_with_its_sub_folders(write_images: WriteImages) -> None:
    folder = write_images("photos", 2)
    (folder / "notes.txt").write_text("no image")
    picture(4, 4).save(folder / "last.JPG", "JPEG")
    names = [path.relative_to(folder).as_posix() for path in listed(list_images(folder))]
    assert names == ["cat/00.png", "cat/01.png", "dog/00.png", "dog/01.png", "last.JPG"]


def test_a_list_in_a_file_goes_by_the_folder_of_the_file(write_images: WriteImages) -> None:
    folder = write_images("photos", 2)
    (folder / "some.txt").write_text("dog/01.png\n\ncat/00.png\n")
    assert listed(list_images(folder / "some.txt")) == [
        folder / "dog/01.png",
        folder / "cat/00.png",
    ]
    (folder / "again.txt").write_text(list_images(folder / "some.txt"))
    assert list_images(folder / "again.txt") == list_images(folder / "some.txt")


def test_a_list_changes_with_its_files(write_images: WriteImages) -> None:
    folder = write_images("photos", 2)
    before = list_images(folder)
    assert list_images(folder) == before
    picture(9, 9).save(folder / "dog/01.png")
    assert listed(list_images(folder)) == listed(before)
    assert list_images(folder) != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"missing does not exist; expected a folder"),
        ("empty", r"empty holds no images.*sub-folders"),
        ("photo.png", r"photo\.png is a file; expected a folder"),
        ("gone.txt", r"gone\.png cannot be read.*Mend the list"),
    ],
)
def test_what_is_no_folder_of_images_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    picture(4, 4).save(tmp_path / "photo.png")
    (tmp_path / "gone.txt").write_text("gone.png")
    with pytest.raises(InputError, match=message):
        list_images(tmp_path / name)


def test_a_few_images_come_from_everywhere(write_images: WriteImages) -> None:
    images = list_images(write_images("photos", 5))
    names = [f"{path.parent.name}{path.stem}" for path in spread_evenly(images, 4)]
    assert names == ["cat00", "cat03", "dog01", "dog04"]
    assert spread_evenly(images, 99) == listed(images)


def test_half_of_a_folder_calibrates_and_the_other_half_judges(write_images: WriteImages) -> None:
    folder = write_images("photos", 8)
    for options in (((str(folder),), None), ((), str(folder))):
        found = choose_files(IMAGES, list_images, *options)
        ((name, calibration),) = found.calibration
        parts = [set(listed(part)) for part in (calibration, found.evaluation, found.selection)]
        assert [len(part) for part in parts] == [8, 4, 4]
        assert set.union(*parts) == set(listed(list_images(folder)))
        assert all({path.parent.name for path in part} == {"cat", "dog"} for part in parts)
        assert name == f"{folder}, every second"
        assert found.judged_on == f"{folder}, one quarter"


def test_two_folders_each_have_their_part(write_images: WriteImages) -> None:
    ours, theirs = write_images("ours", 3), write_images("theirs", 5)
    found = choose_files(IMAGES, list_images, (str(ours),), str(theirs))
    assert found.calibration == ((str(ours), list_images(ours)),)
    assert (found.evaluation, found.selection) == halves(list_images(theirs))
    assert found.judged_on == f"{theirs}, one half"


@pytest.mark.parametrize("calibration", [(), ("self",)])
def test_without_images_a_folder_is_asked_for(calibration: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"--calibration FOLDER: one half calibrates"):
        choose_files(IMAGES, list_images, calibration, None)


def test_too_few_images_are_refused(write_images: WriteImages) -> None:
    with pytest.raises(InputError, match=r"only 3 images are left.*at least 4"):
        choose_files(IMAGES, list_images, (str(write_images("photos", 7)),), None)


# --- lists of any kind ---------------------------------------------------------------------------


def test_what_ends_otherwise_is_of_another_kind(write_images: WriteImages) -> None:
    folder = write_images("both", 1)
    (folder / "cat" / "one.WAV").write_bytes(b"RIFF")
    assert [path.name for path in listed(list_files(folder, SOUNDS))] == ["one.WAV"]
    assert len(listed(list_files(folder, IMAGES))) == 2
    with pytest.raises(
        InputError, match=r"holds no sounds; expected files that end with \.flac, \.wav"
    ):
        list_files(folder / "dog", SOUNDS)


def test_what_stands_behind_a_file_stays_with_it(write_images: WriteImages) -> None:
    folder = write_images("sounds", 1)
    line = listed_line(folder / "cat/00.png", IMAGES, ["what is said"])
    assert line.split("\t")[3:] == ["what is said"]
    (folder / "list.txt").write_text(line)
    assert list_files(folder / "list.txt", IMAGES) == line


@pytest.mark.parametrize("count", [1, 2, 5, 7, 100])
def test_a_shorter_list_begins_and_ends_as_the_whole_one(count: int) -> None:
    files = "\n".join(f"/{index}.png\t1\t1" for index in range(7))
    lines = spread_lines(files, count).splitlines()
    assert len(lines) == len(set(lines)) == min(count, 7)
    assert lines[0] == files.splitlines()[0]
    assert count == 1 or lines[-1] == files.splitlines()[-1]
    assert spread_evenly(files, count) == listed("\n".join(lines))


def test_halves_have_every_file_once() -> None:
    files = "\n".join(f"/{index}.png" for index in range(7))
    first, second = halves(files)
    assert sorted(first.splitlines() + second.splitlines()) == files.splitlines()
    assert (len(first.splitlines()), len(second.splitlines())) == (4, 3)
