"""Inputs of foreign graphs: read, drawn, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.errors import InputError
from edgelr.data.tensors import (
    GraphInput,
    count,
    feeds,
    load_samples,
    random_samples,
    read_samples,
    take,
    write_samples,
)

FLOAT, INT64 = np.dtype(np.float32), np.dtype(np.int64)
IMAGE = GraphInput("image", FLOAT, (1, 3, "height", "width"))
IDS = GraphInput("ids", INT64, ("batch", "tokens"), rows=7)
SCALE = GraphInput("scale", FLOAT, ())


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "inputs.npz"
    np.savez(path, **arrays)
    return path


def test_the_batch_axis_may_count_the_samples(tmp_path: Path) -> None:
    path = saved(tmp_path, image=np.zeros((5, 3, 8, 9), np.float32), ids=np.ones((5, 4), np.int64))
    samples = read_samples(path, [IMAGE, IDS])
    assert count(samples) == 5
    assert feeds(samples, 2)["image"].shape == (1, 3, 8, 9)
    assert feeds(samples, 2)["ids"].shape == (1, 4)


def test_samples_may_have_an_axis_of_their_own(tmp_path: Path) -> None:
    path = saved(tmp_path, ids=np.ones((5, 2, 4), np.int64), scale=np.arange(5, dtype=np.float32))
    samples = read_samples(path, [IDS, SCALE])
    assert feeds(samples, 3)["ids"].shape == (2, 4)
    assert feeds(samples, 3)["scale"] == 3.0


def test_samples_are_cast_to_the_type_of_the_input(tmp_path: Path) -> None:
    path = saved(tmp_path, ids=np.ones((5, 4), np.int32), image=np.zeros((5, 3, 8, 9)))
    samples = read_samples(path, [IDS, IMAGE])
    assert (samples["ids"].dtype, samples["image"].dtype) == (INT64, FLOAT)


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    samples = random_samples([IMAGE, IDS], seed=3)
    write_samples(tmp_path / "kept.npz", take(samples, 4, 6))
    found = load_samples(tmp_path / "kept.npz")
    assert count(found) == 2
    np.testing.assert_array_equal(feeds(found, 0)["image"], feeds(samples, 4)["image"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros((5, 4))}, "holds other.*Expected the inputs of the graph.*ids, scale"),
        ({"ids": np.ones((5, 4), int), "scale": np.ones(4)}, "different numbers of samples"),
        ({"ids": np.ones((0, 4), int), "scale": np.ones(0)}, "different numbers of samples"),
        ({"ids": np.ones((5, 2, 2, 4), int), "scale": np.ones(5)}, "Expected int64 of shape"),
        ({"ids": np.ones((5, 4)), "scale": np.ones(5)}, "has ids as float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read_samples(saved(tmp_path, **arrays), [IDS, SCALE])


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    with pytest.raises(InputError, match="cannot be read"):
        read_samples(path, [IDS])
    path.write_text("no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_samples(path, [IDS])


def test_fixed_sizes_larger_than_one_are_no_batch(tmp_path: Path) -> None:
    pair = GraphInput("pair", FLOAT, (2, 4))
    with pytest.raises(InputError, match="without the axis of samples where"):
        read_samples(saved(tmp_path, pair=np.zeros((2, 4), np.float32)), [pair])


def test_random_inputs_have_the_shapes_of_the_graph() -> None:
    same = GraphInput("mask", INT64, ("batch", "tokens"))
    samples = random_samples([IMAGE, IDS, same], seed=0)
    assert feeds(samples, 0)["image"].shape == (1, 3, 32, 32)
    assert feeds(samples, 0)["ids"].shape == feeds(samples, 0)["mask"].shape == (1, 32)
    assert (samples["ids"].min(), samples["ids"].max()) == (0, 6)
    assert (samples["mask"] == 1).all()
    again = random_samples([IMAGE, IDS, same], seed=0)
    assert all((again[name] == array).all() for name, array in samples.items())
    assert (random_samples([IMAGE], seed=1)["image"] != samples["image"]).any()


def test_drawn_sizes_fit_together() -> None:
    mask = GraphInput("mask", INT64, ("batch", "past + tokens"))
    past = GraphInput("past", FLOAT, ("batch", 4, "past", 16))
    samples = random_samples([IDS, mask, past], seed=0)
    assert feeds(samples, 0)["mask"].shape == (1, 64)


def test_the_past_of_a_first_step_has_no_length(tmp_path: Path) -> None:
    past = GraphInput("past", FLOAT, ("batch", 4, "past", 16))
    path = saved(tmp_path, past=np.zeros((5, 4, 0, 16), np.float32))
    samples = read_samples(path, [past])
    assert count(samples) == 5
    assert feeds(samples, 1)["past"].shape == (1, 4, 0, 16)
    write_samples(tmp_path / "kept.npz", samples)
    assert load_samples(tmp_path / "kept.npz")["past"].shape == samples["past"].shape


def test_strings_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="The input text has a type"):
        random_samples([GraphInput("text", np.dtype(np.object_), (1,))], seed=0)
