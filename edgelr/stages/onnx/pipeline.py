"""The story of an ``.onnx`` file, with the stages and the results that other sources have."""

from __future__ import annotations

from pathlib import Path

from edgelr.core.report import Report
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.device.profile import DeviceProfile
from edgelr.stages import bundle_tests as regression
from edgelr.stages import staging as workplace
from edgelr.stages.onnx import proof
from edgelr.stages.onnx.planning import Planned, make_plan
from edgelr.stages.onnx.result import finish, make_report
from edgelr.stages.onnx.subject import examine


def plan(
    settings: Settings,
    device: DeviceProfile,
    run: Run,
    given_plan: Path | None = None,
) -> Planned:
    """Decide what every linear of a graph becomes; the arguments are those of other sources."""
    with run.time("load"):
        subject = examine(settings, device, run)
    with run.time("allocation"):
        made = make_plan(subject, run, given_plan)
    run.listener.planned(made.plan, made.budget)
    return made


def export(
    settings: Settings,
    device: DeviceProfile,
    out: Path,
    run: Run,
    force: bool = False,
    given_plan: Path | None = None,
) -> Report:
    """Compress a graph for one device, and prove that it still works there.

    Raises:
        EdgelrError: something that the user can mend; see ``edgelr.core.errors``.
    """
    workplace.preflight(out, force, run)
    made = plan(settings, device, run, given_plan)
    with workplace.staging(out, force) as place:
        with run.time("graph"):
            bundle = proof.write_bundle(made, place.bundle)
        with run.time("validation"):
            validation = proof.validate(made, bundle, place.scratch, run)
        if settings.with_tests:
            with run.time("tests"):
                regression.write_tests(made.subject.dense, bundle, None, run)
        with run.time("measurement"):
            comparison = proof.measure_both(made.subject, bundle, run)
        report = make_report(made, bundle, validation, comparison, run)
        finish(made, bundle, report)
    return report
