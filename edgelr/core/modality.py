"""Modalities: the kinds of models, by what they read and how they answer.

What differs between them is code in registries that are keyed by a modality's name: how a run's
data become rows (``stages.rows``), how a torch model is run and differentiated (``model.losses``),
how a graph is run and timed (``runtime.runners``), what the tests of a bundle compare with
(``runtime.reference_tests``), and which program its card shows (``report.usage``). A further
modality is one file for each, and no edit elsewhere; see ``tests/runtime/test_new_modality.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgelr.core.errors import InputError
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import Task


@dataclass(frozen=True, slots=True)
class Modality:
    """One kind of model.

    Attributes:
        name: key of the registries, and the manifest's value.
        tasks: tasks of such models.
        reads: noun for one input, for messages: ``text``, ``image``, ``sound`` or ``sample``.
        main_input: transformers' name of what is read; tells modalities of one task apart.
        graph: stem of the graph file that answers.
        beside: stem of the graph file beside it, with which it shares its weights: an encoder's
            beside its decoder's, that of texts beside that of images. None where there is none.
    """

    name: str
    tasks: tuple[Task, ...]
    reads: str
    main_input: str
    graph: str = "model"
    beside: str | None = None


MODALITIES: Registry[Modality] = Registry("modality", group="edgelr.modalities")

DECODER = "decoder"
TENSORS = "tensors"

for _modality in (
    Modality(DECODER, ("text-generation",), "text", "input_ids"),
    Modality(
        "text_encoder",
        ("feature-extraction", "text-classification", "token-classification", "fill-mask"),
        "text",
        "input_ids",
    ),
    Modality("text_pair", ("text-ranking",), "text", "input_ids"),
    Modality(
        "image_encoder", ("image-classification", "feature-extraction"), "image", "pixel_values"
    ),
    Modality(  # optimum's names of the graphs
        "encoder_decoder",
        ("text2text-generation",),
        "text",
        "input_ids",
        graph="decoder_with_past_model",
        beside="encoder_model",
    ),
    Modality(
        "speech",
        ("automatic-speech-recognition",),
        "sound",
        "input_features",
        graph="decoder_with_past_model",
        beside="encoder_model",
    ),
    Modality(
        "dual_encoder",
        ("zero-shot-image-classification",),
        "image",
        "input_ids",
        graph="vision_model",
        beside="text_model",
    ),
    Modality(TENSORS, ("tensors",), "sample", ""),
):
    MODALITIES.register(_modality.name)(_modality)


def modality_of(task: Task, main_input: str) -> str:
    """Name the modality of a model.

    Args:
        task: task that it is loaded for.
        main_input: transformers' name of what it reads, such as ``pixel_values``.

    Raises:
        InputError: no modality has this task and input.
    """
    of_task = [each for _, each in MODALITIES.items() if task in each.tasks]
    of_input = [each for each in of_task if each.main_input == main_input]
    found = of_task if len(of_task) == 1 else of_input
    if len(found) != 1:
        raise InputError(
            f"No modality is known for the task {task} of a model that reads {main_input}. "
            f"Expected one of: {', '.join(each.main_input for each in of_task)}."
        )
    return found[0].name
