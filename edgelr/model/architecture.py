"""The task that a configuration names, and the tensors that its architecture does not know.

A head that edgelr does not export, and a tensor that no module reads, are refused by name: to leave
them away in silence would make another model of the user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from edgelr.core.errors import InputError
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.model.exporter import Exporter

MODULES = "modules.json"  # of sentence-transformers, see ``sentence_modules``
LANGUAGE_MODELS: tuple[Task, ...] = ("fill-mask", "text-generation")  # what embedders began as
HARMLESS = re.compile(  # tensors that checkpoints hold and no answer depends on
    r"(^|\.)(position_ids|rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$"
    r"|(^|\.)pooler\.dense\.(weight|bias)$"  # where the architecture has no use for it
    r"|^cls\.seq_relationship\.(weight|bias)$"  # BERT's second pretraining, beside the first
)


def task_for(asked: Task | None, config: Any, exporter: Exporter, folder: Path) -> Task:
    """Take the task that was asked for, or the one that the configuration names.

    Args:
        asked: task that was asked for; None reads the configuration.
        config: configuration of the model.
        exporter: family of the model.
        folder: Hugging Face folder of the model.

    Raises:
        InputError: the family is not exported for the task, or the architecture has another head.
    """
    require_task(asked, config.model_type, exporter)
    if asked is not None:
        return asked
    named = list(config.architectures or ())
    if not named:
        return exporter.tasks[0]
    found = [task for task in exporter.tasks if names_task(named, config, task)]
    if not (folder / MODULES).exists():
        return found[0] if found else refuse_head(named, config.model_type, exporter, folder)
    heads = [task for task in found if task not in LANGUAGE_MODELS]
    if heads:
        return heads[0]
    if "feature-extraction" in exporter.tasks:
        return "feature-extraction"
    raise InputError(
        f"{folder} is a model of sentence-transformers ({MODULES}), which embeds texts, and edgelr "
        f"exports models of the type {config.model_type} for {', '.join(exporter.tasks)} alone. "
        f"Expected an encoder, such as BERT. Give --task {exporter.tasks[0]} to compress the model "
        f"that it was made from."
    )


def require_task(asked: Task | None, model_type: str, exporter: Exporter) -> None:
    """Refuse a task that a family is not exported for.

    Raises:
        InputError: it is one.
    """
    if asked is not None and asked not in exporter.tasks:
        raise InputError(
            f"--task is {asked}, but models of the type {model_type} are for "
            f"{', '.join(exporter.tasks)}. Name one of these, or leave --task away."
        )


def names_task(named: Iterable[str], config: Any, task: Task) -> bool:
    """Tell whether one of these architectures is transformers' class for a task.

    A class that labels gives a score, where it has one label.
    """
    import transformers

    traits = TASKS.get(task)
    if traits.loss == "score" and config.num_labels != 1:
        return False
    mapping: Any = getattr(transformers, traits.auto_class)._model_mapping
    found = mapping.get(type(config), ())
    classes = {each.__name__ for each in (found if isinstance(found, tuple) else (found,))}
    return any(
        name in classes or (traits.architecture and name.endswith(traits.architecture))
        for name in named
    )


def refuse_head(named: list[str], model_type: str, exporter: Exporter, folder: Path) -> NoReturn:
    """Say that an architecture is not exported, and how to leave its head away.

    Raises:
        InputError: always.
    """
    way = next((task for task in exporter.tasks if TASKS.get(task).loss == "embedding"), None)
    raise InputError(
        f"{folder} is a {', '.join(named)}, and edgelr exports models of the type {model_type} for "
        f"{', '.join(exporter.tasks)}. Expected an architecture of one of these tasks. Give --task "
        f"{way or exporter.tasks[0]} to compress the model without this head."
    )


def require_known_tensors(
    unexpected: Iterable[str], module: Any, config: Any, task: Task, source: str
) -> None:
    """Refuse tensors of a checkpoint that its architecture has no use for.

    Those of a head are fine, where the task is another than the head's.

    Args:
        unexpected: names of tensors that the module did not read.
        module: model that was loaded.
        config: its configuration.
        task: task that it was loaded for.
        source: name of the model, for messages.

    Raises:
        InputError: there are others.
    """
    named = list(config.architectures or ())
    body = f"{module.base_model_prefix}."
    without_head = bool(named) and not names_task(named, config, task)
    unknown = sorted(
        name
        for name in unexpected
        if not HARMLESS.search(name)
        if not (without_head and not name.startswith(body))
    )
    if unknown:
        raise InputError(
            f"{source} holds {len(unknown):,} tensors that {type(module).__name__} does not use: "
            f"{', '.join(unknown[:3])}{' …' if len(unknown) > 3 else ''}. Expected those of its "
            f"architecture alone: a graph without them would be another model. Name the right "
            f"architecture in config.json, merge what was trained beside it, or, where they are "
            f"those of a head, give --task."
        )
