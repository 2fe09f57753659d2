"""Adapters of peft: merged into the model that they were trained for, in float32."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from edgelr.core.cache import Cache, digest, file_digest
from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.model.checkpoints.folders import (
    TOKENIZER,
    carried_files,
    carry,
    link,
    quiet_transformers,
    read_config,
    require_complete,
    save_plain,
)
from edgelr.model.checkpoints.weights import weight_files
from edgelr.model.exporter import exporter_for
from edgelr.model.first_look import ADAPTER
from edgelr.model.small_files import CONFIG, VOCABULARIES, matching, read_json

MERGEABLE = ("LORA", "LOHA", "LOKR", "IA3")
WEIGHTS = "adapter_model.safetensors"
_DYNAMIC = ("alora_invocation_tokens", "arrow_config", "use_bdlora")  # depend on what is read
FindBase = Callable[[str, str | None], Path]


def merged(folder: Path, cache: Cache, find: FindBase) -> Path:
    """Give a plain model for a folder that may hold an adapter.

    Args:
        folder: folder; one without an adapter is returned as it is.
        cache: cache that keeps the merged model.
        find: function that gives the plain folder of a model's name and revision.

    Raises:
        InputError: the adapter cannot be merged, or its model is unknown.
        EnvironmentProblem: peft is not installed.
    """
    if not (folder / ADAPTER).is_file():
        return folder
    told = read_json(folder / ADAPTER)
    _require_mergeable(folder, told)
    _require_peft(folder)
    base = _base(folder, told, cache, find)
    config = read_config(base)
    exporter_for(str(config.get("model_type")))  # before the work, not after it
    kind = _class_of(config, told, folder, base)
    files = [folder / ADAPTER, folder / WEIGHTS, *carried_files(folder), base / CONFIG]
    files += [*carried_files(base), *weight_files(base)]
    key = digest("adapter", [path.name for path in files], file_digest(files))
    return cache.stage("model", key, lambda out: _merge(kind, base, folder, out))[0]


def _require_mergeable(folder: Path, told: dict[str, Any]) -> None:
    kind = str(told.get("peft_type"))
    dynamic = [name for name in _DYNAMIC if told.get(name)]
    if kind.upper() not in MERGEABLE or dynamic:
        raise InputError(
            f"{folder} is an adapter of the type {' with '.join([kind, *dynamic])}, which is no "
            f"change of weights; expected one of {', '.join(MERGEABLE)}. Give the model that it "
            f"was trained for, or an adapter that can be merged."
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder} has {ADAPTER} but no {WEIGHTS}; expected both. Opening a pickle can run "
            f"code: load the adapter where you trust it, and save it again with save_pretrained."
        )


def _require_peft(folder: Path) -> None:
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            f"{folder} is an adapter, which peft merges, and peft cannot be imported ({error}). "
            f"Install it with pip install 'edgelr[heal]'."
        ) from error


def _base(folder: Path, told: dict[str, Any], cache: Cache, find: FindBase) -> Path:
    """Find the plain folder of the model that an adapter changes."""
    if (folder / CONFIG).is_file() and weight_files(folder):
        beside = [*carried_files(folder), *weight_files(folder)]
        beside += [path for path in folder.glob("*.index.json") if path not in beside]
        key = digest(
            str(folder.resolve()), [(path.name, path.stat().st_mtime_ns) for path in beside]
        )
        # Without adapter_config.json, which transformers would follow to another base.
        view = cache.stage("base", key, lambda out: _link_all(beside, folder, out))[0]
        return find(str(view), None)
    name = told.get("base_model_name_or_path")
    if not name or Path(name).resolve() == folder.resolve():
        raise InputError(
            f"{folder} is an adapter whose {ADAPTER} names no model that it changes "
            f"(base_model_name_or_path is {name!r}). Write the model's folder or Hub id there."
        )
    try:
        return find(str(name), told.get("revision"))
    except InputError as error:
        raise InputError(
            f"{folder} is an adapter of {name!r}, which cannot be used: {error} Write another "
            f"folder or Hub id of the model into base_model_name_or_path of {ADAPTER}."
        ) from error


def _link_all(paths: list[Path], source: Path, out: Path) -> None:
    for path in paths:
        target = out / path.parent.relative_to(source)
        target.mkdir(exist_ok=True)
        link(path, target)


def _class_of(config: dict[str, Any], told: dict[str, Any], folder: Path, base: Path) -> Any:
    """Find the class that the configuration of the base names."""
    name = (config.get("architectures") or [None])[0]
    kind = getattr(transformers, str(name), None)
    if kind is None:
        raise InputError(
            f"{folder} is an adapter of {base}, whose {CONFIG} names the architecture {name}; "
            f"expected a class of transformers {transformers.__version__}. Merge the adapter where "
            f"its model loads (merge_and_unload, save_pretrained), and give the result."
        )
    return kind


def _merge(kind: Any, base: Path, folder: Path, out: Path) -> None:
    """Write the model with its adapter merged, and what lies beside it."""
    with quiet_transformers():
        model, found = kind.from_pretrained(
            base,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are named
        )
    require_complete(found, str(base))
    _untie(model, folder)
    save_plain(_with_adapter(model, folder), None, out)
    if matching(folder, VOCABULARIES):
        for path in matching(folder, TOKENIZER):
            (out / path.name).write_bytes(path.read_bytes())
        skipped = set(matching(base, TOKENIZER))
    else:
        skipped = set()
    carry(base, out, skipped)


def _untie(model: Any, folder: Path) -> None:
    """Give the head a table of its own where the adapter changes either of the two."""
    head = model.get_output_embeddings()
    tied = getattr(model.config, "tie_word_embeddings", False) and head is not None
    if not tied or read_json(folder / ADAPTER).get("ensure_weight_tying"):
        return
    pair = (head, model.get_input_embeddings())
    names = [name for name, module in model.named_modules() if module in pair]
    if any(f".{name}." in f".{key}" for key in _keys(folder) for name in names):
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _keys(folder: Path) -> set[str]:
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise InputError(
            f"{folder / WEIGHTS} cannot be read ({error}); expected a whole safetensors file. Copy "
            f"or download the adapter again."
        ) from error


def _with_adapter(model: Any, folder: Path) -> Any:
    """Let peft add the adapter to the weights."""
    import peft

    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            adapted = peft.PeftModel.from_pretrained(model, folder)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise _unfit(folder, str(error).strip()) from error
    ignored = [str(each.message) for each in told if "Unexpected keyword" in str(each.message)]
    if ignored:
        raise _unfit(folder, ignored[0])
    state = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    other = sorted((_keys(folder) ^ state.keys()) - adapted.state_dict().keys())
    if other:
        raise _unfit(folder, f"{len(other):,} tensors have no counterpart: {', '.join(other[:3])}")
    return adapted.merge_and_unload()


def _unfit(folder: Path, problem: str) -> InputError:
    return InputError(
        f"{folder} is an adapter that does not fit the model it names, as peft reads them "
        f"({problem}). Expected an adapter of this very model. Check base_model_name_or_path in "
        f"{ADAPTER}, or merge the two where they load, and give the result."
    )
