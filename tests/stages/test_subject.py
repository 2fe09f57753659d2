"""Subjects: what decides about a run before any computation, and the search for its plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgelr import pipeline
from edgelr.core.run import Run
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.planning.allocate import Search
from edgelr.stages.subject import Planned, Subject, make_search
from tests.helpers.run_exports import Recorder, quick_settings, session_cache


@pytest.fixture(scope="module")
def made(tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A plan that may choose between all precisions."""
    settings = quick_settings(tiny_decoder.folder, precision="auto", keep=0.5)
    run = Run(session_cache(tmp_path_factory), Recorder())
    return pipeline.plan(settings, load_profile("generic-cpu"), run)


def precisions(search: Search) -> set[WeightPrecision]:
    """Precisions that groups may have."""
    options = (each for option in search.options for each in (option.dense, *option.compressed))
    return {each.precision for each in options}


def with_drop(subject: Subject, max_drop: float | None) -> Subject:
    return replace(subject, settings=replace(subject.settings, keep=None, max_drop=max_drop))


def test_a_drop_that_is_asked_for_wins_over_the_one_of_the_device(made: Planned) -> None:
    subject = made.subject
    allowed = subject.device.gate.max_perplexity_increase.value
    assert with_drop(subject, None).max_drop == allowed
    assert with_drop(subject, 2 * allowed).max_drop == 2 * allowed


def test_a_search_offers_the_precisions_of_the_subject_or_those_that_are_named(
    made: Planned,
) -> None:
    subject = made.subject
    few = {"int2_b64"}  # whose kernels fill inputs up to 256
    assert precisions(make_search(subject, made.spectra)) == {"float32", *LAYOUTS} - few
    for named in ("float32", "int4"):
        search = make_search(subject, made.spectra, (named,))
        assert precisions(search) == {named}
        assert [group.name for group in search.groups] == [
            group.name for group in subject.planned_groups
        ]


def test_a_search_has_ranks_of_the_steps_of_the_device(made: Planned) -> None:
    step = made.subject.device.rank_multiple
    search = make_search(made.subject, made.spectra, ("float32",))
    ranks = {each.rank for option in search.options for each in option.compressed}
    assert len(ranks) > 1
    assert all(rank % step == 0 for rank in ranks)


def test_a_subject_is_all_of_its_linears_unless_it_says_otherwise(made: Planned) -> None:
    subject = made.subject
    assert subject.planned_groups == subject.groups
    assert subject.multiplied == subject.sites
    assert subject.planned_parameters == sum(site.parameters for site in subject.sites)
    assert [site for group in subject.groups for site in group.sites] == list(subject.sites)
