"""Exports of one small graph, shared by the tests of ONNX sources."""

from __future__ import annotations

from pathlib import Path

from edgelr import pipeline
from edgelr.core.cache import Cache
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import load_profile
from edgelr.stages.subject import Planned
from tests.helpers.run_exports import Recorder


def planned(source: Path, cache: Cache, **options: object) -> Planned:
    settings = make_settings(**{"model": str(source), "profile": "generic-cpu", **options})
    return pipeline.plan(settings, load_profile(settings.profile), Run(cache, Recorder()))


def exported(
    source: Path, out: Path, cache: Cache, recorder: Recorder | None = None, **options: object
) -> Report:
    settings = make_settings(model=str(source), profile="generic-cpu", **options)
    device = load_profile("generic-cpu")
    listener = recorder or Recorder()
    return pipeline.export(settings, device, out, Run(cache, listener), force=True)
