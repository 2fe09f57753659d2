"""Bundles of a tiny model as a run writes them, before they are judged and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgelr import pipeline
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.stages.source import Written
from edgelr.stages.sources.transformers import ModelSource
from edgelr.stages.staging import Staging
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.bundle import write_bundle
from edgelr.stages.transformers.factorize import make_factors
from tests.helpers.run_exports import Recorder, make_place, quick_settings

OPSET = 18  # older than what the devices take
CONTEXT_TOKENS = 40  # fewer than the models take
NOTE = "as it was made"
KINDS = {  # what ships: profile, precision and share
    "float32": ("generic-cpu", "float32", 0.6),
    "float16": ("jetson", "float16", 0.6),
    "int8": ("generic-cpu", "int8", 0.45),
}


@dataclass(frozen=True)
class PlannedBundle:
    """A bundle that was written from a plan."""

    source: ModelSource
    planned: Planned
    written: Written
    place: Staging


class PlannedBundles(dict[str, PlannedBundle]):
    """Bundles of one model in every precision of ``KINDS``, written when first asked for.

    They are shared: leave them as they are.
    """

    def __init__(self, model: LoadedModel, cache: Cache, root: Path) -> None:
        super().__init__()
        self._model, self._run, self._root = model, Run(cache, Recorder()), root

    def __missing__(self, kind: str) -> PlannedBundle:
        profile, precision, keep = KINDS[kind]
        asked = {"profile": profile, "precision": precision, "keep": keep, "opset": OPSET}
        asked["context_tokens"] = CONTEXT_TOKENS
        source, settings = ModelSource(self._model), quick_settings(self._model.folder, **asked)
        planned = pipeline.plan(settings, load_profile(profile), self._run, source=source)
        factored = replace(make_factors(planned, self._run), notes=(NOTE,))
        place = make_place(self._root / kind)
        written = write_bundle(planned, factored, place)
        self[kind] = PlannedBundle(source, planned, written, place)
        return self[kind]
