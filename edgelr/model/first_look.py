"""What the small files of a model folder tell, before torch is imported and weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelr.core.errors import InputError
from edgelr.core.modality import MODALITIES
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.model.architecture import MODULES, refuse_head, require_task
from edgelr.model.exporter import EXPORTERS, Exporter, exporter_for
from edgelr.model.sentence_modules import dense_layers_of, pooling_of, transformer_folder
from edgelr.model.small_files import CONFIG, read_architecture, read_json, require_tokenizer

ADAPTER = "adapter_config.json"
QUANTIZED = ("quantization_config", "compression_config")  # what names the method
METHODS = ("gptq", "awq", "fp8", "compressed-tensors")  # that model.checkpoints.schemes decodes
EXPECTED_METHODS = (
    "expected gptq (2, 4 or 8 bits), awq (gemm, 4 bits), fp8 (e4m3), compressed-tensors "
    "(float-quantized), or floats. Give the original model, which is not quantized"
)
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
HEAD = "For"  # in the names of transformers' classes, before what a head is for


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the configuration of a model tells.

    Attributes:
        reads: noun for one input: ``text``, ``image`` or ``sound``; empty where it is unclear.
        longest: longest text that has positions, tokens; None where only its class tells.
        rows: number of rows in the table of embeddings; None where it has none, or does not say.
    """

    reads: str
    longest: int | None
    rows: int | None


def look(folder: Path, task: Task | None) -> FirstLook | None:
    """Look at a model folder; None where there is none, or an adapter or code has to be run first.

    Raises:
        InputError: it cannot be exported: see ``require_exportable``.
    """
    if not folder.is_dir() or (folder / ADAPTER).exists():
        return None
    require_exportable(folder, task)
    config = read_json(transformer_folder(folder) / CONFIG)
    if not isinstance(config.get("model_type"), str) or "auto_map" in config:
        return None
    exporter = exporter_for(config["model_type"])
    known = [each for _, each in MODALITIES.items() if exporter.tasks[0] in each.tasks]
    others = {*exporter.tasks[1:]}
    reads = {each.reads for each in known if others & {*each.tasks} or len(known) == 1}
    longest = config.get("max_position_embeddings")
    told = exporter.longest_text is None and not exporter.positions_after_padding
    return FirstLook(
        reads=reads.pop() if len(reads) == 1 else "",
        longest=longest if told and isinstance(longest, int) else None,
        rows=_rows_of(config),
    )


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
    require_config(inner)
    require_weights(inner)
    config = read_json(inner / CONFIG)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or "auto_map" in config:
        return  # a folder of code, of which transformers says whether it runs
    exporter = exporter_for(model_type)
    require_task(task, model_type, exporter)
    _require_known_method(config, folder)
    if task is None:
        _require_known_head(config, exporter, folder)
    _refuse_numbers(config, task, exporter, folder)
    if (rows := _rows_of(config)) is not None:
        require_tokenizer(inner, str(folder), rows, made=False)
    embeds = task in (None, "feature-extraction")
    if embeds and "feature-extraction" in exporter.tasks and (folder / MODULES).exists():
        pooling_of(folder)
        dense_layers_of(folder)


def require_config(folder: Path) -> None:
    """Refuse a folder that is no model's, and name the graphs in it that could be meant.

    Raises:
        InputError: it has no configuration.
    """
    if (folder / CONFIG).exists():
        return
    graphs = ", ".join(sorted(each.name for each in folder.glob("*.onnx"))[:3])
    raise InputError(
        f"{folder} has no {CONFIG}; expected a Hugging Face model folder."
        f"{f' To compress a graph, give the file itself: {graphs}.' if graphs else ''}"
    )


def require_weights(folder: Path) -> None:
    """Refuse a folder without weights that are safe to open.

    Raises:
        InputError: there are none.
    """
    if any(folder.glob("*.safetensors")):
        return
    pickled = [path.name for pattern in PICKLED for path in folder.glob(pattern)]
    found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
    raise InputError(
        f"{folder} holds {found}; expected *.safetensors. Opening a pickle can run code, so "
        f"convert it once where you trust it: "
        f"AutoModel.from_pretrained(folder).save_pretrained(new_folder)."
    )


def require_known_gguf(path: Path) -> None:
    """Refuse a GGUF file of an architecture that no family has, by its first metadata.

    Raises:
        InputError: it is one, or no GGUF file.
    """
    architecture = read_architecture(path)
    known = {name for _, exporter in EXPORTERS.items() for name in exporter.model_types}
    if architecture is not None and _plain(architecture) not in map(_plain, known):
        raise InputError(
            f"{path} is of the architecture {architecture!r}, which edgelr does not export. "
            f"Expected one of: {', '.join(sorted(known))}. Give another model."
        )


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "")


def _rows_of(config: dict[str, Any]) -> int | None:
    """Read the number of rows in the table of embeddings of a model that reads or writes texts."""
    rows = {**config, **(config.get("text_config") or {})}.get("vocab_size")
    return rows if isinstance(rows, int) and "image_size" not in config else None


def _require_known_head(config: dict[str, Any], exporter: Exporter, folder: Path) -> None:
    """Refuse architectures whose names tell of a head that no task of the family has."""
    named = [str(name) for name in config.get("architectures") or ()]
    known = [TASKS.get(task).architecture for task in exporter.tasks]
    heads = [name for name in named if HEAD in name]
    if heads and not any(each and each in name for each in known for name in heads):
        refuse_head(named, str(config["model_type"]), exporter, folder)


def _refuse_numbers(
    config: dict[str, Any], task: Task | None, exporter: Exporter, folder: Path
) -> None:
    """Refuse heads that answer with several numbers: the gates judge labels, or one score."""
    if config.get("problem_type") != "regression":
        return
    if task is None and len(config.get("id2label") or ()) == 1:
        return  # one score
    named = [str(name) for name in config.get("architectures") or ()]
    labels = [each for each in exporter.tasks if TASKS.get(each).loss == "label"]
    meant = [each for each in labels if any(TASKS.get(each).architecture in name for name in named)]
    if task in labels or (task is None and meant):
        raise InputError(
            f"{folder} predicts numbers (problem_type is regression); expected a model that "
            f"labels, or gives one score (--task text-ranking). Give --task feature-extraction to "
            f"compress the model without its head."
        )


def _require_known_method(config: dict[str, Any], folder: Path) -> None:
    """Refuse weights that are quantized by a method that nothing here decodes."""
    told: dict[str, Any] = next((config[each] for each in QUANTIZED if config.get(each)), {})
    method = str(told.get("quant_method"))
    if told and method not in METHODS:
        raise InputError(
            f"{folder} is quantized by {method}, and it is another method; {EXPECTED_METHODS}."
        )
