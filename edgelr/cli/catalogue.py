"""What there is to choose from: names, profiles, and a profile of this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgelr.cli.app import app, profiles_app
from edgelr.cli.common import listener_of
from edgelr.cli.options import AsJson, Provider, Quiet, Threads, Verbose, complete, option

KINDS = (
    "methods", "allocators", "recipes", "roundings", "exporters", "profiles", "evaluators", "tasks",
)  # fmt: skip


@app.command("list")
def list_names(
    kind: Annotated[
        str, typer.Argument(help=f"{', '.join(KINDS)}.", autocompletion=complete(KINDS))
    ],
) -> None:
    """List what can be chosen."""
    from edgelr.commands.list import describe

    for name, summary in describe(kind):
        typer.echo(f"{name:<20} {summary}".rstrip())


@profiles_app.command("list")
def list_profiles() -> None:
    """List the profiles, like 'edgelr list profiles'."""
    list_names("profiles")


@profiles_app.command("show")
def show_profile(
    name: Annotated[
        str, typer.Argument(help="Name, or a .yaml file.", autocompletion=complete("profiles"))
    ],
    as_json: AsJson = False,
) -> None:
    """Show every number of a device profile, with its source and whether it was verified."""
    from edgelr.device.profile import load_profile, profile_path

    device = load_profile(name)  # checks it, and resolves what is detected
    if as_json:
        typer.echo(device.model_dump_json(indent=2))
    else:
        path = Path(name) if name.endswith((".yaml", ".yml")) else profile_path(name)
        typer.echo(path.read_text(encoding="utf-8").rstrip())


@profiles_app.command("detect")
def detect_profile(
    out: Annotated[Path, option("New .yaml file.", "-o", "--out")] = Path("this-machine.yaml"),
    base: Annotated[
        str | None,
        option("Profile whose other numbers are kept.", default="this board's", known="profiles"),
    ] = None,
    provider: Provider = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure this machine's memory and kernels, and write a profile of it."""
    from edgelr.commands.detect import detect

    with listener_of(quiet, verbose) as listener:
        found = detect(base, provider, threads, out, listener)
    compute = found.compute
    typer.echo(
        f"{found.visible_bytes / 2**20:,.0f} MiB of memory, {compute.bandwidth.value:.1f} GB/s, "
        f"{1e3 * (getattr(compute, found.precision).value or 0):.0f} GFLOPS in {found.precision}."
    )
    typer.echo(f"{out}  Next: edgelr export MODEL --profile {shlex.quote(str(out))}")
