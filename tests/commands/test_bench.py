"""Every recipe beside the others: whole rows, no work twice, and tables that can be trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgelr.commands.bench import BenchRequest, bench_methods, read_keeps, read_recipes
from edgelr.commands.bench.request import DEFAULT_RECIPE
from edgelr.commands.bench.results import RowBook
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.device.profile import DeviceProfile, load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.planning.recipes import RECIPES
from edgelr.report.comparison import (
    EVALUATION,
    Figures,
    JudgedText,
    MethodBench,
    Row,
    Score,
)
from edgelr.report.comparison_tables import (
    keep_table,
    next_command,
    print_bench,
    row_sentence,
    to_markdown,
)
from edgelr.report.plot import write_plot
from edgelr.report.schema import to_json
from tests.conftest import SENTENCES
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

RECIPES_ASKED = ("edgelr", "svd", "svd-llm")
FILES = {"methods.json", "methods.md", "methods.svg", "methods.png", "rows.json"}

Ask = Callable[..., MethodBench]


class Interrupting(Recorder):
    """A listener that gives up at the note of the row after some."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def note(self, text: str) -> None:
        super().note(text)
        if len(self.notes) > self.rows:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def device() -> DeviceProfile:
    """This machine, with a step of ranks that tiny matrices have."""
    found = load_profile("generic-cpu")
    ranks = found.layout.rank_multiple.model_copy(update={"value": 2})
    layout = found.layout.model_copy(update={"rank_multiple": ranks})
    return found.model_copy(update={"layout": layout})


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "sentences.txt"
    path.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ask(cache: Cache, device: DeviceProfile) -> Ask:
    """Run a small bench."""

    def run(model: LoadedModel, out: Path, **changes: Any) -> MethodBench:
        listener = changes.pop("listener", None) or Recorder()
        recipes = changes.pop("recipes", RECIPES_ASKED)
        keeps = changes.pop("keeps", (0.85, 0.6))
        sizes = {"tokens": 256, "length": 32, "evaluation": changes.pop("evaluation", ())}
        sizes |= {name: changes.pop(name) for name in ("tokens", "length") if name in changes}
        question = BenchRequest(quick_settings(model.folder, **changes), recipes, keeps, **sizes)
        return bench_methods(question, device, out, Run(cache, listener))

    return run


@pytest.fixture(
    scope="module",
    params=["tiny_decoder", pytest.param("tiny_encoder", marks=pytest.mark.breadth)],
)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    found: LoadedModel = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def folder(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "out"


@pytest.fixture(scope="module")
def found(model: LoadedModel, ask: Ask, text: Path, folder: Path) -> MethodBench:
    """Three recipes at two shares, on two texts."""
    return ask(model, folder, evaluation=(str(text), str(text.with_name("again.txt"))))


@pytest.fixture(scope="module", autouse=True)
def other_text(text: Path) -> None:
    text.with_name("again.txt").write_text("\n".join(SENTENCES[::-1] * 4), encoding="utf-8")


def drawn(*rows: Row, metric: str = "perplexity") -> MethodBench:
    """A bench of given rows on one text."""
    dense = Row("0", "dense", None, {EVALUATION: 1.0}, figures(1.0, 10.0))
    texts = (JudgedText("wiki", "wiki.txt", 256, 8),)
    return MethodBench(
        1, "2031-05-06", "edgelr bench methods m", "m", "abc", "generic-cpu", metric, texts,
        ("text (512 tokens)",), {"cpu": "2 x a CPU", "torch": "2"}, (dense, *rows),
    )  # fmt: skip


def figures(kept: float, value: float) -> Figures:
    return Figures(kept, 1000, 1, 1, 0.1, (Score("wiki", value, value / 10),))


# --- rows ----------------------------------------------------------------------------------------


def test_every_figure_of_every_row_is_there(found: MethodBench) -> None:
    assert [(row.recipe, row.keep) for row in found.rows] == [
        ("dense", None),
        *((recipe, keep) for recipe in RECIPES_ASKED for keep in (0.85, 0.6)),
    ]
    for row in found.rows:
        assert row.problem is None
        assert row.figures is not None
        assert row.figures.kept <= (row.keep or 1)
        assert row.figures.planned_bytes > 0
        assert row.figures.dense_sites + row.figures.compressed_sites == found.dense.dense_sites
        assert [score.text for score in row.figures.scores] == ["sentences", "again"]
        numbers = [row.figures.predicted_loss, *row.seconds.values()]
        numbers += [value for s in row.figures.scores for value in (s.value, s.ratio)]
        assert all(math.isfinite(number) and number >= 0 for number in numbers)
        assert row.seconds[EVALUATION] > 0


def test_compression_costs_more_where_less_is_kept(found: MethodBench) -> None:
    rows = {(row.recipe, row.keep): row.figures for row in found.rows}
    for recipe in RECIPES_ASKED:
        much, little = rows[recipe, 0.85], rows[recipe, 0.6]
        assert much is not None
        assert little is not None
        assert much.compressed_sites > 0
        assert much.planned_bytes > little.planned_bytes
        assert much.predicted_loss < little.predicted_loss
        if found.metric == "perplexity":  # that of random weights may fall
            assert len({score.value for score in (*much.scores, *little.scores)}) == 4
        for more, less in zip(much.scores, little.scores, strict=True):
            assert found.metric == "perplexity" or 1 > more.value > less.value > 0


def test_keeping_all_is_the_dense_model(model: LoadedModel, ask: Ask, tmp_path: Path) -> None:
    found = ask(model, tmp_path, recipes=("edgelr", "svd-llm"), keeps=(1.0,))
    for row in found.rows:
        assert row.figures is not None
        assert row.figures.kept == 1
        assert row.figures.compressed_sites == 0
        assert [score.ratio for score in row.figures.scores] == [1.0]
        assert row.figures.scores == found.dense.scores


def test_the_default_text_is_judged_apart_from_the_calibration(
    tiny_encoder: LoadedModel, ask: Ask, tmp_path: Path
) -> None:
    found = ask(tiny_encoder, tmp_path, recipes=("svd",), keeps=(0.85,))
    assert [text.name for text in found.texts] == ["topics"]
    assert "second half" in found.calibration[0]
    assert 256 <= found.texts[0].tokens < 512


def test_texts_of_one_name_are_told_apart(
    tiny_decoder: LoadedModel, ask: Ask, text: Path, tmp_path: Path
) -> None:
    twin = tmp_path / text.name
    twin.write_bytes(text.read_bytes())
    files = (str(text), str(twin))
    found = ask(tiny_decoder, tmp_path / "out", recipes=("svd",), keeps=(0.85,), evaluation=files)
    assert tuple(score.text for score in found.dense.scores) == files
    assert found.dense.scores[0].value == found.dense.scores[1].value


def test_healing_is_done_for_every_row(tiny_decoder: LoadedModel, ask: Ask, tmp_path: Path) -> None:
    found = ask(tiny_decoder, tmp_path, recipes=("svd",), keeps=(0.6,), heal_steps=2)
    row = found.rows[1]
    assert row.figures is not None
    assert row.figures.notes[0].startswith("Healed by distillation for 2 steps")
    assert f"svd, keep 0.6: {row.figures.notes[0]}" in (tmp_path / "methods.md").read_text()


# --- again ---------------------------------------------------------------------------------------


def test_a_repeated_bench_does_no_work_and_draws_the_same_files(
    model: LoadedModel, found: MethodBench, ask: Ask, text: Path, folder: Path
) -> None:
    before = {name: (folder / name).read_bytes() for name in FILES}
    recorder = Recorder()
    files = (str(text), str(text.with_name("again.txt")))
    again = ask(model, folder, evaluation=files, listener=recorder)
    assert recorder.stages == ["rows"]
    assert recorder.notes == []
    assert again.rows == found.rows
    for name in ("methods.svg", "methods.png", "rows.json"):
        assert (folder / name).read_bytes() == before[name], name


def test_an_interrupted_bench_goes_on_after_its_last_row(
    tiny_decoder: LoadedModel, ask: Ask, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(tiny_decoder, tmp_path, listener=Interrupting(3))
    kept = json.loads((tmp_path / "rows.json").read_text())
    assert [row["recipe"] for row in kept] == ["dense", "edgelr", "edgelr", "svd"]
    recorder = Recorder()
    found = ask(tiny_decoder, tmp_path, listener=recorder)
    assert len(found.rows) == 7
    assert len(recorder.notes) == 3
    assert json.loads((tmp_path / "rows.json").read_text())[:4] == kept


def test_rows_of_another_question_are_left_out_and_not_lost(
    tiny_decoder: LoadedModel, ask: Ask, tmp_path: Path
) -> None:
    first = ask(tiny_decoder, tmp_path, recipes=("svd",), keeps=(0.85,))
    recorder = Recorder()
    second = ask(tiny_decoder, tmp_path, recipes=("svd",), keeps=(0.6,), listener=recorder)
    assert len(recorder.notes) == 1  # the dense row is the same
    assert [row.keep for row in second.rows] == [None, 0.6]
    recorder = Recorder()
    again = ask(tiny_decoder, tmp_path, recipes=("svd",), keeps=(0.85,), listener=recorder)
    assert (again.rows, recorder.notes) == (first.rows, [])


@pytest.mark.parametrize("changes", [{"tokens": 128}, {"length": 16}, {"heal_steps": 1}])
def test_other_inputs_are_measured_anew(
    tiny_decoder: LoadedModel, ask: Ask, tmp_path: Path, changes: dict[str, int]
) -> None:
    first = ask(tiny_decoder, tmp_path, recipes=("svd",), keeps=(0.85,))
    second = ask(tiny_decoder, tmp_path, recipes=("svd",), keeps=(0.85,), **changes)
    assert not {row.key for row in first.rows} & {row.key for row in second.rows}


def test_without_resuming_only_the_rows_of_this_run_are_finished(tmp_path: Path) -> None:
    rows = [Row(key, "svd", 0.8, {}, figures(0.8, math.inf)) for key in "ab"]
    RowBook(tmp_path, reuse=True).add(rows[0])
    book = RowBook(tmp_path, reuse=False)
    assert book.find("a") is None
    book.add(rows[1])
    assert (book.find("a"), book.find("b")) == (None, rows[1])
    again = RowBook(tmp_path, reuse=True)
    assert [again.find(key) for key in "ab"] == rows


# --- what cannot be made -------------------------------------------------------------------------


def test_a_share_that_is_too_small_is_told_in_its_row(
    tiny_decoder: LoadedModel, ask: Ask, tmp_path: Path
) -> None:
    found = ask(tiny_decoder, tmp_path, recipes=("svd", "edgelr"), keeps=(0.001, 0.85))
    impossible, possible = found.rows[1:3]
    assert impossible.figures is None
    assert "nearest feasible point is --keep" in (impossible.problem or "")
    assert possible.figures is not None
    told = (tmp_path / "methods.md").read_text()
    assert "| svd | – | – | – | – | – |" in told
    assert "- svd: The smallest plan" in told
    assert "larger shares" in next_command(found, "generic-cpu")
    recorder = Recorder()
    again = ask(
        tiny_decoder, tmp_path, recipes=("svd", "edgelr"), keeps=(0.001, 0.85), listener=recorder
    )
    assert (again.rows, recorder.notes) == (found.rows, [])


def test_a_recipe_that_the_model_cannot_have_is_told_in_its_rows(
    tiny_decoder: LoadedModel, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("The statistics are not finite.")

    monkeypatch.setattr("edgelr.stages.transformers.cost_model.spectra", refuse)
    found = ask(tiny_decoder, tmp_path, recipes=("svd",))
    assert [row.problem for row in found.rows[1:]] == ["The statistics are not finite."] * 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tokens": 100_000}, "sentences holds"),
        ({"tokens": 100_000, "length": None}, "expected 99,968"),
        ({"length": 4096}, "--length asks for 4,096"),
        ({"tokens": 8}, "at least one row of 32"),
    ],
)
def test_a_text_that_is_too_short_is_refused_with_its_tokens(
    tiny_decoder: LoadedModel,
    ask: Ask,
    text: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    told: str,
) -> None:
    recorder = Recorder()
    with pytest.raises(InputError, match=told):
        ask(tiny_decoder, tmp_path, evaluation=(str(text),), listener=recorder, **changes)
    assert recorder.stages == []


def test_an_encoder_s_text_that_is_too_short_is_refused(
    tiny_encoder: LoadedModel, ask: Ask, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="lower --tokens to at most"):
        ask(tiny_encoder, tmp_path, evaluation=(str(text),), tokens=100_000)


def test_a_file_that_is_no_book_of_rows_is_left_alone(
    tiny_decoder: LoadedModel, ask: Ask, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match="Move it away"):
        ask(tiny_decoder, tmp_path)
    assert (tmp_path / "rows.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("keeps", ["", ",", "much", "0.5,0", "1.1", "0.5;0.6", "nan"])
def test_a_share_out_of_range_is_refused(keeps: str) -> None:
    with pytest.raises(InputError, match=r"expected a share above 0|names no share; expected some"):
        read_keeps(keeps)


def test_lists_are_read_in_their_order_and_once() -> None:
    assert read_keeps(" 0.6, 0.9,0.6,1") == (0.6, 0.9, 1.0)
    assert read_recipes("svd, edgelr,svd") == ("svd", "edgelr")
    assert read_recipes(None)[0] == DEFAULT_RECIPE
    assert sorted(read_recipes(None)) == RECIPES.names()
    with pytest.raises(InputError, match="expected names"):
        read_recipes(",")


# --- tables and curves ---------------------------------------------------------------------------


def test_the_best_of_every_column_is_bold() -> None:
    rows = (
        Row("1", "good", 0.8, {"factors": 2.0, EVALUATION: 9.0}, figures(0.79, 12.0)),
        Row("2", "bad", 0.8, {}, figures(0.8, math.inf)),
        Row("3", "undefined", 0.8, {}, figures(0.8, math.nan)),
        Row("4", "none", 0.8, {}, None, "It cannot:\n  be."),
    )
    told = to_markdown(drawn(*rows))
    assert "| good | 79.0 % | 0.001 | **12** | **1.200** | 2.0 |" in told
    assert "| bad | 80.0 % | 0.001 | inf | inf | 0.0 |" in told
    assert told.count("**12**") == 1
    assert "- none: It cannot: be." in told
    assert "2 x a CPU" in told
    assert "torch 2" in told
    assert "text (512 tokens)" in told
    assert "perplexity 10 on wiki" in told
    cosines = drawn(*(replace(row, key=row.recipe) for row in rows[:2]), metric="mean_cosine")
    assert "| good | 79.0 % | 0.001 | 12 | 2.0 |" in to_markdown(cosines)
    assert cosines.winner(0.8) == replace(rows[1], key="bad")


def test_what_is_not_finite_survives_json() -> None:
    found = drawn(Row("2", "bad", 0.8, {}, figures(0.8, math.inf)))
    values = json.loads(to_json(found), parse_constant=pytest.fail)
    assert values["schema_version"] == 1
    assert values["environment"]["torch"] == "2"
    assert values["rows"][1]["figures"]["scores"][0]["value"] == "Infinity"


def test_all_files_are_written(found: MethodBench, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    values = json.loads((folder / "methods.json").read_text())
    assert values["environment"]["torch"]
    assert [row["recipe"] for row in values["rows"]] == [row.recipe for row in found.rows]
    told = (folder / "methods.md").read_text()
    assert told.count("**") == 2 * 2 * len(found.texts) * (2 if "/ dense" in told else 1)


def test_equal_rows_give_equal_curves(tmp_path: Path) -> None:
    rows = [
        Row(f"{recipe} {keep}", recipe, keep, {}, figures(keep, value / keep))
        for value, recipe in enumerate(RECIPES.names(), start=10)
        for keep in (0.5, 0.9)
    ]
    found = drawn(*rows, Row("none", "svd", 0.1, {}, None, "It cannot be."))
    for name in ("first.svg", "second.svg", "first.png", "second.png"):
        write_plot(found, DEFAULT_RECIPE, tmp_path / name)
    svg = (tmp_path / "first.svg").read_bytes()
    assert svg == (tmp_path / "second.svg").read_bytes()
    assert b"<dc:date>" not in svg
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_the_terminal_shows_rows_and_problems(
    found: MethodBench, capsys: pytest.CaptureFixture[str]
) -> None:
    print_bench(found)
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*RECIPES_ASKED, "keep 0.85", "keep 0.6", "Dense: "))
    assert "*" not in shown
    assert all(len(line) <= 100 for line in shown.splitlines())
    cells = [cell for row in keep_table(found, 0.6).rows for cell in row]
    assert [cell for cell in cells if cell.strip("*") not in shown] == []
    print_bench(drawn(Row("4", "none", 0.8, {}, None, "It cannot\nbe.")))
    assert "- none: It cannot be." in capsys.readouterr().out


def test_a_row_is_told_while_the_bench_goes_on() -> None:
    row = Row("1", "good", 0.8, {}, figures(0.79, 12.0))
    assert row_sentence(row) == "good, keep 0.8: 79.0 % kept, wiki 12 (1.200)"
    assert row_sentence(replace(row, figures=None, problem="No.")) == "good, keep 0.8: No."


def test_the_stages_that_a_row_waits_for_are_counted(found: MethodBench) -> None:
    first, second = found.rows[1:3]
    assert {"statistics", "decomposition"} <= set(first.seconds)
    assert set(second.seconds) == {"allocation", "factors", EVALUATION}
    assert first.making_seconds == pytest.approx(
        sum(first.seconds.values()) - first.seconds[EVALUATION]
    )
