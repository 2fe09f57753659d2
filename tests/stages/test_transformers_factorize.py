"""From a plan to factors: what is improved is kept, found again, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgelr import pipeline
from edgelr.compress.decompose import truncate
from edgelr.compress.factors import Factors, FactorSet, Kronecker, LowRank, Tied
from edgelr.compress.spectra import read_factors, write_factors
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.factorize import Factored, make_factors
from tests.helpers.run_exports import Recorder, quick_settings, session_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


def plan_of(model: LoadedModel, run: Run, **changes: Any) -> Planned:
    settings = quick_settings(model.folder, **{"keep": 0.7, **changes})
    return pipeline.plan(settings, load_profile("generic-cpu"), run)


def tensors(factors: Factors) -> list[torch.Tensor]:
    if isinstance(factors, LowRank):
        return [factors.down, factors.up]
    if isinstance(factors, Tied):
        return [factors.weight]
    assert isinstance(factors, Kronecker)
    return [factors.left, factors.right]


def equal(first: FactorSet, second: FactorSet) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(a, b)
        for name in first
        for a, b in zip(tensors(first[name]), tensors(second[name]), strict=True)
    )


def test_plain_factors_are_those_of_the_plan(tiny_decoder: LoadedModel, cache: Cache) -> None:
    made = plan_of(tiny_decoder, Run(cache, Recorder()), recipe="svd-llm")
    found = make_factors(made, Run(cache, Recorder()))
    assert equal(found.factors, truncate(made.spectra, made.plan))
    assert found.notes == ()


def test_a_plan_that_keeps_everything_needs_no_work(
    tiny_decoder: LoadedModel, cache: Cache
) -> None:
    listener = Recorder()
    made = plan_of(tiny_decoder, Run(cache, listener), keep=1.0, heal_steps=3)
    listener.stages.clear()
    assert make_factors(made, Run(cache, listener)) == Factored({})
    assert listener.stages == []


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"recipe": "mpifa"}, "Refitted on the compressed model's own inputs"),
        ({"recipe": "basis-sharing-als"}, "their error fell by"),
        ({"heal_steps": 3}, "Healed by distillation for 3 steps"),
        ({}, "Scales of the kept components"),
    ],
    ids=["refit", "basis", "heal", "scale"],
)
def test_an_improvement_is_told_and_found_again(
    tiny_decoder: LoadedModel, tmp_path: Path, cache: Cache, changes: dict[str, Any], note: str
) -> None:
    made = plan_of(tiny_decoder, Run(cache, Recorder()), **changes)
    own = Cache(tmp_path / "cache")
    first, again = (make_factors(made, Run(own, listener)) for listener in (Recorder(), Recorder()))
    assert any(note in text for text in first.notes)
    assert first.notes == again.notes
    assert equal(first.factors, again.factors)
    assert first.factors.keys() == truncate(made.spectra, made.plan).keys()


def test_a_second_call_does_no_work(
    tiny_decoder: LoadedModel, tmp_path: Path, cache: Cache
) -> None:
    made, own = (
        plan_of(tiny_decoder, Run(cache, Recorder()), heal_steps=3),
        Cache(tmp_path / "cache"),
    )
    make_factors(made, Run(own, Recorder()))
    listener = Recorder()
    make_factors(made, Run(own, listener))
    assert listener.stages == []


def test_an_interrupted_healing_goes_on(
    tiny_decoder: LoadedModel, tmp_path: Path, cache: Cache
) -> None:
    """Interrupted after an evaluation, it ends with the very factors of one run."""

    class Impatient(Recorder):
        def progress(self, what: str, done: int, total: int) -> None:
            if what == "healing" and done > 11:
                raise KeyboardInterrupt

    made = plan_of(tiny_decoder, Run(cache, Recorder()), heal_steps=15)
    whole = make_factors(made, Run(Cache(tmp_path / "a"), Recorder()))
    own = Cache(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        make_factors(made, Run(own, Impatient()))
    assert list(own.root.glob("unfinished-heal*"))
    assert equal(make_factors(made, Run(own, Recorder())).factors, whole.factors)
    assert not list(own.root.glob("unfinished-heal*"))


def test_interrupted_scales_leave_nothing(
    tiny_decoder: LoadedModel, tmp_path: Path, cache: Cache
) -> None:
    class Impatient(Recorder):
        def progress(self, what: str, done: int, total: int) -> None:
            if what == "scales" and done:
                raise KeyboardInterrupt

    made, own = plan_of(tiny_decoder, Run(cache, Recorder())), Cache(tmp_path / "own")
    with pytest.raises(KeyboardInterrupt):
        make_factors(made, Run(own, Impatient()))
    assert not list(own.root.iterdir())


def test_factors_survive_their_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    down, weight = torch.randn(5, 2), torch.randn(5, 7)
    given: FactorSet = {
        "alone": LowRank(torch.randn(4, 3), torch.randn(3, 6)),
        "a.b": LowRank(down, torch.randn(2, 3), "both"),
        "a.c": LowRank(down, torch.randn(2, 4), "both"),
        "up": Tied(weight, False, "pair"),
        "down": Tied(weight, True, "pair"),
        "terms": Kronecker(torch.randn(2, 3, 4), torch.randn(2, 2, 2)),
    }
    write_factors(tmp_path / "factors.safetensors", given)
    found = read_factors(tmp_path / "factors.safetensors")
    assert equal(given, found)
    for name, each in given.items():
        assert type(found[name]) is type(each)
        assert getattr(found[name], "shared", None) == getattr(each, "shared", None)
        assert getattr(found[name], "transposed", None) == getattr(each, "transposed", None)
