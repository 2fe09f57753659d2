"""Rows of encoder-decoders: sentences, and the model's own answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgelr.data.calibration import with_targets
from edgelr.data.labels import require_scores
from edgelr.model.generate import draw, start_of
from edgelr.stages.transformers.checks import require_two_graphs_fit
from edgelr.stages.transformers.rows import ROWS, Excerpt
from edgelr.stages.transformers.rows.text_encoder import TextEncoderRows, sentences

if TYPE_CHECKING:
    from edgelr.core.run import Run
    from edgelr.core.settings import Settings
    from edgelr.data.calibration import Calibration
    from edgelr.data.labels import Record
    from edgelr.model.loaded import LoadedModel
    from edgelr.planning.recipes import Recipe
    from edgelr.stages.transformers.subject import ModelSubject

TARGET_TOKENS = 64  # of an answer, at most


class EncoderDecoderRows(TextEncoderRows):
    """Sentences as sources, and answers that are drawn from the model as targets.

    Attributes:
        sources_together: sources that are answered together; None takes what is usual.
    """

    graphs = "an encoder and a decoder"
    sources_together: ClassVar[int | None] = None

    def require(self, model: LoadedModel, settings: Settings, recipe: Recipe) -> None:
        require_two_graphs_fit(model, settings, recipe)

    def require_truths(self, model: LoadedModel, records: Sequence[Record], path: Path) -> None:
        """Make sure that answers can be scored.

        Raises:
            EnvironmentProblem: what scores them is not installed.
        """
        require_scores()

    def sources(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        """Cut an excerpt into the rows that the encoder reads."""
        return sentences(subject, excerpt)

    def judging(self, subject: ModelSubject, excerpt: Excerpt) -> Calibration:
        """Draw answers with another seed than those that calibrate."""
        sources, seed = self.sources(subject, excerpt), subject.settings.seed + 1
        new_tokens = target_tokens(subject.model)
        drawn = draw(subject.model, sources, new_tokens, seed, batch=self.sources_together)
        return with_targets(sources, drawn)

    def calibration(self, subject: ModelSubject, excerpt: Excerpt, run: Run) -> Calibration:
        """Join sources with answers of the model, or find what it answered before."""
        model, sources = subject.model, self.sources(subject, excerpt)
        new_tokens = target_tokens(model)

        def write(folder: Path) -> None:
            def told(done: int, total: int) -> None:
                run.progress("drawing targets", done, total)

            found = draw(model, sources, new_tokens, run.seed, told, self.sources_together)
            (folder / "targets.json").write_text(json.dumps(found))

        folder = run.stage("targets", (model.digest, sources.key, new_tokens, run.seed), write)
        drawn = json.loads((folder / "targets.json").read_text())
        described = replace(sources, description=f"{sources.description}, answered by the model")
        return with_targets(described, drawn)


def target_tokens(model: LoadedModel) -> int:
    """Longest answer that calibrates, in tokens after those that every target begins with."""
    return min(TARGET_TOKENS, model.longest_text - start_of(model).length)


ROWS.register("encoder_decoder")(EncoderDecoderRows())
