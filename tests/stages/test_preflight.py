"""What is known from arguments and small files is refused before a model is opened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import save_file

from edgelr.core.bundle import MANIFEST
from edgelr.core.cache import Cache
from edgelr.core.errors import EnvironmentProblem, InputError, ProviderError
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.stages.preflight import preflight, require_new_file, require_place
from tests.helpers.foreign_graphs import mlp


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(Cache(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model: nothing here reads its weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": np.zeros((8, 4), np.float32)}, folder / "model.safetensors")
    return folder


def bundle(folder: Path) -> Path:
    (folder / MANIFEST).parent.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    return folder


# --- the folder of the bundle --------------------------------------------------------------------


def test_a_folder_that_edgelr_did_not_write_is_never_replaced(tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="does not delete what it did not write"):
        require_place(tmp_path / "mine", True, "some/model", run)


def test_a_bundle_is_replaced_where_that_is_asked_for(tmp_path: Path, run: Run) -> None:
    out = bundle(tmp_path / "out")
    with pytest.raises(InputError, match="Add --force to replace"):
        require_place(out, False, "some/model", run)
    require_place(out, True, "some/model", run)


@pytest.mark.parametrize("out", [".", "bundle", "deep/er"])
def test_a_bundle_is_not_written_into_the_folder_of_its_model(
    model: Path, run: Run, out: str
) -> None:
    with pytest.raises(InputError, match=r"outside of it|did not write"):
        require_place(model / out, False, str(model), run)


@pytest.mark.parametrize("place", ["file/out", "file/deep/out", "x" * 300, "/proc/edgelr/out"])
def test_a_place_where_nothing_can_be_made_is_refused(tmp_path: Path, run: Run, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*--out"):
        require_place(tmp_path / place, False, "some/model", run)


def test_a_cache_where_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="EDGELR_CACHE"):
        require_place(tmp_path / "out", False, "some/model", Run(Cache(tmp_path / "file" / "in")))


def test_checking_a_place_leaves_nothing_there(tmp_path: Path, run: Run) -> None:
    require_place(tmp_path / "new" / "out", False, "some/model", run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["missing/plan.json", ".", "file/plan.json"])
def test_a_file_that_cannot_be_written_at_the_end_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        require_new_file(tmp_path / path)
    require_new_file(tmp_path / "plan.json")
    require_new_file(tmp_path / "file")


# --- arguments and files -------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": "./nowhere"}, "nowhere does not exist"),
    ({"model": "nowhere.gguf"}, "nowhere.gguf does not exist"),
    ({"model": "nowhere.onnx"}, "nowhere.onnx does not exist"),
    ({"model": "empty"}, "no config.json"),
    ({"model": "graphs"}, "give the file itself: net.onnx"),
    ({"recipe": "svdllm"}, "Unknown recipe"),
    ({"method": "fishr"}, "Unknown method"),
    ({"allocator": "lagrange"}, "Unknown allocator"),
    ({"method": "kronecker", "forms": ("pivoted",)}, "cannot make the forms"),
    ({"calibration": ("nowhere.txt",)}, "nowhere.txt"),
    ({"calibration": ("self", "nowhere.txt")}, "nowhere.txt"),
    ({"calibration": ("blank.txt",)}, "blank.txt holds no text"),
    ({"calibration": ("binary.txt",)}, "Expected a UTF-8 file"),
    ({"calibration": ("inputs.npz",)}, "Expected a UTF-8 file"),
    ({"calibration": ("empty",)}, "holds no images or sounds"),
    ({"evaluation": "lines.jsonl"}, "lines.jsonl, line 2 is not"),
    ({"evaluation": "nowhere"}, "nowhere"),
    ({"labels": "blank.txt"}, "expected one label a line"),
    ({"model": "net.onnx", "calibration": ("binary.npz",)}, "Expected an .npz file"),
    ({"model": "net.onnx", "calibration": ("single.npz",)}, "Expected an .npz file"),
    ({"model": "net.onnx", "evaluation": "no arrays.npz"}, "holds no arrays"),
]


@pytest.fixture
def here(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "graphs"):
        Path(name).mkdir()
    mlp(Path("net.onnx"))
    shutil.copy("net.onnx", "graphs/net.onnx")
    Path("blank.txt").write_text(" \n")
    Path("lines.jsonl").write_text('{"text": "one"}\n["two"]\n')
    Path("plan.txt").write_text('{"sites": 3}')
    for name in ("binary.txt", "binary.npz"):
        Path(name).write_bytes(bytes(range(255)))
    np.savez("inputs.npz", x=np.zeros(3))
    np.savez("no arrays.npz")
    np.save("single.npy", np.zeros(3))
    Path("single.npy").rename("single.npz")
    return tmp_path


@pytest.mark.parametrize(("options", "told"), WRONG)
def test_what_is_wrong_is_told_before_the_model_is_opened(
    here: Path, run: Run, options: dict[str, Any], told: str
) -> None:
    settings = make_settings(**{"model": "model", **options})
    with pytest.raises(InputError, match=told):
        preflight(settings, here / "out", run, None)


@pytest.mark.parametrize("plan", ["nowhere.json", "plan.txt", "binary.txt", "empty"])
def test_a_file_that_is_no_plan_is_told_before_the_model_is_opened(
    here: Path, run: Run, plan: str
) -> None:
    with pytest.raises(InputError, match="is not a plan"):
        preflight(make_settings(model="model"), None, run, Path(plan))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "org/name"},
        {"model": "package.module:factory"},
        {"model": "net.onnx", "calibration": ("inputs.npz",)},
        {"calibration": ("self", "plan.txt")},
    ],
)
def test_what_may_be_right_is_let_through(here: Path, run: Run, options: dict[str, Any]) -> None:
    preflight(make_settings(**{"model": "model", **options}), here / "out", run, None)


def test_an_adapter_alone_is_let_through(here: Path, run: Run) -> None:
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_config.json").write_text("{}")
    preflight(make_settings(model=str(here / "adapter")), None, run, None)


def test_a_provider_that_is_not_offered_is_told(here: Path, run: Run) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime offers CUDA")
    with pytest.raises(ProviderError, match="offers only"):
        preflight(make_settings(model="model", provider="cuda"), None, run, None)


# --- weights -------------------------------------------------------------------------------------


def test_damaged_weights_are_told_by_their_header(here: Path, run: Run) -> None:
    path = here / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"model.safetensors cannot be read"):
        preflight(make_settings(model="model"), None, run, None)


def test_a_missing_shard_is_told(here: Path, run: Run) -> None:
    index = {"weight_map": {"weight": "model-1.safetensors", "other": "model-2.safetensors"}}
    (here / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    (here / "model" / "model.safetensors").rename(here / "model" / "model-1.safetensors")
    with pytest.raises(InputError, match=r"lacks 1 of 2 files of weights: model-2.safetensors"):
        preflight(make_settings(model="model"), None, run, None)


@pytest.mark.parametrize("suffix", ["", ".onnx", ".gguf"])
def test_a_model_that_the_disk_cannot_hold_is_told_by_the_size_of_its_files(
    here: Path, run: Run, suffix: str
) -> None:
    free = shutil.disk_usage(here).free
    settings = make_settings(model=f"large{suffix}")
    shutil.copytree("model", "large")
    path = Path(f"large{suffix}") if suffix else Path("large/model.safetensors")
    header = {"weight": {"dtype": "F32", "shape": [free // 4], "data_offsets": [0, free // 4 * 4]}}
    start = json.dumps(header).encode()
    magic = b"GGUF" + bytes(36)  # with an empty name of its first metadata
    path.write_bytes(magic if suffix == ".gguf" else len(start).to_bytes(8, "little") + start)
    os.truncate(path, 8 + len(start) + free // 4 * 4)  # holes
    with pytest.raises(EnvironmentProblem, match="The cache of this model needs about"):
        preflight(settings, None, run, None)
