"""Load a model from where people keep it: the Hub, a folder, a GGUF file or their own code.

Weights come from safetensors or GGUF only: a pickled checkpoint can run code when it is opened.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from edgelr.core.cache import Cache, digest, file_digest
from edgelr.core.errors import InputError
from edgelr.core.inputs import ImageInput, SoundInput
from edgelr.core.modality import modality_of
from edgelr.core.problems import LIBRARY_ERRORS, last_line, machine_problem
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.model.architecture import require_known_tensors, task_for
from edgelr.model.checkpoints.folders import quiet_transformers, require_complete
from edgelr.model.exporter import Exporter, exporter_for
from edgelr.model.first_look import require_exportable
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import LOSSES
from edgelr.model.sites import find_sites
from edgelr.model.small_files import require_tokenizer
from edgelr.model.sources import folder_of, keep_pair
from edgelr.model.token_table import find_table


def load(
    source: str,
    cache: Cache,
    revision: str | None = None,
    trust_remote_code: bool = False,
    task: Task | None = None,
) -> LoadedModel:
    """Load ``source`` in float32.

    Args:
        source: ``.gguf`` file, local Hugging Face folder, ``package.module:factory``, or Hub
            id. A local path is never looked up on the Hub. The factory returns a model, and its
            tokenizer or image processor.
        cache: cache that keeps a GGUF file or a factory's model as a Hugging Face folder.
        revision: branch, tag or commit of a Hub id.
        trust_remote_code: True to run code that comes with the model.
        task: task that it is loaded for; None takes what its configuration tells.

    Raises:
        InputError: the source is none of these, is pickled, is not made for the task, or holds
            weights that are not finite.
    """
    folder = folder_of(source, cache, revision)
    return _from_folder(folder, source, revision, trust_remote_code, task)


def load_in_memory(made: Any, source: str, cache: Cache, task: Task | None = None) -> LoadedModel:
    """Load a model that is in memory already, through a copy on disk that its tracer reads.

    Args:
        made: ``(model, tokenizer)`` or ``(model, processor)`` of transformers.
        source: name of the two, for reports.
        cache: cache that keeps the copy.
        task: task that it is loaded for; None takes what its configuration tells.

    Raises:
        InputError: it is something else, or cannot be compressed.
    """
    return _from_folder(keep_pair(made, source, cache), source, None, False, task)


def _from_folder(
    folder: Path,
    source: str,
    revision: str | None,
    trust_remote_code: bool,
    asked: Task | None,
) -> LoadedModel:
    require_exportable(folder, asked)
    config = _configuration(folder, trust_remote_code)
    exporter = exporter_for(config.model_type)
    task = task_for(asked, config, exporter, folder)
    exporter = exporter.for_task(task)
    _refuse_unknown_head(config, task, source)
    _refuse_mixed_attention(config, task, source)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None and not hasattr(config, "image_size"):
        require_tokenizer(folder, source, rows)
    module = _read_weights(folder, source, exporter, task, trust_remote_code)
    if exporter.prepare is not None:
        exporter.prepare(module)
    module.eval().requires_grad_(False)
    require_finite(module, source)
    modality = modality_of(task, module.main_input_name)
    loss = LOSSES.get(modality)
    with quiet_transformers():  # without torchvision it says so, and does what it is asked to
        fields = loss.fields(module, folder, exporter, task)
    read = fields.get("image") or fields.get("sound")
    dimensions, longest = loss.dimensions(config, exporter, task, read)
    further = [] if task == exporter.tasks[0] else [task, fields.get("mask_token")]
    further += filter(None, [fields.get("sentence_layers")])
    model = LoadedModel(
        module=module,
        exporter=exporter,
        task=task,
        modality=modality,
        folder=folder,
        source=source,
        revision=revision,
        digest=_digest(folder, read, further),
        dimensions=dimensions,
        longest_text=longest,
        **fields,
    )
    return replace(model, sites=find_sites(model), table=find_table(model))


def _digest(folder: Path, read: ImageInput | SoundInput | None, further: list[Any]) -> str:
    """Hash the weights, and further values that decide the graph.

    Args:
        folder: folder of the model.
        read: preparation of its images or sounds, for whose size the graph is traced.
        further: values that tell this task of the weights from the family's first.
    """
    found = file_digest([folder / "config.json", *sorted(folder.glob("*.safetensors"))])
    if read is not None:
        found = digest(found, asdict(read))
    return digest(found, *further) if further else found


def _read_weights(
    folder: Path, source: str, exporter: Exporter, task: Task, trust_remote_code: bool
) -> Any:
    """Read a model in float32, every tensor of it."""
    first = task == exporter.tasks[0]
    try:
        with quiet_transformers():
            module, info = getattr(transformers, TASKS.get(task).auto_class).from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are named below
                **dict(exporter.load_options if first else ()),
            )
    except (*LIBRARY_ERRORS, SafetensorError) as error:
        raise machine_problem(error) or InputError(
            f"The weights of {source} cannot be read ({last_line(error)}); expected a config.json "
            f"that transformers {transformers.__version__} knows, and whole *.safetensors, every "
            f"shard of them. Copy or download the model again."
        ) from error
    require_complete(info, source, not first)
    require_known_tensors(info["unexpected_keys"], module, module.config, task, source)
    return module


def _refuse_unknown_head(config: Any, task: Task, source: str) -> None:
    """Refuse heads that answer with several numbers: the gates judge labels, or one score."""
    loss = TASKS.get(task).loss
    if loss == "label" and config.problem_type == "regression":
        raise InputError(
            f"{source} predicts numbers (problem_type is regression); expected a model that "
            f"labels, or gives one score (--task text-ranking). Give --task feature-extraction to "
            f"compress the model without its head."
        )
    if loss == "score" and config.num_labels != 1:
        raise InputError(
            f"{source} has {config.num_labels} labels; expected one score for --task {task}. Leave "
            f"the option away."
        )


def _refuse_mixed_attention(config: Any, task: Task, source: str) -> None:
    """Refuse decoders of which only some blocks look through a window: their caches differ."""
    windowed = (getattr(config, "layer_types", None) or []).count("sliding_attention")
    if windowed and TASKS.get(task).loss == "next_token":
        raise InputError(
            f"{source} has a sliding window in {windowed} of its {len(config.layer_types)} "
            f"blocks; expected a decoder whose blocks keep the whole context. Give another model."
        )


def require_finite(module: torch.nn.Module, source: str) -> None:
    """Refuse weights that no compression can mean.

    Raises:
        InputError: a parameter holds NaN or infinite values.
    """
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            bad = int((~torch.isfinite(parameter)).sum())
            raise InputError(
                f"{source}: the weight {name} holds {bad:,} NaN or infinite values; expected "
                f"finite numbers. The checkpoint is damaged: download or convert it again."
            )


def _configuration(folder: Path, trust_remote_code: bool) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except LIBRARY_ERRORS as error:
        raise InputError(
            f"{folder} has no configuration that transformers {transformers.__version__} can read "
            f"({error}). Expected config.json of a supported model; --trust-remote-code runs a "
            f"model's own code, if you trust it."
        ) from error
