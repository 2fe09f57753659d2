"""The commands of the documents, run one after another on a real model, as a reader would."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgelr.cli import app
from edgelr.report.reading import read_reports
from tests.project.test_docs import ROOT, command_lines
from tests.real.test_decoder import model_path

pytestmark = [pytest.mark.real, pytest.mark.slow]

Run = Callable[[str], int]
FEW = "--calibration-tokens 4096"
ELSEWHERE = {  # what the README names, and what runs it
    'edgelr export "$(.venv/bin/python benchmarks/models.py smollm2)" --profile jetson '
    "--out build/smollm2-jetson": "make demo",
    "edgelr export ... --with-tests": "the same with a model, in this test",
}
SHORTER = {  # words of the README, and what stands for them here, in this order
    "validate DIR --against OLD_DIR --data ours.txt": "validate PLANNED --against OLD "
    "--data texts.txt",
    "diff DIR DIR": "diff OLD PLANNED",
    "DIR DIR ...": "OLD PLANNED",
    "--plan plan.json --out DIR": "--plan plan.json --profile jetson --with-tests --out PLANNED",
    "--keep 0.9,0.8,0.6 --recipes edgelr,svd-llm --tokens 8192 --calibration self": "--keep 0.9 "
    "--recipes svd-llm --tokens 1024",
    "--keep 0.9,0.8": "--keep 0.9 --recipes edgelr,svd --tokens 1024",
    "--calibration-tokens 65536": "--calibration-tokens 2048",
    "wiki-valid.txt": "texts.txt",
    "wikitext2-test.txt": "texts.txt",
    "topics.txt": "texts.txt",
    "--profile raspberry-pi-5-8gb --precision fp32,int8,auto --keep 0.5,0.25": "--precision int8 "
    "--keep 0.8",
    "--keep 0.8 ... --out DIR": "--keep 0.8 --out THIRD",
    "DIR": "OLD",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line where a reader would stand, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGELR_CACHE", str(tmp_path / "cache"))

    def run(line: str) -> int:
        done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code in (0, 3), f"{line}\n{done.output}"
        assert done.output
        return done.exit_code

    return run


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A thousand lines of prose, as the tutorial asks for."""
    from pydoc_data.topics import topics

    lines = [line for text in topics.values() for line in text.splitlines() if len(line) > 60]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(lines[:1500]), encoding="utf-8")
    return path


def lines_of(name: str) -> list[str]:
    return list(dict.fromkeys(command_lines((ROOT / name).read_text(encoding="utf-8"))))


def test_the_tutorial_leads_to_two_bundles_that_pass(run: Run, texts: Path, tmp_path: Path) -> None:
    assert texts.exists()
    asked, done = str(model_path("minilm")), 0
    for line in lines_of("docs/tutorial.md"):
        line = line.replace("sentence-transformers/all-MiniLM-L6-v2", asked)
        if "board.yaml" in line or line == "edgelr sweep":  # only mentioned
            continue
        on_the_board = line.replace(" int8", " build/int8") if " build/" not in line else line
        assert run(on_the_board) == 0, line
        done += 1
    assert done >= 9
    for name in ("first", "int8"):
        (report,) = read_reports(tmp_path / "build" / name)
        assert report.validation.passed
        assert (tmp_path / f"build/{name}/reports/raspberry-pi-5-8gb.html").stat().st_size > 10000
    assert (tmp_path / "build/compared.html").exists()


def test_the_commands_of_the_readme_work_in_their_order(run: Run, texts: Path) -> None:
    assert texts.exists()
    asked, lines = str(model_path("minilm")), lines_of("README.md")
    assert ELSEWHERE.keys() < set(lines)
    for line in lines:
        if line in ELSEWHERE:
            continue
        for words, shorter in SHORTER.items():
            line = line.replace(words, shorter, 1)
        if "MODEL" in line and "inspect" not in line and "--calibration-tokens" not in line:
            line += f" --calibration texts.txt {FEW}"
        line = line.replace("MODEL", asked)
        run(line)
    assert len(lines) - len(ELSEWHERE) > 15
