"""What can be chosen: every entry of every kind, with a line that tells it from the others."""

from __future__ import annotations

import pytest

from edgelr.cli.catalogue import KINDS
from edgelr.commands.list import describe
from edgelr.compress.methods import METHODS
from edgelr.core.errors import InputError
from edgelr.core.tasks import TASKS
from edgelr.device.profile import load_profile
from edgelr.model.exporter import EXPORTERS
from edgelr.planning.recipes import RECIPES


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_can_be_chosen_is_described_in_a_line(kind: str) -> None:
    described = describe(kind)
    assert described
    assert all(name and line and "\n" not in line for name, line in described)
    assert len(dict(described)) == len(described)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"'method'.*methods, allocators"):
        describe("method")
    with pytest.raises(InputError, match=r"'kernels'\. Known: methods"):  # like no other
        describe("kernels")


def test_a_choice_is_described_by_what_it_is_chosen_for() -> None:
    bert = dict(describe("exporters"))["bert"]
    assert all(word in bert for word in (*EXPORTERS.get("bert").model_types, "fill-mask"))
    assert dict(describe("profiles"))["jetson"] == load_profile("jetson").title
    assert dict(describe("methods"))["svd_llm"] == METHODS.get("svd_llm").paper
    assert dict(describe("recipes"))["svd-llm"] == RECIPES.get("svd-llm").summary
    assert TASKS.get("fill-mask").metric in dict(describe("tasks"))["fill-mask"]
