"""The story of an ``.onnx`` file, with the stages and the results that other sources have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.cache import Cache
from edgelr.core.listener import Clock
from edgelr.core.report import Report
from edgelr.core.settings import Settings
from edgelr.device.profile import DeviceProfile
from edgelr.stages import bundle_tests as regression
from edgelr.stages import staging as workplace
from edgelr.stages.onnx import proof
from edgelr.stages.onnx.planning import Planned, make_plan
from edgelr.stages.onnx.result import finish, make_report
from edgelr.stages.onnx.subject import examine

if TYPE_CHECKING:
    from edgelr.stages.subject import Listener


def plan(
    settings: Settings,
    device: DeviceProfile,
    cache: Cache,
    listener: Listener,
    clock: Clock,
    given_plan: Path | None = None,
) -> Planned:
    """Decide what every linear of a graph becomes; the arguments are those of other sources."""
    with clock.time("load"):
        subject = examine(settings, device, cache, listener)
    with clock.time("allocation"):
        made = make_plan(subject, cache, listener, given_plan)
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
) -> Report:
    """Compress a graph for one device, and prove that it still works there.

    Raises:
        EdgelrError: something that the user can mend; see ``edgelr.core.errors``.
    """
    clock = Clock()
    workplace.preflight(out, force, cache)
    made = plan(settings, device, cache, listener, clock, given_plan)
    with workplace.workplace(out, force) as place:
        with clock.time("graph"):
            bundle = proof.write_bundle(made, place.bundle)
        with clock.time("validation"):
            validation = proof.validate(made, bundle, place.scratch, listener)
        if settings.with_tests:
            with clock.time("tests"):
                regression.write_tests(made.subject.dense, bundle, None, listener)
        with clock.time("measurement"):
            comparison = proof.measure_both(made.subject, bundle, listener)
        report = make_report(made, bundle, validation, comparison, clock.seconds, command)
        finish(made, bundle, report)
    return report
