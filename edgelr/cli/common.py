"""What several commands need: settings from options, the cache, a listener."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgelr.core.errors import InputError

if TYPE_CHECKING:
    from edgelr.core.listener import Listener
    from edgelr.core.run import Run
    from edgelr.core.settings import Settings


def settings_of(ctx: typer.Context, config: Path | None) -> Settings:
    """Collect the options that were given; those of ``config`` stand behind them."""
    from edgelr.core.settings import SHORT_PRECISIONS, Settings, make_settings, read_settings

    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in ctx.params.items()
        if name in Settings.model_fields and value is not None
    }
    if "forms" in given:
        given["forms"] = tuple(given["forms"].split(","))
    if "calibration" in given:
        given["calibration"] = tuple(given["calibration"])
        if not given["calibration"]:
            del given["calibration"]
    if "precision" in given:
        given["precision"] = SHORT_PRECISIONS.get(given["precision"], given["precision"])
    if config is not None:
        return read_settings(config, given)
    if "model" not in given:
        raise InputError("No model is given; expected 'edgelr export MODEL', or -c edgelr.yaml.")
    return make_settings(**given)


def run_of(listener: Listener, resume: bool = True, seed: int = 0) -> Run:
    """Make the value that stages share; without ``resume`` what is in the cache is made again."""
    from edgelr.core.cache import Cache, default_root
    from edgelr.core.run import Run

    return Run(Cache(default_root(), reuse=resume), listener, seed, command=command_line())


def stem_of(model: str) -> str:
    """Name a folder after a model."""
    return Path(model.split(":")[-1]).stem.lower() or "model"


def command_line() -> str:
    """Spell the command that runs, for reports."""
    return shlex.join(["edgelr", *sys.argv[1:]])


def listener_of(quiet: bool) -> Any:
    """Make what shows progress; it is a context manager."""
    from edgelr.report.live import LiveListener

    return LiveListener(quiet)
