"""Commands that compress a model: export, plan, inspect."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelr.cli.app import app
from edgelr.cli.common import listener_of, run_of, settings_of, stem_of
from edgelr.cli.options import (
    Allocator,
    AsJson,
    CalibrationLength,
    CalibrationTexts,
    CalibrationTokens,
    Config,
    ContextTokens,
    Evaluation,
    Forms,
    Grouping,
    HealAdapter,
    HealMinutes,
    HealSites,
    HealSteps,
    Keep,
    Labels,
    LabelTemplate,
    MaxDrop,
    MaxLatency,
    MaxSize,
    Method,
    Model,
    Opset,
    PrecisionName,
    Profile,
    Provider,
    Quiet,
    Recipe,
    RemoteCode,
    Resume,
    Revision,
    Rounds,
    Seed,
    TaskName,
    WithTests,
)
from edgelr.core.errors import GateError


@app.command()
def export(
    ctx: typer.Context,
    model: Model = None,
    profile: Profile = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the bundle.")] = None,  # noqa: UP045
    recipe: Recipe = None,
    grouping: Grouping = None,
    method: Method = None,
    allocator: Allocator = None,
    forms: Forms = None,
    task: TaskName = None,
    precision: PrecisionName = None,
    keep: Keep = None,
    max_size: MaxSize = None,
    max_drop: MaxDrop = None,
    max_latency: MaxLatency = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    evaluation: Evaluation = None,
    labels: Labels = None,
    label_template: LabelTemplate = None,
    context_tokens: ContextTokens = None,
    rounds: Rounds = None,
    heal_steps: HealSteps = None,
    heal_minutes: HealMinutes = None,
    heal_sites: HealSites = None,
    heal_adapter: HealAdapter = None,
    seed: Seed = None,
    opset: Opset = None,
    provider: Provider = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    with_tests: WithTests = None,
    config: Config = None,
    plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plan", help="Follow this plan.json instead of making one."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop at the plan; write edgelr.yaml beside it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle in --out.")] = False,
    resume: Resume = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compress MODEL for a device, prove that it works, and write a bundle."""
    from edgelr import pipeline
    from edgelr.device.profile import load_profile

    settings = settings_of(ctx, config)
    folder = Path(settings.out or f"{stem_of(settings.model)}-{Path(settings.profile).stem}")
    device = load_profile(settings.profile)
    from edgelr.report.schema import to_json
    from edgelr.report.terminal import print_report

    with listener_of(quiet or as_json) as listener:
        if dry_run:
            from edgelr.core.settings import write_settings

            made = pipeline.plan(settings, device, run_of(listener, resume), given_plan=plan)
            write_settings(settings, Path("edgelr.yaml"))
            if as_json:
                typer.echo(json.dumps(asdict(made.plan), indent=2))
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
        raise GateError(_why_failed(folder, report.profile))


@app.command()
def plan(
    ctx: typer.Context,
    model: Model = None,
    profile: Profile = None,
    out: Annotated[Path, typer.Option(help="Where to write the plan.")] = Path("plan.json"),
    recipe: Recipe = None,
    grouping: Grouping = None,
    method: Method = None,
    allocator: Allocator = None,
    forms: Forms = None,
    task: TaskName = None,
    precision: PrecisionName = None,
    keep: Keep = None,
    max_size: MaxSize = None,
    max_drop: MaxDrop = None,
    max_latency: MaxLatency = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    evaluation: Evaluation = None,
    labels: Labels = None,
    label_template: LabelTemplate = None,
    context_tokens: ContextTokens = None,
    rounds: Rounds = None,
    seed: Seed = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    config: Config = None,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Decide what every linear becomes, and write plan.json to be read, edited and exported."""
    from edgelr import pipeline
    from edgelr.device.profile import load_profile

    settings = settings_of(ctx, config)
    device = load_profile(settings.profile)
    from edgelr.planning.files import write_plan

    with listener_of(quiet) as listener:
        made = pipeline.plan(settings, device, run_of(listener, resume))
    write_plan(made.plan, out)
    source = shlex.quote(settings.model) + (f" --task {settings.task}" if settings.task else "")
    typer.echo(f"{out}  Next: edgelr export {source} --profile {settings.profile} --plan {out}")


@app.command()
def inspect(
    ctx: typer.Context,
    model: Model = None,
    task: TaskName = None,
    keep: Keep = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    resume: Resume = True,
    as_json: AsJson = False,
) -> None:
    """Show the linears of MODEL: shapes, shared inputs, spectra, and which are low-rank."""
    settings = settings_of(ctx, None)
    from edgelr.commands.inspect import inspect_sites
    from edgelr.report.terminal import print_sites

    with listener_of(quiet=True) as listener:
        rows = inspect_sites(settings, run_of(listener, resume))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_sites(rows)


def _why_failed(folder: Path, profile: str) -> str:
    return (
        f"The bundle is kept in {folder}, and marked: parity or the accuracy gate of {profile} "
        f"failed (see above). Keep more, calibrate on what is closer to its use, or let --max-drop "
        f"decide how much is kept."
    )
