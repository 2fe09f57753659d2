"""Commands that read finished bundles and import nothing heavy: report, diff."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgelr.cli.app import app
from edgelr.cli.common import command_line
from edgelr.cli.options import AsJson, Folder, one_of, option
from edgelr.core.errors import InputError

if TYPE_CHECKING:
    from edgelr.core.report import Report
    from edgelr.report.charts import Chart
    from edgelr.report.diff import Side
    from edgelr.report.pareto import Sweep


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Bundles, or one folder of a sweep.")],
    kind: Annotated[
        str | None,
        one_of(
            "html: one file with its drawings inside; card: the README.md of a bundle.",
            *("html", "markdown", "json", "card"),
            flag="--format",
            default="tables in the terminal",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("File to write instead of printing; its ending tells the format.", "-o", "--out"),
    ] = None,
    plots: Annotated[
        Path | None,
        option("Folder for every drawing: as SVG, and as PNG where matplotlib is."),
    ] = None,
    markdown: Annotated[bool, option("Like --format markdown.", "--markdown")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the report of a bundle; several are set beside each other, and their best is named."""
    if kind is None and (markdown or as_json):
        kind = "json" if as_json else "markdown"
    if kind is None and out is not None:
        kind = _format_of(out)
    found = _found(folders)
    if plots is not None:
        _write_plots(_drawings(found), plots)
    if kind is None:
        _print(found)
    elif out is None:
        typer.echo(_document(found, kind), nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(_document(found, kind), encoding="utf-8")
        typer.echo(str(out))


@app.command()
def diff(
    before: Folder,
    after: Folder,
    every: Annotated[bool, option("Show every linear that changed.", "--all")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two bundles: linears, size, accuracy, latency, settings."""
    from edgelr.report.diff import make_diff
    from edgelr.report.diff_tables import print_diff
    from edgelr.report.schema import to_json

    found = make_diff(*_sides(before, after))
    if as_json:
        typer.echo(to_json(found), nl=False)
    else:
        print_diff(found, every)


# --- what there is to report -----------------------------------------------------------------


def _found(folders: list[Path]) -> tuple[Path, Report] | Sweep:
    """Read one report, or put several beside each other."""
    from edgelr.report.pareto import collect, from_json
    from edgelr.report.reading import read_reports

    sweep = folders[0] / "sweep.json"
    if len(folders) == 1 and sweep.is_file():
        return from_json(sweep.read_text(encoding="utf-8"))
    pairs = [(folder, each) for folder in folders for each in read_reports(folder)]
    return pairs[0] if len(pairs) == 1 else collect(pairs, command_line())


def _print(found: tuple[Path, Report] | Sweep) -> None:
    from edgelr.report.pareto_tables import print_sweep
    from edgelr.report.terminal import print_report

    if isinstance(found, tuple):
        print_report(found[1])
    else:
        print_sweep(found)


def _document(found: tuple[Path, Report] | Sweep, kind: str) -> str:
    if not isinstance(found, tuple):
        return _comparison(found, kind)
    from edgelr.core.bundle import read_manifest
    from edgelr.report import html, markdown, schema
    from edgelr.report.card import model_card

    folder, one = found
    if kind == "html":
        return html.to_html(one)
    if kind == "markdown":
        return markdown.to_markdown(one)
    if kind == "json":
        return schema.to_json(one)
    return model_card(one, read_manifest(folder).modality)


def _comparison(found: Sweep, kind: str) -> str:
    from edgelr.report import pareto_html, pareto_tables, schema

    if kind == "card":
        raise InputError(
            "A card is that of one bundle; expected 'edgelr report DIR --format card'."
        )
    if kind == "html":
        return pareto_html.to_html(found)
    if kind == "markdown":
        return pareto_tables.to_markdown(found, plot="")
    return schema.to_json(found)


def _format_of(path: Path) -> str:
    endings = {".html": "html", ".md": "markdown", ".json": "json"}
    if path.suffix not in endings:
        raise InputError(
            f"The ending of {path} names no format; expected one of {', '.join(endings)}. Add "
            f"--format."
        )
    return endings[path.suffix]


# --- drawings --------------------------------------------------------------------------------


def _drawings(found: tuple[Path, Report] | Sweep) -> dict[str, Chart]:
    from edgelr.report import drawings, pareto_charts

    if isinstance(found, tuple):
        return drawings.drawings(found[1])
    return pareto_charts.drawings(found)


def _write_plots(charts: dict[str, Chart], folder: Path) -> None:
    from edgelr.report.svg import to_file

    folder.mkdir(parents=True, exist_ok=True)
    for name, chart in charts.items():
        (folder / f"{name}.svg").write_text(to_file(chart, name), encoding="utf-8")
    if find_spec("matplotlib") is None:
        typer.echo("PNG files are left out: matplotlib is not installed.", err=True)
        return
    from edgelr.report.raster import write_png

    for name, chart in charts.items():
        write_png(chart, folder / f"{name}.png")


# --- two bundles -----------------------------------------------------------------------------


def _sides(before: Path, after: Path) -> tuple[Side, Side]:
    """Read both bundles: for a device that both have a report of, if there is one."""
    from edgelr.report.diff import Side
    from edgelr.report.reading import read_lock, read_reports

    reports = [{each.profile: each for each in read_reports(path)} for path in (before, after)]
    common = next((name for name in reports[0] if name in reports[1]), None)
    one, other = (known[common] if common else next(iter(known.values())) for known in reports)
    return (
        Side(str(before), one, read_lock(before)),
        Side(str(after), other, read_lock(after)),
    )
