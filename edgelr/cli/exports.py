"""Commands that compress a model: export, plan, inspect."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgelr.cli.app import app
from edgelr.cli.common import listener_of, print_json, run_of, stem_of
from edgelr.cli.options import AsJson, Quiet, Resume, Verbose, option, spelled, with_settings
from edgelr.core.errors import GateError
from edgelr.core.settings import AIMS, Settings, write_settings

if TYPE_CHECKING:
    from edgelr.core.results import Validation


@app.command()
@with_settings(config=True)
def export(
    settings: Settings,
    plan: Annotated[Path | None, option("Follow this plan.json instead of making one.")] = None,
    dry_run: Annotated[
        bool, option("Stop at the plan; write edgelr.yaml beside it.", "--dry-run")
    ] = False,
    force: Annotated[bool, option("Replace a bundle in --out.", "--force")] = False,
    resume: Resume = True,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compress MODEL for a device, prove that it works, and write a bundle."""
    from edgelr import pipeline
    from edgelr.device.profile import load_profile

    folder = Path(settings.out or f"{stem_of(settings.model)}-{Path(settings.profile).stem}")
    device = load_profile(settings.profile)
    from edgelr.report.schema import to_json
    from edgelr.report.terminal import print_report
    from edgelr.stages.preflight import require_new_file

    with listener_of(quiet or as_json, verbose) as listener:
        if dry_run:
            require_new_file(Path("edgelr.yaml"))
            made = pipeline.plan(settings, device, run_of(listener, resume), given_plan=plan)
            write_settings(settings, Path("edgelr.yaml"))
            if as_json:
                print_json(made.plan)
            else:
                typer.echo("Nothing was exported. Next: edgelr export -c edgelr.yaml")
            return
        report = pipeline.export(settings, device, folder, run_of(listener, resume), force, plan)
    if as_json:
        typer.echo(to_json(report))
    else:
        print_report(report)
        typer.echo(f"{folder}  Next: edgelr report {shlex.quote(str(folder))}")
    validation = report.validation
    if validation is not None and not validation.passed:
        raise GateError(_why_failed(folder, report.profile, validation))


@app.command()
@with_settings(
    *("Model", "Device", "Aim (at most one)", "Compression", "Calibration", "Proof"), config=True
)
def plan(
    settings: Settings,
    out: Annotated[Path, option("Where to write the plan.", "-o", "--out")] = Path("plan.json"),
    resume: Resume = True,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Decide what every linear becomes, and write plan.json to be read, edited and exported."""
    from edgelr import pipeline
    from edgelr.device.profile import load_profile

    device = load_profile(settings.profile)
    from edgelr.planning.files import write_plan
    from edgelr.stages.preflight import require_new_file

    require_new_file(out)
    with listener_of(quiet, verbose) as listener:
        made = pipeline.plan(settings, device, run_of(listener, resume))
    write_plan(made.plan, out)
    words = spelled(settings, *AIMS)
    typer.echo(f"{out}  Next: edgelr export {words} --plan {shlex.quote(str(out))}")


@app.command()
@with_settings("Model", "keep")
def inspect(
    settings: Settings, resume: Resume = True, verbose: Verbose = False, as_json: AsJson = False
) -> None:
    """Show the linears of MODEL: shapes, shared inputs, spectra, and which are low-rank."""
    from edgelr.commands.inspect import inspect_sites
    from edgelr.report.terminal import print_sites

    with listener_of(not verbose, verbose) as listener:
        rows = inspect_sites(settings, run_of(listener, resume))
    if as_json:
        print_json(rows)
    else:
        print_sites(rows)


def _why_failed(folder: Path, profile: str, found: Validation) -> str:
    """Say what failed, and what helps: more of the weights does not help a graph that is wrong."""
    told = [f"The bundle is kept in {folder}, and marked."]
    if found.parity is not None and not found.parity.passed:
        told.append(
            f"Parity failed: ONNX Runtime does not compute what {found.parity.against} does, at "
            f"any size. Try another --precision or version of onnxruntime, and report it."
        )
    if found.gate is not None and not found.gate.passed:
        undecided = found.gate.undecided
        told.append(
            f"The accuracy gate of {profile} {'is undecided' if undecided else 'failed'} (see "
            f"above). {'Judge on more with --evaluation, keep' if undecided else 'Keep'} more, "
            f"calibrate on what is closer to its use, or let --max-drop decide how much is kept."
        )
    return " ".join(told)
