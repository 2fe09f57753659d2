"""What all rows of a bench stand on: model, dense export, calibration, and the texts that judge."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgelr.commands.bench.request import BenchRequest
from edgelr.core.cache import digest
from edgelr.core.errors import InputError
from edgelr.core.run import FORMATS, Run
from edgelr.data.calibration import Calibration, encode_prefix
from edgelr.data.text import DEFAULT_TEXT
from edgelr.device.profile import DeviceProfile
from edgelr.planning.recipes import RECIPES
from edgelr.stages.source import open_source
from edgelr.stages.sources.transformers import ModelSource
from edgelr.stages.staging import require_room
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.calibration_data import calibrate
from edgelr.stages.transformers.checks import require_one_graph
from edgelr.stages.transformers.dense import as_exported, dense_export
from edgelr.stages.transformers.rows import Excerpt, rows_of
from edgelr.stages.transformers.rows.decoder import CHUNK_TOKENS
from edgelr.stages.transformers.subject import ModelSubject, examine, load_model

HEALING = ("heal_steps", "heal_minutes", "heal_sites", "heal_adapter")


@dataclass(frozen=True)
class Ground:
    """Made once. ``texts`` maps the name of a column to the tokens that it is judged on."""

    subject: ModelSubject
    dense: DenseExport
    calibration: list[Calibration]
    texts: dict[str, Calibration]

    def key(self, recipe: str, keep: float | None) -> str:
        """Hash everything that decides the figures of a row; the dense model keeps None."""
        subject = self.subject
        return digest(
            FORMATS.get("bench", 1),
            (subject.model.digest, subject.model.pooling),
            (subject.device.id, subject.precision, subject.device.rank_multiple),
            [part.key for part in self.calibration],
            [(name, text.key) for name, text in self.texts.items()],
            {name: getattr(subject.settings, name) for name in ("seed", *HEALING)},
            None if keep is None else (asdict(RECIPES.get(recipe)), keep),
        )


def common_ground(question: BenchRequest, device: DeviceProfile, out: Path, run: Run) -> Ground:
    """Do once what all rows share; what cannot work ends before the long work.

    Raises:
        InputError: the settings do not fit the model, or a text is too short.
    """
    settings = question.settings
    if not isinstance(open_source(settings), ModelSource):
        raise InputError(
            f"{settings.model} is an ONNX graph, and bench judges models in torch. Give the model "
            f"that the graph was exported from; export, plan, inspect and sweep take the graph."
        )
    model = load_model(settings, run)
    require_one_graph(model, "bench")
    one = replace(
        settings, precision=settings.precision or device.precision
    )  # recipes are compared
    subject = examine(model, one, device)
    texts = {
        name: _tokenized(question, subject, name, source, text)
        for name, (source, text) in _judging_texts(question, subject).items()
    }
    require_room(subject.room, out, run)
    dense = dense_export(model, run)
    subject = replace(subject, model=as_exported(subject.model, dense))
    return Ground(subject, dense, calibrate(subject, dense, run), texts)


def _judging_texts(question: BenchRequest, subject: ModelSubject) -> dict[str, tuple[str, str]]:
    """Source and text of every column; without any, what is left of what calibrates."""
    files, texts, read = question.evaluation, subject.texts, rows_of(subject.model).read
    if not files:
        whole = texts.evaluation_name
        name = whole.rpartition(".")[2] if whole == DEFAULT_TEXT else Path(whole).name
        return {name: (texts.evaluation_name, texts.evaluation)}
    stems = [Path(file).stem for file in files]
    names = stems if len(set(stems)) == len(files) else files
    return {name: (file, read(Path(file))) for name, file in zip(names, files, strict=True)}


def _tokenized(
    question: BenchRequest, subject: ModelSubject, name: str, source: str, text: str
) -> Calibration:
    """Cut the beginning of a text into rows.

    Raises:
        InputError: the text has too few tokens, or the rows that were asked for are impossible.
    """
    longest, tokens, rows = subject.model.longest_text, question.tokens, rows_of(subject.model)
    if question.length is not None and question.length > longest:
        raise InputError(
            f"--length asks for {question.length:,} tokens; {subject.model.source} takes "
            f"{longest:,} at most (max_position_embeddings). Give a smaller number."
        )
    if subject.model.task != "text-generation":
        found = rows.judging(subject, Excerpt(text, tokens, source, question.length))
        _require_tokens(name, found.tokens, tokens)
        return found
    length = question.length or min(CHUNK_TOKENS, longest)
    if tokens < length:
        raise InputError(
            f"--tokens is {tokens:,}; expected at least one row of {length:,}. Ask for more, or "
            f"give a shorter --length."
        )
    held = len(encode_prefix(text, subject.tokenizer, tokens))
    _require_tokens(name, held, tokens // length * length)
    return rows.judging(subject, Excerpt(text, tokens, source, length))


def _require_tokens(name: str, found: int, wanted: int) -> None:
    if found < wanted:
        raise InputError(
            f"The evaluation text {name} holds {found:,} tokens; expected {wanted:,}. Give a "
            f"longer text, or lower --tokens to at most {found:,}."
        )
