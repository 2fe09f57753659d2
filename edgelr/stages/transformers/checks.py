"""Checks before any work: settings that do not fit a model, or what it is for."""

from __future__ import annotations

from edgelr.core.errors import InputError
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.model.loaded import LoadedModel
from edgelr.planning.recipes import Recipe
from edgelr.runtime.reference_tests import REFERENCE_TESTS
from edgelr.stages.transformers.rows import rows_of


def require_floats(sites: tuple[LinearSite, ...], weights: tuple[WeightPrecision, ...]) -> None:
    """Refuse quantized convolutions: MatMulNBits multiplies matrices.

    Where a precision is chosen for every linear, they stay in float.

    Raises:
        InputError: some sites are convolutions, and one such precision is asked for.
    """
    convolutions = [site.name for site in sites if site.kernel]
    if convolutions and set(weights) <= set(LAYOUTS):
        raise InputError(
            f"--precision {weights[0]} stores matrices, and {len(convolutions)} linears of this "
            f"model are convolutions ({convolutions[0]}). Expected fp32, fp16 or auto, which "
            f"leaves them in float."
        )


def require_one_graph(model: LoadedModel, what: str) -> None:
    """Refuse a model of two graphs: an encoder and a decoder, or one of texts and one of images.

    Raises:
        InputError: it is one.
    """
    if graphs := rows_of(model).graphs:
        raise InputError(
            f"{model.source} has {graphs} (task {model.task}), and {what} takes "
            f"models of one graph only. Use 'edgelr export' with --keep, --max-size or --max-drop, "
            f"and a recipe without refit: docs/models.md says what else works."
        )


def require_two_graphs_fit(model: LoadedModel, settings: Settings, recipe: Recipe) -> None:
    """Refuse what takes models of one graph, for a model of two.

    Raises:
        InputError: the settings or the recipe ask for it.
    """
    asked = {
        "healing": settings.heal_steps is not None or settings.heal_minutes is not None,
        "--max-latency": settings.max_latency is not None,
        f"the recipe {recipe.name}": "refit" in recipe.refine or recipe.importance == "soco",
    }
    for what, wanted in asked.items():
        if wanted:
            require_one_graph(model, what)


def require_tests(model: LoadedModel, settings: Settings) -> None:
    """Refuse tests inside the bundle of a modality that has none.

    Raises:
        InputError: they are asked for.
    """
    if settings.with_tests and model.modality not in REFERENCE_TESTS.names():
        raise InputError(
            f"--with-tests writes tests into the bundle, and there are none for models like "
            f"{model.source} (task {model.task}). Leave the option away."
        )
