"""The story, from a model and a device to a bundle with its proof. Read this file first."""

from __future__ import annotations

from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import Cache
from edgelr.core.listener import Clock
from edgelr.core.report import Report
from edgelr.core.settings import Settings
from edgelr.device.profile import DeviceProfile
from edgelr.model.loaded import LoadedModel
from edgelr.stages import bundle as delivery
from edgelr.stages import bundle_tests as regression
from edgelr.stages import calibration_data as material
from edgelr.stages import cost_model as costs
from edgelr.stages import factorize as factoring
from edgelr.stages import objectives as aims
from edgelr.stages import report as reporting
from edgelr.stages import staging as workplace
from edgelr.stages import subject as planning
from edgelr.stages.subject import Listener, Planned


def plan(
    settings: Settings,
    device: DeviceProfile,
    cache: Cache,
    listener: Listener,
    clock: Clock,
    out: Path | None = None,
    given_plan: Path | None = None,
    model: LoadedModel | None = None,
) -> Planned:
    """Decide what every linear becomes: load, calibrate, decompose, allocate.

    Args:
        settings: what is asked for.
        device: what it is for.
        cache: finished stages; what is there is not computed again.
        listener: hears of progress.
        clock: takes the time of each stage.
        out: where a bundle will be written, if one will.
        given_plan: a plan to follow, possibly edited, instead of the one that is made.
        model: what the settings name, where it is loaded already.
    """
    with clock.time("load"):
        model = model or planning.load_model(settings, cache)
        subject = planning.examine(model, settings, device)
    workplace.require_room(subject, out or cache.root, cache)
    with clock.time("dense export"):
        dense = planning.dense_export(model, cache, listener)
    delivery.require_provider(settings, dense)
    with clock.time("calibration text"):
        calibration = material.calibrate(subject, dense, cache, listener)
    made: Planned | None = None
    for _ in range(settings.rounds):  # a later round sees the model that the one before compressed
        with clock.time("statistics"):
            store, key = costs.statistics(subject, calibration, cache, listener, made)
        with clock.time("decomposition"):
            spectra = costs.spectra(subject, (store, key), cache, listener, calibration, made)
        with clock.time("allocation"):
            made = aims.allocate(subject, dense, calibration, store, spectra, listener, given_plan)
    assert made is not None
    listener.planned(made.plan, made.budget)
    return made


def export(
    settings: Settings,
    device: DeviceProfile,
    out: Path,
    cache: Cache,
    listener: Listener,
    command: str,
    force: bool = False,
    given_plan: Path | None = None,
    model: LoadedModel | None = None,
) -> Report:
    """Compress a model for one device, and prove that it still works there.

    The bundle appears at ``out`` in one step, complete with its report; a run that ends before
    leaves nothing there.

    Args:
        settings: what is asked for.
        device: what it is for.
        out: the folder of the bundle.
        cache: finished stages.
        listener: hears of progress.
        command: how the run was started, for the report.
        force: replace a bundle that is already there.
        given_plan: a plan to follow, possibly edited.
        model: what the settings name, where it is loaded already.

    Raises:
        EdgelrError: something that the user can mend; see ``edgelr.core.errors``.
    """
    clock = Clock()
    workplace.preflight(out, force, cache)
    made = plan(settings, device, cache, listener, clock, out, given_plan, model)
    with workplace.workplace(out, force) as place:
        with clock.time("factors"):
            factored = factoring.make_factors(made, cache, listener)
        with clock.time("graph"):
            bundle, twin = delivery.write_bundle(made, factored, place)
        with clock.time("validation"):
            validation = delivery.validate(made, bundle, twin, place, listener)
        if settings.with_tests:
            with clock.time("tests"):
                text = made.subject.texts.write_judged(place.scratch)
                regression.write_tests(made.dense.bundle, bundle, text, listener)
        with clock.time("measurement"):
            comparison, dense = delivery.measure_both(made, bundle, twin, cache, listener)
        report = reporting.make_report(
            made, factored, bundle, validation, comparison, dense, clock.seconds, command
        )
        reporting.finish(made, bundle, report)
    return report


def dense_bundle(settings: Settings, cache: Cache, listener: Listener) -> ExportBundle:
    """Export the original model as it is, or find the export: what bundles are compared with."""
    return planning.dense_export(planning.load_model(settings, cache), cache, listener).bundle
