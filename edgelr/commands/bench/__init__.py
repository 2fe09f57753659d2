"""``edgelr bench methods``: every recipe at every share, judged on the same texts.

Model, dense export and calibration are common to all rows. Statistics and decompositions are made
once per recipe, in one round; a share then costs a plan, its factors and an evaluation in torch. A
finished row is kept on disk, and found again by the hash of everything that decides it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from edgelr.commands.bench.request import DEFAULT_RECIPE, BenchRequest, read_keeps, read_recipes
from edgelr.commands.bench.results import RowBook
from edgelr.commands.bench.rows import Rows
from edgelr.commands.bench.setup import Ground, common_ground
from edgelr.core.run import Run
from edgelr.core.tasks import TASKS
from edgelr.device.profile import DeviceProfile
from edgelr.report.comparison import JudgedText, MethodBench, Row
from edgelr.report.comparison_tables import to_markdown
from edgelr.report.plot import write_plot
from edgelr.report.schema import SCHEMA_VERSION, to_json
from edgelr.stages.report import environment

__all__ = ["BenchRequest", "bench_methods", "read_keeps", "read_recipes"]


def bench_methods(
    question: BenchRequest,
    device: DeviceProfile,
    out: Path,
    run: Run,
) -> MethodBench:
    """Measure every recipe at every share, and write tables and curves into ``out``.

    Args:
        question: recipes, shares and texts to compare.
        device: decides precision and ranks; its memory limits every plan.
        out: the folder; finished rows in it are not measured again.
        run: cache, listener, clock and seed; a cache that is not reused measures finished rows
            again, too.

    Raises:
        InputError: a text is too short, or ``out`` cannot be used.
    """
    run = replace(run, seed=question.settings.seed)
    book = RowBook(out, run.cache.reuse)
    ground = common_ground(question, device, out, run)
    rows = Rows(question, ground, book, run).all()
    found = _collect(ground, rows, run.command)
    (out / "methods.json").write_text(to_json(found), encoding="utf-8")
    (out / "methods.md").write_text(to_markdown(found), encoding="utf-8")
    for suffix in ("svg", "png"):
        write_plot(found, DEFAULT_RECIPE, out / f"methods.{suffix}")
    return found


def _collect(ground: Ground, rows: tuple[Row, ...], command: str) -> MethodBench:
    subject = ground.subject
    return MethodBench(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        source=subject.settings.model,
        digest=subject.model.digest,
        profile=subject.device.id,
        metric=TASKS.get(subject.model.task).metric,
        texts=tuple(
            JudgedText(name, text.description, text.tokens, len(text.inputs))
            for name, text in ground.texts.items()
        ),
        calibration=tuple(
            f"{part.description} ({part.tokens:,} tokens)" for part in ground.calibration
        ),
        environment=environment(),
        rows=rows,
    )
