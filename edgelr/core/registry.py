"""Named, open choices: methods, allocators, exporters, evaluators, tasks, modalities."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from edgelr.core.errors import InputError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to values, filled by the modules of ``package`` and by entry points of ``group``.

    Nothing is imported before the first look-up, so that listing one kind of thing never pays
    for another.

    Args:
        kind: singular noun for messages, for instance ``"method"``.
        package: package whose every module is imported, to register the built-in values: a new
            one needs a new file, and no list to be entered in.
        group: entry-point group through which other packages add values.
    """

    def __init__(self, kind: str, package: str | None = None, group: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._group = group
        self._values: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that stores its argument under ``name``."""

        def store(value: T) -> T:
            if name in self._values and self._values[name] is not value:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._values[name] = value
            return value

        return store

    def names(self) -> list[str]:
        """List the registered names, sorted."""
        return sorted(self._load())

    def get(self, name: str) -> T:
        """Look up ``name``.

        Raises:
            InputError: the name is unknown; close names are suggested.
        """
        values = self._load()
        if name not in values:
            raise InputError(
                f"Unknown {self.kind} {name!r}.{did_you_mean(name, values)} "
                f"Known: {', '.join(sorted(values))}."
            )
        return values[name]

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over ``(name, value)``, sorted by name."""
        yield from sorted(self._load().items())

    def _load(self) -> dict[str, T]:
        if not self._loaded:
            self._loaded = True
            if self._package:
                folders = importlib.import_module(self._package).__path__
                for module in pkgutil.iter_modules(folders, f"{self._package}."):
                    importlib.import_module(module.name)
            if self._group:
                for entry in entry_points(group=self._group):
                    if entry.name not in self._values:
                        self._values[entry.name] = entry.load()
        return self._values
