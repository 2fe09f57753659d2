"""What several commands need: the run, the pipeline, a listener."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from edgelr.core.listener import Listener
    from edgelr.core.run import Run


def run_of(listener: Listener, resume: bool = True, seed: int = 0) -> Run:
    """Make the value that stages share; without ``resume`` what is in the cache is made again."""
    from edgelr.core.cache import Cache, default_root
    from edgelr.core.run import Run

    return Run(Cache(default_root(), reuse=resume), listener, seed, command=command_line())


def stem_of(model: str) -> str:
    """Name a folder after a model, without the suffix of a file."""
    name = Path(model.split(":")[-1]).name.lower()
    return name.removesuffix(".gguf").removesuffix(".onnx") or "model"


def command_line() -> str:
    """Spell the command that runs, for reports."""
    return shlex.join(["edgelr", *sys.argv[1:]])


def print_json(found: Any) -> None:
    """Print a value of dataclasses as JSON."""
    from pydantic import TypeAdapter

    typer.echo(TypeAdapter(type(found)).dump_json(found, indent=2).decode())


def listener_of(quiet: bool, verbose: bool) -> Any:
    """Make what shows progress; it is a context manager."""
    if verbose:
        from edgelr.cli.timed import TimedListener

        return TimedListener()
    from edgelr.report.live import LiveListener

    return LiveListener(quiet)
