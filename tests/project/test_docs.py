"""Documents say what the commands do: no option in them is stale, and the reference is complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from edgelr.cli import app
from tests.helpers import reference
from tests.helpers.paths import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted(path for path in (ROOT / "docs").glob("*.md") if path != reference.REFERENCE),
]
CHEAP = ("list", "profiles show", "--version")
WRITE_AGAIN = "run 'python -m tests.helpers.reference'"


def command_lines(text: str) -> Iterator[str]:
    """List the command lines of a document: those in its blocks, and those in its sentences."""
    blocks = re.findall(r"```(?:bash|text|yaml)?\n(.*?)```", text, flags=re.DOTALL)
    for block in blocks:
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            found = re.match(r"\s*(?:\S*/)?(edgelr [a-z-].*)", line.split("#")[0])
            if found:
                yield re.split(r" {2,}", found[1])[0]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for code in re.findall(r"`([^`]+)`", prose):
        words = " ".join(code.split())
        if words.startswith("edgelr "):
            yield words


def parsed(line: str) -> dict[str, Any]:
    """Parse a command line with the real parser, without running it; return its parameters."""
    words = [word for word in shlex.split(line) if word not in ("...", "…")][1:]
    command = get_command(app)
    path = "edgelr"
    while hasattr(command, "commands") and words and words[0] in command.commands:
        path = f"{path} {words[0]}"
        command = command.commands[words.pop(0)]
    if not words:  # only named
        return {}
    assert not hasattr(command, "commands") or words[0].startswith("--"), f"no command: {line}"
    with command.make_context(path, words, resilient_parsing=hasattr(command, "commands")) as made:
        return dict(made.params)


ALL_LINES = [
    pytest.param(line, id=f"{path.name}: {line}"[:90])
    for path in DOCUMENTS
    if path.exists()
    for line in command_lines(path.read_text(encoding="utf-8"))
]


def test_command_lines_are_found() -> None:
    text = (
        "Run `edgelr plan\nM --keep 0.8`.\n```bash\n.venv/bin/edgelr export M \\\n  --keep 1\n```"
    )
    assert list(command_lines(text)) == ["edgelr export M --keep 1", "edgelr plan M --keep 0.8"]
    assert len(ALL_LINES) > 40


@pytest.mark.parametrize("line", ALL_LINES)
def test_every_documented_command_line_is_one(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize(
    "line", ["edgelr exprt M", "edgelr export M --kep 1", "edgelr diff A", "edgelr export --seed x"]
)
def test_a_stale_command_line_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"no command|No such option|Missing|[Ii]nvalid|valid"):
        parsed(line)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_is_mentioned_exists(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not part of this checkout")
    options = {
        name
        for _, command in reference.commands()
        for each in command.params
        for name in (*each.opts, *each.secondary_opts)
    } | {"--help", "--version"}
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    codes = re.findall(r"`([^`]+)`", prose)
    named = {
        found
        for code in codes
        if code.startswith(("--", "edgelr "))
        for found in re.findall(r"(?<!\S)--[a-z][a-z-]+", code)
    }
    assert named - options == set()


CHEAP_LINES = {
    line for (line,) in (each.values for each in ALL_LINES) if line[7:].startswith(CHEAP)
}


@pytest.mark.parametrize("line", sorted(CHEAP_LINES))
def test_cheap_command_lines_run(line: str) -> None:
    done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        if not path.exists():
            continue
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


# --- the reference -------------------------------------------------------------------------------


def test_the_reference_is_that_of_the_commands() -> None:
    assert reference.REFERENCE.read_text(encoding="utf-8") == reference.reference(), WRITE_AGAIN


@pytest.mark.parametrize("words", [(), *(words for words, _ in reference.commands())], ids=" ".join)
def test_help_reads_as_it_did(words: tuple[str, ...]) -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for package in ("typer", "rich"):
        if f"{package}=={version(package)}\n" not in pinned:
            pytest.skip(f"{package} {version(package)} is not that of constraints.txt")
    kept = reference.golden(words)
    assert kept.read_text(encoding="utf-8") == reference.help_text(words), WRITE_AGAIN


def test_no_help_text_is_left_of_a_command_that_is_gone() -> None:
    known = {reference.golden(words) for words, _ in reference.commands()} | {reference.golden(())}
    assert set(reference.GOLDEN.glob("help*.txt")) == known
