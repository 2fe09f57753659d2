"""The tables of ``edgelr bench methods``, as Markdown and in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from textwrap import fill
from typing import TYPE_CHECKING

from edgelr.report.comparison import MethodBench, Row
from edgelr.report.figures import Table, environment_facts, figure, mib, model_name, percent
from edgelr.report.markdown import bullets, draw, fence
from edgelr.report.terminal import MAX_COLUMNS

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

    from edgelr.core.tasks import MetricName

BOLD = "**"
HEADING_COLUMNS = 7  # of the terminal, at least; longer headings are folded over their figures
WIDEST = 1000  # columns: more than any table has
SECONDS = (
    "Seconds are those of the plan and its factors, without the evaluation. The first row of a "
    "recipe has those of its statistics and decompositions too, unless an earlier recipe or run "
    "left them in the cache."
)

TOLD: dict[MetricName, str] = {
    "perplexity": "Perplexity, and its ratio to the dense model's: lower is better.",
    "mean_cosine": "Mean cosine to the dense model's embeddings: higher is better.",
    "spearman": "Rank correlation to the dense model's scores: higher is better.",
    "top1_agreement": "Share of the dense model's labels that stay: higher is better.",
}


def keep_table(found: MethodBench, keep: float) -> Table:
    """Compare the recipes at one share; the best figures are between ``BOLD``."""
    texts = [text.name for text in found.texts]
    best = {text: found.best(keep, text) for text in texts}
    columns = ["recipe", "kept", "MiB"]
    for text in texts:
        columns += [text, "/ dense"] if found.metric == "perplexity" else [text]
    return Table(
        (*columns, "made in s"),
        tuple(_cells(row, best, found.metric) for row in found.at(keep)),
    )


def to_markdown(found: MethodBench) -> str:
    """Write the tables of every share, and how they were made."""
    sections = [
        f"# Methods on {model_name(found.source)}",
        _introduction(found),
        "![](methods.svg)",
    ]
    for keep in found.keeps:
        sections += [f"## keep {keep:g}", draw(keep_table(found, keep)), _problems(found, keep)]
    sections += ["## How it was made", fence("bash", found.command), bullets(_facts(found))]
    return "\n\n".join(section for section in sections if section) + "\n"


def print_bench(found: MethodBench, console: Console | None = None) -> None:
    """Print the table of every share, within 100 columns where there are up to three texts."""
    from rich.console import Console

    console = console or Console()
    console.width = min(console.width, MAX_COLUMNS)
    console.print(dense_sentence(found), markup=False, highlight=False)
    for keep in found.keeps:
        _print_table(console, f"keep {keep:g}", keep_table(found, keep))
        if problems := _problems(found, keep):
            console.print(problems, markup=False, highlight=False)


def row_sentence(row: Row) -> str:
    """Write the figures of one row, or its problem, as a sentence."""
    name = row.recipe if row.keep is None else f"{row.recipe}, keep {row.keep:g}"
    if row.figures is None:
        return f"{name}: {_one_line(row.problem or '')}"
    scores = ", ".join(
        f"{s.text} {figure(s.value)} ({_ratio(s.ratio)})" for s in row.figures.scores
    )
    return f"{name}: {percent(row.figures.kept)} kept, {scores}"


def dense_sentence(found: MethodBench) -> str:
    """Write size and accuracy of the dense model as a sentence."""
    dense = found.dense
    scores = ", ".join(f"{figure(score.value)} on {score.text}" for score in dense.scores)
    return (
        f"Dense: {mib(dense.planned_bytes)} MiB in {dense.dense_sites:,} factorizable linears; "
        f"{found.metric.replace('_', ' ')} {scores}."
    )


def next_command(found: MethodBench, profile: str) -> str:
    """Write the command that exports with the best recipe at the first share.

    Where no recipe has a figure, it is the command for a bench with larger shares.

    Args:
        found: results of the bench.
        profile: name or file of the profile, as the user gave it.
    """
    row = found.winner(found.keeps[0])
    source = shlex.quote(found.source)
    if row is None:
        return f"edgelr bench methods {source} with larger shares in --keep"
    return (
        f"edgelr export {source} --profile {shlex.quote(profile)} --recipe {row.recipe} "
        f"--keep {row.keep:g}"
    )


def _print_table(console: Console, title: str, table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=Text(title), box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0)
    )
    for column, *cells in zip(table.columns, *table.rows, strict=True):
        width = max(HEADING_COLUMNS, *(len(cell.strip("*")) for cell in cells))
        side: JustifyMethod = "left" if column == table.columns[0] else "right"
        drawn.add_column(Text(fill(column, width)), justify=side, no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(c.strip("*"), "bold" if c.startswith(BOLD) else "") for c in row))
    widest = console.measure(drawn, options=console.options.update(width=WIDEST)).maximum
    console.width = max(console.width, widest)  # a terminal may break lines; figures stay whole
    console.print(drawn)


def _introduction(found: MethodBench) -> str:
    return (
        f"{TOLD[found.metric]} The best of every column is bold. Measured in torch and float32; "
        f"*kept* and *MiB* count the factorizable weights as `{found.profile}` stores them. "
        f"{dense_sentence(found)}"
    )


def _facts(found: MethodBench) -> Iterator[str]:
    yield from environment_facts(found.environment)
    yield f"calibrated on: {', '.join(found.calibration)}"
    for text in found.texts:
        yield f"{text.name}: {text.tokens:,} tokens in {text.rows:,} rows of {text.source}"
    yield f"created: {found.created}; weights: `{found.digest}`"
    yield SECONDS
    for row in found.rows:
        for note in row.figures.notes if row.figures else ():
            yield f"{row.recipe}, keep {row.keep:g}: {note}"


def _cells(row: Row, best: dict[str, float | None], metric: str) -> tuple[str, ...]:
    if row.figures is None:
        per_text = 2 if metric == "perplexity" else 1
        return (row.recipe, *["–"] * (3 + per_text * len(best)))
    cells = [row.recipe, percent(row.figures.kept), mib(row.figures.planned_bytes)]
    for score in row.figures.scores:
        shown = [figure(score.value)] + ([_ratio(score.ratio)] if metric == "perplexity" else [])
        mark = BOLD if score.value == best[score.text] else ""
        cells += [f"{mark}{cell}{mark}" for cell in shown]
    return (*cells, f"{row.making_seconds:,.1f}")


def _problems(found: MethodBench, keep: float) -> str:
    rows = [row for row in found.at(keep) if row.problem is not None]
    return bullets(f"{row.recipe}: {_one_line(row.problem or '')}" for row in rows)


def _ratio(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
