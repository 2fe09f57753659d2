"""The application: groups of commands, errors as messages and exit codes."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from edgelr.core.errors import EdgelrError
from edgelr.core.problems import told_problems

ORDER = (
    *("export", "plan", "inspect", "validate", "measure", "report", "diff"),
    *("sweep", "bench", "list"),
)
VERBOSE = "edgelr.verbose"  # where a command notes in its context that it was asked for everything


class _Commands(TyperGroup):
    """Turns errors into messages and exit codes; those of the options are typer's own."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the commands in the order of the work."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            with told_problems(), _interruptible():
                return super().invoke(ctx)
        except EdgelrError as error:
            if ctx.meta.get(VERBOSE):
                traceback.print_exc()
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(error.exit_code) from error
        except (KeyboardInterrupt, typer.Abort):
            typer.echo(
                "Interrupted. Run the same command again: finished stages are kept.", err=True
            )
            raise typer.Exit(130) from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let an interrupt be one, whatever it looks like when it arrives.

    Native libraries that are inside a call of Python's turn it into an error of their own.
    """
    interrupts: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if plain:  # a background job of a shell ignores it, and shall
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupts:
            raise KeyboardInterrupt from error
        raise
    finally:
        if plain:
            signal.signal(signal.SIGINT, signal.default_int_handler)


app = typer.Typer(
    name="edgelr",
    cls=_Commands,
    help="Put a model on an edge device, smaller and faster, with proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
profiles_app = typer.Typer(help="Device profiles.", no_args_is_help=True)
app.add_typer(profiles_app, name="profiles")
bench_app = typer.Typer(help="Comparisons on one model.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
