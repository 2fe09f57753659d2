"""The command line in writing: docs/cli.md, and every help text as it is shown.

``python -m tests.helpers.reference`` writes both again, after an option was added or changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from edgelr.cli import app
from edgelr.core.errors import EdgelrError
from tests.helpers.paths import ROOT

REFERENCE = ROOT / "docs" / "cli.md"
GOLDEN = ROOT / "tests" / "golden"
PLAIN = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
INTRODUCTION = """# Command line

Written from the commands themselves by `python -m tests.helpers.reference`. Every command has
`--help`, and [README.md](../README.md) has the examples.
"""


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """List every command that does something, with the words that call it."""

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        if not hasattr(command, "commands"):
            yield words, command
            return
        with command.make_context("edgelr", ["--help"], resilient_parsing=True) as context:
            names = command.list_commands(context)
        for name in names:
            yield from walk((*words, name), command.commands[name])

    yield from walk((), get_command(app))


def help_text(words: tuple[str, ...]) -> str:
    """What ``edgelr ... --help`` prints, without the spaces at the ends of its lines."""
    done = CliRunner(env=PLAIN).invoke(app, [*words, "--help"], prog_name="edgelr")
    assert done.exit_code == 0, done.output
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip() + "\n"


def golden(words: tuple[str, ...]) -> Path:
    """Where the help text of a command is kept."""
    return GOLDEN / f"help{''.join(f'-{word}' for word in words)}.txt"


def reference() -> str:
    """Write docs/cli.md."""
    sections = "".join(f"\n{_section(words, each)}" for words, each in commands())
    return f"{INTRODUCTION}{sections}\n{_exit_codes()}"


def _section(words: tuple[str, ...], command: Any) -> str:
    parts = [f"## edgelr {' '.join(words)}", " ".join((command.help or "").split())]
    with command.make_context(" ".join(words), [], resilient_parsing=True) as context:
        usage = " ".join(_argument(each) for each in command.params if each.opts[0][0] != "-")
        parts.append(f"```\nedgelr {' '.join(words)} {usage} [OPTIONS]\n```".replace("  ", " "))
        rows = [row for each in command.params if (row := _row(each, context))]
    parts.append("| | |\n|:--|:--|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _exit_codes() -> str:
    codes = {kind.exit_code: kind.__doc__ for kind in EdgelrError.__subclasses__()}
    rows = [f"| {code} | {_escaped(codes[code] or '')} |" for code in sorted(codes)]
    head = "| 0 | Everything went well. |\n| 1 | A bug: what is printed is for its report. |"
    return "\n".join(("## Exit codes\n", "| | |", "|:--|:--|", head, *rows)) + "\n"


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any, context: Any) -> str:
    if parameter.opts[0][0] != "-":
        return f"| `{_argument(parameter)}` | {_escaped(parameter.help or '')} |"
    names, told = parameter.get_help_record(context)
    return f"| `{_escaped(names)}` | {_escaped(told)} |"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("help*.txt"):
        path.unlink()
    for called in [(), *(words for words, _ in commands())]:
        golden(called).write_text(help_text(called), encoding="utf-8")
