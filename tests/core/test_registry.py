"""Registries: what is registered can be found, and what is found makes sense."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from edgelr.compress.methods import METHODS, Need
from edgelr.core.errors import InputError
from edgelr.core.registry import Registry
from edgelr.core.settings import make_settings
from edgelr.core.vocabulary import Form, Grouping
from edgelr.model.exporter import EXPORTERS
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.recipes import RECIPES, Recipe, changed_recipe

REGISTRIES: list[Registry[Any]] = [METHODS, ALLOCATORS, RECIPES, EXPORTERS]
every_registry = pytest.mark.parametrize("registry", REGISTRIES, ids=lambda each: each.kind)


@every_registry
def test_every_registry_has_entries_sorted_by_name(registry: Registry[Any]) -> None:
    names = registry.names()
    assert names == sorted(names) == [name for name, _ in registry.items()]
    assert len(names) >= 2
    assert all(registry.get(name) is value for name, value in registry.items())


@every_registry
def test_an_unknown_name_gets_suggestions(registry: Registry[Any]) -> None:
    name = registry.names()[0]
    with pytest.raises(InputError) as caught:
        registry.get(name + "x")
    assert f"Unknown {registry.kind} '{name}x'. Did you mean {name}" in str(caught.value)
    assert ", ".join(registry.names()) in str(caught.value)


def test_a_name_like_no_other_gets_the_whole_list_only() -> None:
    with pytest.raises(InputError) as caught:
        METHODS.get("%%%")
    assert "Did you mean" not in str(caught.value)
    assert "Known: " in str(caught.value)


def test_a_name_is_registered_once() -> None:
    registry: Registry[object] = Registry("thing")
    value = registry.register("one")(object())
    assert registry.register("one")(value) is value
    with pytest.raises(ValueError, match="thing 'one' is registered twice"):
        registry.register("one")(object())


def test_modules_of_a_package_are_imported_at_the_first_look_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "plugins_of_a_test").mkdir()
    (tmp_path / "plugins_of_a_test" / "__init__.py").touch()
    (tmp_path / "plugins_of_a_test" / "one.py").write_text("loaded = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[object] = Registry("thing", package="plugins_of_a_test")
    assert "plugins_of_a_test" not in sys.modules
    assert registry.names() == []
    assert sys.modules.pop("plugins_of_a_test.one").loaded


def test_entry_points_add_names_and_replace_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> str:
            assert self.name == "theirs", "imported for nothing"
            return f"{self.name} of a plugin"

    entries = {"a.group": [Entry("ours"), Entry("theirs")]}
    monkeypatch.setattr("edgelr.core.registry.entry_points", lambda group: entries[group])
    registry: Registry[str] = Registry("thing", group="a.group")
    registry.register("ours")("ours")
    assert dict(registry.items()) == {"ours": "ours", "theirs": "theirs of a plugin"}


# --- what the entries say --------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES.names())
def test_every_recipe_is_a_point_on_known_axes(name: str) -> None:
    recipe = RECIPES.get(name)
    assert recipe.name == name
    assert recipe.method in METHODS.names()
    assert recipe.allocator in ALLOCATORS.names()
    assert recipe.grouping in get_args(Grouping)
    assert METHODS.get(recipe.method).forms >= set(recipe.forms)
    settings = make_settings(model="m", method=recipe.method)
    assert changed_recipe(recipe, settings).grouping == recipe.grouping, "its axes go together"
    assert recipe.summary
    assert set(recipe.forms) <= set(Form.__args__)
    assert set(recipe.forms) - {"dense"}


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_needs_what_the_pass_collects(name: str) -> None:
    assert METHODS.get(name).needs <= set(Need.__args__)
    assert METHODS.get(name).decompose.__doc__


def change(recipe: str = "edgelr", **axes: Any) -> Recipe:
    return changed_recipe(RECIPES.get(recipe), make_settings(model="m", **axes))


def test_axes_that_were_not_named_follow_those_that_were() -> None:
    assert change("tied-pair", allocator="uniform").grouping == "one"
    assert change("input-sharing", method="nmf").grouping == "one"
    assert change(method="kronecker").forms == ("dense", "kronecker")
    assert change(method="nmf").importance is None
    assert change(method="svd_llm").importance == "surgery"
    assert change(grouping="any").importance is None
    assert change("soco", grouping="one").importance == "soco"
    assert change(forms=("low_rank",)).name == "edgelr (changed: forms)"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"allocator": "uniform", "grouping": "any"}, "cannot choose between them"),
        ({"method": "nmf", "grouping": "blocks"}, "'nmf' are not nested"),
        ({"method": "input_space", "grouping": "any"}, "'input_space' are not nested"),
        ({"forms": ("dense", "kronecker")}, "'fisher' cannot make the forms"),
        ({"method": "kronecker", "forms": ("low_rank",)}, "'kronecker' cannot make the forms"),
        ({"recipe": "mpifa", "method": "svd"}, "'svd' does not look at inputs"),
        ({"method": "fischer"}, "Did you mean fisher"),
        ({"allocator": "unifrom"}, "Did you mean uniform"),
    ],
)
def test_axes_that_do_not_go_together_are_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        change(**axes)


# --- an addition from outside ----------------------------------------------------------------

PLUGIN = """
from edgelr.compress.methods import Method
from edgelr.compress.methods.metric import factorize_between
from edgelr.planning.recipes import Recipe


def metric(statistics):
    return None, None


def plain(weight, statistics):
    return factorize_between(weight, *metric(statistics))


METHOD = Method(plain, metric, frozenset(), "nobody, 2026")
RECIPE = Recipe(name="outside", method="outside", summary="from another package")
"""
ENTRY_POINTS = """
[edgelr.methods]
outside = plugin_of_another_package:METHOD
[edgelr.recipes]
outside = plugin_of_another_package:RECIPE
"""


USE = """
import torch
from edgelr.commands.list import describe
from edgelr.compress.methods import METHODS, SiteStatistics
from edgelr.planning.recipes import RECIPES

method = METHODS.get(RECIPES.get("outside").method)
print(len(method.decompose(torch.eye(3).double(), SiteStatistics(None, None)).loss))
for kind in ("methods", "recipes"):
    print(dict(describe(kind))["outside"])
"""


def test_a_method_of_another_package_needs_one_file_and_an_entry_point(tmp_path: Path) -> None:
    """An installed package that edgelr has never heard of adds a method and a recipe."""
    (tmp_path / "plugin_of_another_package.py").write_text(PLUGIN)
    (tmp_path / "another-1.0.dist-info").mkdir()
    (tmp_path / "another-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "another-1.0.dist-info" / "METADATA").write_text("Name: another\nVersion: 1.0\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", USE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loss, method, recipe = done.stdout.splitlines()
    assert loss == "4"
    assert "nobody, 2026" in method
    assert "from another package" in recipe
