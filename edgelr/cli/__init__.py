"""The command line: typer, and nothing else."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from edgelr import __version__
from edgelr.cli import catalogue, checks, comparisons, exports, reports
from edgelr.cli.app import app

__all__ = ["app", "catalogue", "checks", "comparisons", "exports", "main", "reports"]

BUG = (
    "This is a bug of edgelr, not of what you gave it. Please report it, with the command and the "
    "lines above: https://github.com/edgelr/edgelr/issues"
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"edgelr {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. A bug of edgelr keeps its traceback, and ends with 1."""
    try:
        app()
    except Exception:
        traceback.print_exc()
        typer.echo(BUG, err=True)
        sys.exit(1)
