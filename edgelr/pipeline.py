"""The story, from a model and a device to a bundle with its proof. Read this file first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgelr.core.bundle import ExportBundle
from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.device.profile import DeviceProfile
from edgelr.stages.bundle import measure_both, require_provider, validate
from edgelr.stages.bundle_tests import write_tests
from edgelr.stages.objectives import allocate
from edgelr.stages.preflight import preflight, require_place
from edgelr.stages.report import finish, make_report
from edgelr.stages.rivals import with_rivals
from edgelr.stages.source import Source, open_source
from edgelr.stages.staging import require_room, staging
from edgelr.stages.subject import Planned


def plan(
    settings: Settings,
    device: DeviceProfile,
    run: Run,
    out: Path | None = None,
    given_plan: Path | None = None,
    source: Source | None = None,
) -> Planned[Any, Any]:
    """Decide what every linear becomes: load, calibrate, decompose, allocate.

    Args:
        settings: options of the run.
        device: profile that the plan is made for.
        run: cache, listener and clock.
        out: folder where a bundle will be written, if one will.
        given_plan: plan file to follow, possibly edited, instead of the one that is made.
        source: original; None opens the one that the settings name.
    """
    run = replace(run, seed=settings.seed)
    preflight(settings, out, run, given_plan)
    source = source or open_source(settings)
    with run.time("load"):
        subject = source.subject(settings, device, run)
    require_room(subject.room, out, run)
    with run.time("dense export"):
        subject, dense = source.dense(subject, run)
    require_provider(settings, dense)
    made: Planned[Any, Any] | None = None
    for _ in range(settings.rounds):  # a later round sees the model that the one before compressed
        costs = source.costs(subject, dense, run, made)
        with run.time("allocation"):
            made = allocate(source, subject, dense, costs, run, given_plan)
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
    source: Source | None = None,
) -> Report:
    """Compress a model for one device, and prove that it still works there.

    The bundle appears at ``out`` in one step, complete with its report; a run that ends before
    leaves nothing there.

    Lifecycle:
        1. ``plan``: load, calibrate, decompose, allocate; every stage is kept in the cache.
        2. Factors, refined and healed as the recipe and the settings say, and the graph.
        3. Parity with what the factors compute, accuracy against the original, the gate.
        4. Latency and memory, in turns with the original.
        5. The original in int8 and int4, judged and timed in the same way: what to ship.
        6. The report, and the move to ``out``.

    Args:
        settings: options of the run.
        device: profile that the bundle is made for.
        out: folder of the bundle.
        run: cache, listener and clock.
        force: whether a bundle that is already there is replaced.
        given_plan: plan file to follow, possibly edited.
        source: original; None opens the one that the settings name.

    Raises:
        EdgelrError: something that the user can mend; see ``edgelr.core.errors``.
    """
    require_place(out, force, settings.model, run)
    source = source or open_source(settings)
    made = plan(settings, device, run, out, given_plan, source)
    with staging(out, force) as place:
        written = source.write(made, place, replace(run, seed=settings.seed))
        with run.time("validation"):
            validation = validate(source, made, written, place, run)
        if settings.with_tests:
            with run.time("tests"):
                data = made.subject.write_judged(place.scratch)
                write_tests(made.dense.bundle, written.bundle, data, run)
        with run.time("measurement"):
            comparison, dense = measure_both(source, made, written, run)
        report = make_report(source, made, written, validation, comparison, dense, run)
        if settings.rivals:
            report = with_rivals(report, source, made, dense, run)
        finish(source, made, written.bundle, report)
    return report


def dense_bundle(settings: Settings, run: Run) -> ExportBundle:
    """Export the original as it is, or find the export: what bundles are compared with."""
    return open_source(settings).dense_bundle(settings, run)
