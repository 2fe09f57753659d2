"""The command line: typer, and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from edgelr import __version__
from edgelr.cli import catalogue, checks, comparisons, exports, reports
from edgelr.cli.app import app

__all__ = ["app", "catalogue", "checks", "comparisons", "exports", "main", "reports"]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"edgelr {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()
