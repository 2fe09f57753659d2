"""What the small files of a model folder tell, before torch is imported and weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgelr.core.errors import InputError
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.model.architecture import MODULES, refuse_head
from edgelr.model.exporter import Exporter, exporter_for
from edgelr.model.sentence_modules import dense_layers_of, pooling_of, transformer_folder

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
HEAD = "For"  # in the names of transformers' classes, before what a head is for


def require_exportable(folder: Path, task: Task | None) -> None:
    """Refuse a model folder whose small files tell that it cannot be exported as what it is.

    Args:
        folder: Hugging Face folder; an adapter is merged first, and then looked at.
        task: task that was asked for; None takes what the configuration names.

    Raises:
        InputError: there is no configuration or only pickled weights, or a type, a head or a module
            that edgelr does not export.
    """
    if (folder / ADAPTER).exists():
        return
    inner = transformer_folder(folder)
    require_weights(inner)
    config = read_json(inner / CONFIG)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or "auto_map" in config:
        return  # a folder of code, of which transformers says whether it runs
    exporter = exporter_for(model_type)
    if task is None:
        _require_known_head(config, exporter, folder)
    embeds = task in (None, "feature-extraction")
    if embeds and "feature-extraction" in exporter.tasks and (folder / MODULES).exists():
        pooling_of(folder)
        dense_layers_of(folder)


def require_weights(folder: Path) -> None:
    """Refuse a folder without a configuration, or without weights that are safe to open.

    Raises:
        InputError: there are none.
    """
    if not (folder / CONFIG).exists():
        raise InputError(f"{folder} has no config.json; expected a Hugging Face model folder.")
    if any(folder.glob("*.safetensors")):
        return
    pickled = [path.name for pattern in PICKLED for path in folder.glob(pattern)]
    found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
    raise InputError(
        f"{folder} holds {found}; expected *.safetensors. Opening a pickle can run code, so "
        f"convert it once where you trust it: "
        f"AutoModel.from_pretrained(folder).save_pretrained(new_folder)."
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        InputError: it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is no JSON, or cannot be read ({error}); expected an object. Copy or download "
            f"it again."
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}; expected a JSON object.")
    return found


def _require_known_head(config: dict[str, Any], exporter: Exporter, folder: Path) -> None:
    """Refuse architectures whose names tell of a head that no task of the family has."""
    named = [str(name) for name in config.get("architectures") or ()]
    known = [TASKS.get(task).architecture for task in exporter.tasks]
    heads = [name for name in named if HEAD in name]
    if heads and not any(each and each in name for each in known for name in heads):
        refuse_head(named, str(config["model_type"]), exporter, folder)
