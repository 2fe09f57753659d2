"""The story, from a model and a device to a bundle with its proof. Read this file first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.device.profile import DeviceProfile
from edgelr.model.loaded import LoadedModel
from edgelr.stages.bundle import measure_both, require_provider, validate, write_bundle
from edgelr.stages.bundle_tests import write_tests
from edgelr.stages.calibration_data import calibrate
from edgelr.stages.cost_model import spectra, statistics
from edgelr.stages.factorize import make_factors
from edgelr.stages.objectives import allocate
from edgelr.stages.report import finish, make_report
from edgelr.stages.staging import preflight, require_room, staging
from edgelr.stages.subject import Planned, dense_export, examine, load_model


def plan(
    settings: Settings,
    device: DeviceProfile,
    run: Run,
    out: Path | None = None,
    given_plan: Path | None = None,
    model: LoadedModel | None = None,
) -> Planned:
    """Decide what every linear becomes: load, calibrate, decompose, allocate.

    Args:
        settings: options of the run.
        device: profile that the plan is made for.
        run: cache, listener, clock and seed.
        out: folder where a bundle will be written, if one will.
        given_plan: plan file to follow, possibly edited, instead of the one that is made.
        model: loaded model that the settings name, if it is loaded already.
    """
    run = replace(run, seed=settings.seed)
    with run.time("load"):
        model = model or load_model(settings, run)
        subject = examine(model, settings, device)
    require_room(subject, out, run)
    with run.time("dense export"):
        dense = dense_export(model, run)
    require_provider(settings, dense)
    with run.time("calibration text"):
        calibration = calibrate(subject, dense, run)
    made: Planned | None = None
    for _ in range(settings.rounds):  # a later round sees the model that the one before compressed
        with run.time("statistics"):
            store, key = statistics(subject, calibration, run, made)
        with run.time("decomposition"):
            table = spectra(subject, (store, key), run, calibration, made)
        with run.time("allocation"):
            made = allocate(subject, dense, calibration, store, table, run, given_plan)
    assert made is not None
    run.listener.planned(made.plan, made.budget)
    return made


def export(
    settings: Settings,
    device: DeviceProfile,
    out: Path,
    run: Run,
    force: bool = False,
    given_plan: Path | None = None,
    model: LoadedModel | None = None,
) -> Report:
    """Compress a model for one device, and prove that it still works there.

    The bundle appears at ``out`` in one step, complete with its report; a run that ends before
    leaves nothing there.

    Lifecycle:
        1. ``plan``: load, calibrate, decompose, allocate (every stage is kept in the cache).
        2. Factors, refined and healed as the recipe and the settings say.
        3. The graph, compared with torch, and judged against the original.
        4. Latency and memory, in turns with the original.
        5. The report, and the move to ``out``.

    Args:
        settings: options of the run.
        device: profile that the bundle is made for.
        out: folder of the bundle.
        run: cache, listener, clock and seed.
        force: whether a bundle that is already there is replaced.
        given_plan: plan file to follow, possibly edited.
        model: loaded model that the settings name, if it is loaded already.

    Raises:
        EdgelrError: something that the user can mend; see ``edgelr.core.errors``.
    """
    run = replace(run, seed=settings.seed)
    preflight(out, force, run)
    made = plan(settings, device, run, out, given_plan, model)
    with staging(out, force) as place:
        with run.time("factors"):
            factored = make_factors(made, run)
        with run.time("graph"):
            bundle, twin = write_bundle(made, factored, place)
        with run.time("validation"):
            validation = validate(made, bundle, twin, place, run)
        if settings.with_tests:
            with run.time("tests"):
                text = made.subject.texts.write_judged(place.scratch)
                write_tests(made.dense.bundle, bundle, text, run)
        with run.time("measurement"):
            comparison, dense = measure_both(made, bundle, twin, run)
        report = make_report(made, factored, bundle, validation, comparison, dense, run)
        finish(made, bundle, report)
    return report


def dense_bundle(settings: Settings, run: Run) -> ExportBundle:
    """Export the original model as it is, or find the export: what bundles are compared with."""
    return dense_export(load_model(settings, run), run).bundle
