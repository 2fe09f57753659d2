"""Models of transformers as a source: loaded once, from their name or from memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.stages.sources.transformers import ModelSource
from tests.helpers.run_exports import Recorder, quick_settings, session_cache


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(session_cache(tmp_path_factory), Recorder())


def test_a_model_is_loaded_once(tiny_encoder: LoadedModel, run: Run) -> None:
    source = ModelSource()
    settings = quick_settings(tiny_encoder.folder)
    subject = source.subject(settings, load_profile("generic-cpu"), run)
    assert source.model(settings, run) is subject.model
    assert source.subject(settings, load_profile("jetson"), run).model is subject.model


def test_a_model_in_memory_is_taken_as_it_is(
    tiny_encoder: LoadedModel, tmp_path: Path, run: Run
) -> None:
    source = ModelSource(tiny_encoder)
    settings = quick_settings("a name that nothing has")
    subject = source.subject(settings, load_profile("generic-cpu"), run)
    assert subject.model.module is tiny_encoder.module
    sites, values = source.singular_values(settings, Run(Cache(tmp_path)))
    assert sites == tiny_encoder.sites
    largest = values(sites[0])
    assert len(largest) == min(sites[0].in_features, sites[0].out_features)
    assert (largest[:-1] >= largest[1:]).all()
