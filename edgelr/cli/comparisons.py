"""Commands that compare: recipes on one model, one model on many devices."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Optional

import typer

from edgelr.cli.app import app, bench_app
from edgelr.cli.common import cache_of, command_line, listener_of, settings_of, stem_of
from edgelr.cli.options import (
    AsJson,
    CalibrationLength,
    CalibrationTexts,
    CalibrationTokens,
    ContextTokens,
    Evaluation,
    HealAdapter,
    HealMinutes,
    HealSites,
    HealSteps,
    MaxDrop,
    Quiet,
    Recipe,
    RemoteCode,
    Revision,
    Seed,
)


@bench_app.command("methods")
def bench_methods(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Like the MODEL of 'edgelr export'.")],
    keeps: Annotated[str, typer.Option("--keep", help="Shares to keep, such as 0.9,0.8,0.6,0.5.")],
    recipes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Recipes to compare, such as edgelr,svd-llm; default: all of them."),
    ] = None,
    evaluations: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--evaluation",
            help=".txt or .jsonl file to judge on, from its beginning. Give several for several "
            "columns; default: English that ships with Python.",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each of these texts.")] = 16384,
    length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=2, help="Tokens of an evaluated row (default for decoders: 1024)."),
    ] = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    profile: Annotated[
        str, typer.Option(help="Device that decides precision and ranks.")
    ] = "generic-cpu",
    heal_steps: HealSteps = None,
    heal_minutes: HealMinutes = None,
    heal_sites: HealSites = None,
    heal_adapter: HealAdapter = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of tables and curves.")] = None,  # noqa: UP045
    seed: Seed = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use finished rows and stages.")
    ] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare recipes on MODEL: what each loses at the same sizes, on the same texts."""
    from edgelr.device.profile import load_profile

    settings = settings_of(ctx, None)
    device = load_profile(settings.profile)
    from edgelr.commands import bench
    from edgelr.report.comparison_tables import next_command, print_bench
    from edgelr.report.schema import to_json

    question = bench.Question(
        settings,
        bench.read_recipes(recipes),
        bench.read_keeps(keeps),
        tuple(dict.fromkeys(evaluations or ())),
        tokens,
        length,
    )
    folder = out or Path(f"bench-{stem_of(model)}")
    with listener_of(quiet or as_json) as listener:
        found = bench.bench_methods(
            question, device, folder, cache_of(resume), listener, command_line()
        )
    if as_json:
        typer.echo(to_json(found))
    else:
        print_bench(found)
        typer.echo(f"{folder / 'methods.md'}  Next: {next_command(found, settings.profile)}")


@app.command()
def sweep(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Like the MODEL of 'edgelr export'.")],
    profiles: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--profile", help="A device. Give several; default: jetson."),
    ] = None,
    keeps: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--keep",
            help="Shares to keep, such as 0.9,0.8; default: the smallest plan inside the gate.",
        ),
    ] = None,
    precisions: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--precision",
            help="Precisions of the weights, such as fp32,int8,int4,auto; default: the device's.",
        ),
    ] = None,
    rivals: Annotated[
        bool,
        typer.Option("--rivals/--no-rivals", help="Measure the original in int8 and int4, too."),
    ] = True,
    recipe: Recipe = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    evaluation: Evaluation = None,
    max_drop: MaxDrop = None,
    context_tokens: ContextTokens = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of bundles and tables.")] = None,  # noqa: UP045
    seed: Seed = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use finished bundles and stages.")
    ] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compress MODEL for several devices, precisions and sizes, and say what to ship to each."""
    settings = settings_of(ctx, None)
    from edgelr.commands import bench
    from edgelr.commands import sweep as sweeps
    from edgelr.report.pareto_tables import print_sweep
    from edgelr.report.schema import to_json

    question = sweeps.Question(
        settings,
        tuple(dict.fromkeys(profiles or [settings.profile])),
        sweeps.read_precisions(precisions),
        (None,) if keeps is None else bench.read_keeps(keeps),
        rivals,
    )
    folder = out or Path(f"sweep-{stem_of(model)}")
    with listener_of(quiet or as_json) as listener:
        found = sweeps.sweep(question, folder, cache_of(resume), listener, command_line())
    if as_json:
        typer.echo(to_json(found))
    else:
        print_sweep(found)
        made = [each.folder for each in found.entries if each.name.startswith("edgelr")]
        shown = shlex.quote(str(folder / made[0])) if made else "DIR"
        typer.echo(f"{folder / 'sweep.md'}  Next: edgelr report {shown}")
