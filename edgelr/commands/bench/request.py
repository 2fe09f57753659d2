"""What a bench is asked to compare, and how the command line spells it."""

from __future__ import annotations

from dataclasses import dataclass

from edgelr.core.errors import InputError
from edgelr.core.settings import Settings
from edgelr.core.units import read_option, share
from edgelr.planning.recipes import RECIPES

DEFAULT_RECIPE = Settings.recipe


@dataclass(frozen=True)
class BenchRequest:
    """What is compared.

    Attributes:
        settings: options that the rows share; recipe and share are set row by row.
        recipes: names, in the order of the tables.
        keeps: shares of the factorizable weights.
        evaluation: files to judge on; without any, the text that ships with Python.
        tokens: number of tokens of each text, from its beginning.
        length: tokens of a row; None takes the usual number.
    """

    settings: Settings
    recipes: tuple[str, ...]
    keeps: tuple[float, ...]
    evaluation: tuple[str, ...] = ()
    tokens: int = 16384
    length: int | None = None


def read_keeps(text: str) -> tuple[float, ...]:
    """Read shares such as ``0.9,0.8`` or ``90%,80%``.

    Raises:
        InputError: there is none, or one is no share.
    """
    keeps = tuple(dict.fromkeys(read_option("--keep", share, part) for part in _split(text)))
    if not keeps:
        raise InputError("--keep names no share; expected some, such as --keep 0.9,0.8.")
    return keeps


def read_recipes(text: str | None) -> tuple[str, ...]:
    """Read names such as ``edgelr,svd``; None takes every recipe, the default one first.

    Raises:
        InputError: there is none, or one is unknown.
    """
    if text is None:
        return tuple(sorted(RECIPES.names(), key=lambda name: (name != DEFAULT_RECIPE, name)))
    names = tuple(dict.fromkeys(_split(text)))
    if not names:
        raise InputError(
            f"--recipes is {text!r}; expected names, separated by commas. Give for instance "
            f"--recipes edgelr,svd, or leave it away to compare all."
        )
    for name in names:
        RECIPES.get(name)
    return names


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
