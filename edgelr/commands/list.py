"""What can be chosen, for ``edgelr list``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from edgelr.core.errors import InputError


def describe(kind: str) -> list[tuple[str, str]]:
    """List ``(name, one line)`` of a kind of choice.

    Raises:
        InputError: the kind is unknown.
    """
    kinds: dict[str, Callable[[], Iterable[tuple[str, str]]]] = {
        "methods": _methods,
        "allocators": _allocators,
        "recipes": _recipes,
        "roundings": _roundings,
        "exporters": _exporters,
        "profiles": _profiles,
        "evaluators": _evaluators,
        "tasks": _tasks,
    }
    if kind not in kinds:
        close = difflib.get_close_matches(kind, kinds, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"Nothing is called {kind!r}.{hint} Known: {', '.join(kinds)}.")
    return list(kinds[kind]())


def _methods() -> Iterable[tuple[str, str]]:
    from edgelr.compress.methods import METHODS

    return ((name, method.paper) for name, method in METHODS.items())


def _allocators() -> Iterable[tuple[str, str]]:
    from edgelr.planning.allocators import ALLOCATORS

    return ((name, _first_line(allocator)) for name, allocator in ALLOCATORS.items())


def _recipes() -> Iterable[tuple[str, str]]:
    from edgelr.planning.recipes import RECIPES

    return ((name, recipe.summary) for name, recipe in RECIPES.items())


def _roundings() -> Iterable[tuple[str, str]]:
    from edgelr.compress.rounding import ROUNDING

    return ((name, rounding.paper) for name, rounding in ROUNDING.items())


def _exporters() -> Iterable[tuple[str, str]]:
    from edgelr.model.exporter import EXPORTERS

    return (
        (name, f"{', '.join(exporter.model_types)}: {', '.join(exporter.tasks)}")
        for name, exporter in EXPORTERS.items()
    )


def _profiles() -> Iterable[tuple[str, str]]:
    from edgelr.device.profile import load_profile, profile_names

    return ((name, load_profile(name).title) for name in profile_names())


def _evaluators() -> Iterable[tuple[str, str]]:
    from edgelr.runtime.evaluators import EVALUATORS

    return ((name, _first_line(value.compare)) for name, value in EVALUATORS.items())


def _tasks() -> Iterable[tuple[str, str]]:
    from edgelr.core.tasks import TASKS

    return ((name, f"judged by {task.metric}") for name, task in TASKS.items())


def _first_line(value: object) -> str:
    return (value.__doc__ or "").partition("\n")[0]
