"""What is refused before any work: settings that do not fit a model, or what it is for."""

from __future__ import annotations

from edgelr.core.errors import InputError
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import WEIGHT_BITS, WeightPrecision
from edgelr.data.calibration import load_tokenizer
from edgelr.model.generate import start_of
from edgelr.model.loaded import LoadedModel
from edgelr.planning.recipes import Recipe


def require_lengths(model: LoadedModel, settings: Settings, longest: int) -> None:
    """Refuse rows that the model cannot read.

    An image or a sound has one length, which is not asked for; the text of a sound has any.
    """
    if model.sound is not None and settings.calibration_length is not None:
        raise InputError(
            f"--calibration-length asks for {settings.calibration_length:,} tokens; "
            f"{model.source} makes {model.sound.tokens:,} of every sound. Leave the option away."
        )
    asked = {"context": settings.context_tokens, "calibration-length": settings.calibration_length}
    for name, tokens in asked.items():
        if tokens is not None and (tokens > longest or model.image is not None):
            known = "for every image" if model.image else "at most (max_position_embeddings)"
            raise InputError(
                f"--{name} asks for {tokens:,} tokens; {model.source} takes {longest:,} {known}. "
                f"{'Leave the option away' if model.image else 'Give a smaller number'}."
            )


def require_floats(sites: tuple[LinearSite, ...], weights: tuple[WeightPrecision, ...]) -> None:
    """Refuse whole numbers for convolutions: MatMulNBits multiplies matrices."""
    convolutions = [site.name for site in sites if site.kernel]
    if convolutions and set(weights) & set(WEIGHT_BITS):
        raise InputError(
            f"--precision int8, int4 and auto store matrices, and {len(convolutions)} linears of "
            f"this model are convolutions ({convolutions[0]}). Expected fp32 or fp16."
        )


def require_no_labels(model: LoadedModel, settings: Settings) -> None:
    """Refuse labels for what compares nothing with them."""
    if settings.labels is not None:
        raise InputError(
            f"--labels is for models that compare images with texts; {model.source} is for "
            f"{model.task}. Leave the option away."
        )


def require_for_task(model: LoadedModel, settings: Settings, recipe: Recipe) -> None:
    """Refuse what is not made for what a model is for."""
    if model.sound is not None:  # what is missed later otherwise: no text is read, but written
        load_tokenizer(model.folder)
        start_of(model)
    if not _has_two_graphs(model):
        return
    asked = {
        "healing": settings.heal_steps is not None or settings.heal_minutes is not None,
        "--max-latency": settings.max_latency is not None,
        "--with-tests": settings.with_tests
        and (model.sound is not None or TASKS.get(model.task).matches),
        f"the recipe {recipe.name}": "refit" in recipe.refine or recipe.importance == "soco",
    }
    for what, wanted in asked.items():
        if wanted:
            refuse_pairs(model, what)


def refuse_pairs(model: LoadedModel, what: str) -> None:
    """Refuse a model of two graphs: an encoder and a decoder, or one of texts and one of images.

    Raises:
        InputError: it is one.
    """
    if _has_two_graphs(model):
        parts = "an encoder and a decoder"
        if TASKS.get(model.task).matches:
            parts = "a graph of texts and one of images"
        raise InputError(
            f"{model.source} has {parts} (task {model.task}), and {what} takes "
            f"models of one graph only. Use 'edgelr export' with --keep, --max-size or --max-drop, "
            f"and a recipe without refit: docs/models.md says what else works."
        )


def _has_two_graphs(model: LoadedModel) -> bool:
    traits = TASKS.get(model.task)
    return traits.has_pairs or traits.matches
