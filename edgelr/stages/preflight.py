"""Refuse in the first second, from arguments and small files, what would fail later.

No weights are read here, and no torch is imported.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

from edgelr.core.bundle import MANIFEST
from edgelr.core.cache import require_space
from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.data.file_lists import IMAGES, SOUNDS
from edgelr.data.tensors import require_arrays
from edgelr.data.text import read_file
from edgelr.model.first_look import ADAPTER, look, require_config, require_known_gguf
from edgelr.model.sentence_modules import transformer_folder
from edgelr.model.weight_headers import tensor_shapes, weight_files
from edgelr.planning.files import read_plan
from edgelr.planning.recipes import RECIPES, changed_recipe
from edgelr.stages.fit import require_fitting
from edgelr.stages.source import DEFAULT, kind_of_source
from edgelr.stages.staging import model_room, require_room
from edgelr.stages.transformers.text_selection import SELF


def preflight(settings: Settings, out: Path | None, run: Run, given_plan: Path | None) -> None:
    """Check everything that is known before the model is opened.

    Args:
        settings: options of the run.
        out: folder of the bundle, if one is written.
        run: cache of the stages.
        given_plan: plan file to follow.

    Raises:
        EdgelrError: a file is missing, empty or something else, a name is unknown, a provider is
            not offered here, or a disk is too small.
    """
    if given_plan is not None:
        read_plan(given_plan)
    _require_model(settings.model)
    recipe = RECIPES.get(settings.recipe)
    in_torch = kind_of_source(settings) == DEFAULT
    if in_torch:
        changed_recipe(recipe, settings)
    given = (*settings.calibration, *filter(None, [settings.evaluation]))
    for source in dict.fromkeys(given):
        if source != SELF:
            _require_data(Path(source), in_torch)
    _require_other_data(settings)
    if in_torch and (seen := look(Path(settings.model), settings.task)) is not None:
        require_fitting(seen, settings)
    if settings.labels is not None and not read_file(Path(settings.labels)).strip():
        raise InputError(f"{settings.labels} is empty; expected one label a line.")
    if settings.provider is not None:
        from edgelr.runtime.session import require_offered

        require_offered(settings.provider)
    require_room(_least_room(Path(settings.model)), out, run)


def require_place(out: Path, force: bool, model: str, run: Run) -> None:
    """Refuse a folder that no bundle can be written to, and a cache that nothing can.

    Raises:
        InputError: ``out`` holds something that must not be lost, lies in the model's own folder,
            or cannot be written.
        EnvironmentProblem: the cache cannot be written, or a disk is full.
    """
    if _exists(out) and (not out.is_dir() or any(out.iterdir())):
        if not (out / MANIFEST).exists():
            raise InputError(
                f"{out} exists and is no edgelr bundle; expected an empty or a new folder. Name "
                f"another one with --out: edgelr does not delete what it did not write."
            )
        if not force:
            raise InputError(
                f"{out} holds a bundle; expected an empty or a new folder. Add --force to replace "
                f"it, or name another one with --out."
            )
    folder = Path(model).resolve()
    if folder.is_dir() and folder in (out.resolve(), *out.resolve().parents):
        raise InputError(
            f"{out} lies in the folder of the model, {model}; expected a folder outside of it. "
            f"Name another one with --out."
        )
    if problem := _unwritable(out):
        raise InputError(
            f"{out} cannot be written: {problem}. Expected a folder that can be written. Name "
            f"another one with --out."
        )
    if problem := _unwritable(run.cache.root / "stage"):
        raise EnvironmentProblem(
            f"The cache {run.cache.root} cannot be written: {problem}. Expected a folder that can "
            f"be written. Name another one with EDGELR_CACHE."
        )
    require_space(out, 2**20, "The bundle")
    require_space(run.cache.root, 2**20, "The cache")


def require_new_file(path: Path) -> None:
    """Refuse a place in which no file can be written.

    Raises:
        InputError: it is a folder, or its folder is missing or read-only.
    """
    folder = path.absolute().parent
    problem = (
        "it is a folder" if path.is_dir()
        else _unwritable(path) if folder.is_dir()
        else f"the folder {folder} does not exist"
    )  # fmt: skip
    if problem:
        raise InputError(
            f"{path} cannot be written: {problem}. Expected a file in a folder that can be "
            f"written. Name another one with --out."
        )


def _exists(path: Path) -> bool:
    """Tell whether something is there; a name that no file can have is told by ``_unwritable``."""
    try:
        return path.exists()
    except OSError:
        return False


def _unwritable(path: Path) -> str:
    """Say why nothing can be made at ``path``, by making something beside it; empty where it can.

    Permissions do not tell: root has all of them, on a read-only disk as well.
    """
    parent = next(each for each in path.absolute().parents if _exists(each))
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{path.name}.check-"):
            return ""
    except OSError as error:
        return f"{error.strerror}, in {parent}" if parent.is_dir() else f"{parent} is a file"


def _require_model(model: str) -> None:
    """Refuse a path that is missing, or no model."""
    path = Path(model)
    if path.is_dir() and not (path / ADAPTER).exists():
        require_config(transformer_folder(path))
    if path.suffix == ".gguf" and path.is_file():
        require_known_gguf(path)
    is_path = path.suffix in (".onnx", ".gguf") or model.startswith((".", "/", "~"))
    if is_path and not _exists(path) and ":" not in model:
        raise InputError(
            f"{model} does not exist; expected a model folder, a .gguf or .onnx file, "
            f"package.module:factory or a Hub id. Check the path."
        )


def _require_data(path: Path, in_torch: bool) -> None:
    """Refuse data that are missing, empty, or not what the name of the file says."""
    if path.suffix == ".npz" and not in_torch:
        require_arrays(path)
    elif path.is_dir():
        suffixes = (*IMAGES.suffixes, *SOUNDS.suffixes)
        if not any(each.suffix.lower() in suffixes for each in path.rglob("*")):
            raise InputError(
                f"{path} holds no images or sounds; expected files that end with "
                f"{', '.join(suffixes)}, in sub-folders if you like. Name another folder."
            )
    elif not read_file(path).strip():
        raise InputError(f"{path} holds no text. Expected text, or a list of files. Name another.")
    elif path.suffix == ".jsonl":
        _require_objects(path)


def _require_other_data(settings: Settings) -> None:
    """Refuse to judge on what was calibrated on: its figures would flatter."""
    judged = settings.evaluation
    if judged and Path(judged).resolve() in {Path(each).resolve() for each in settings.calibration}:
        raise InputError(
            f"{judged} is given to --calibration and to --evaluation; expected other data to judge "
            f"on, as figures on what was calibrated on flatter. Name another file, or leave "
            f"--evaluation away."
        )


def _require_objects(path: Path) -> None:
    """Refuse a file with a line that is no JSON object."""
    for number, line in enumerate(read_file(path).splitlines(), start=1):
        try:
            fine = not line.strip() or isinstance(json.loads(line), dict)
        except ValueError:
            fine = False
        if not fine:
            raise InputError(
                f'{path}, line {number} is not {{"text": …}}. Expected one JSON object per line. '
                f"Mend that line, or give a .txt file."
            )


def _least_room(model: Path) -> tuple[int, int]:
    """Estimate the bytes that cache and bundle take, from the files of a model; 0 for the Hub's.

    Raises:
        InputError: a file of weights is missing, or not whole.
    """
    size = model.stat().st_size if model.is_file() else 0
    if model.suffix == ".onnx":
        return 3 * size, 2 * size  # what lies beside the file is known when it is opened
    if model.suffix == ".gguf":
        return model_room(size // 4)  # a number has four bytes at most
    files = weight_files(transformer_folder(model)) if model.is_dir() else []
    parameters = sum(map(_parameters, files))
    return model_room(parameters)


def _parameters(path: Path) -> int:
    """Count the parameters in a file of weights."""
    return sum(map(math.prod, tensor_shapes(path)))
