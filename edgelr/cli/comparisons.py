"""Commands that compare: recipes on one model, one model on many devices."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgelr.cli.app import app, bench_app
from edgelr.cli.common import listener_of, run_of, stem_of
from edgelr.cli.options import AsJson, Quiet, Resume, Verbose, option, with_settings
from edgelr.core.settings import Settings, choices
from edgelr.core.vocabulary import AskedPrecision


@bench_app.command("methods")
@with_settings(
    *("model", "revision", "trust_remote_code", "profile", "Calibration", "Healing"),
    profile="generic-cpu",
)
def bench_methods(
    settings: Settings,
    keeps: Annotated[str, option("Shares to keep, such as 0.9,0.8,0.6,0.5.", "--keep")],
    recipes: Annotated[
        str | None,
        option("Recipes to compare, such as edgelr,svd-llm.", default="all", known="recipes"),
    ] = None,
    evaluations: Annotated[
        list[str] | None,
        option(
            ".txt or .jsonl file to judge on, from its beginning. Give several for more columns.",
            "--evaluation",
            default="English that ships with Python",
        ),
    ] = None,
    tokens: Annotated[int, option("Tokens of each of these texts.", min=1)] = 16384,
    length: Annotated[
        int | None, option("Tokens of an evaluated row.", default="1024 for decoders", min=2)
    ] = None,
    out: Annotated[
        Path | None, option("Folder of tables and curves.", "-o", "--out", default="bench-MODEL")
    ] = None,
    resume: Resume = True,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compare recipes on MODEL: what each loses at the same sizes, on the same texts."""
    from edgelr.device.profile import load_profile

    device = load_profile(settings.profile)
    from edgelr.commands import bench
    from edgelr.report.comparison_tables import next_command, print_bench
    from edgelr.report.schema import to_json

    question = bench.BenchRequest(
        settings,
        bench.read_recipes(recipes),
        bench.read_keeps(keeps),
        tuple(dict.fromkeys(evaluations or ())),
        tokens,
        length,
    )
    folder = out or Path(f"bench-{stem_of(settings.model)}")
    with listener_of(quiet or as_json, verbose) as listener:
        found = bench.bench_methods(question, device, folder, run_of(listener, resume))
    if as_json:
        typer.echo(to_json(found))
    else:
        print_bench(found)
        typer.echo(f"{folder / 'methods.md'}  Next: {next_command(found, settings.profile)}")


@app.command()
@with_settings(
    *("model", "revision", "trust_remote_code", "context_tokens", "max_drop", "recipe"),
    *("Calibration", "evaluation", "rivals"),
)
def sweep(
    settings: Settings,
    profiles: Annotated[
        list[str] | None,
        option("Device. Give several.", "--profile", default="jetson", known="profiles"),
    ] = None,
    keeps: Annotated[
        str | None,
        option("Shares to keep, such as 0.9,0.8.", "--keep", default="the smallest in the gate"),
    ] = None,
    precisions: Annotated[
        str | None,
        option(
            "Precisions of the weights, such as fp32,int8,int4,auto.",
            "--precision",
            default="the device's",
            known=choices(AskedPrecision),
        ),
    ] = None,
    out: Annotated[
        Path | None, option("Folder of bundles and tables.", "-o", "--out", default="sweep-MODEL")
    ] = None,
    resume: Resume = True,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compress MODEL for several devices, precisions and sizes, and say what to ship to each."""
    from edgelr.commands import bench
    from edgelr.commands import sweep as sweeps
    from edgelr.report.pareto_tables import print_sweep
    from edgelr.report.schema import to_json

    question = sweeps.SweepRequest(
        settings,
        tuple(dict.fromkeys(profiles or [settings.profile])),
        sweeps.read_precisions(precisions),
        (None,) if keeps is None else bench.read_keeps(keeps),
    )
    folder = out or Path(f"sweep-{stem_of(settings.model)}")
    with listener_of(quiet or as_json, verbose) as listener:
        found = sweeps.sweep(question, folder, run_of(listener, resume))
    if as_json:
        typer.echo(to_json(found))
    else:
        print_sweep(found)
        made = [each.folder for each in found.entries if each.name.startswith("edgelr")]
        shown = shlex.quote(str(folder / made[0])) if made else "DIR"
        typer.echo(f"{folder / 'sweep.md'}  Next: edgelr report {shown}")
