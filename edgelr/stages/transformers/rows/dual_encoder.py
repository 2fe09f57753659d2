"""Rows of models that compare images with prompts: images, and prompts that are read with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from edgelr.data.calibration import load_tokenizer
from edgelr.data.prompts import choose_prompts, tokenized
from edgelr.data.text import PROMPTS, Texts
from edgelr.model.losses.dual_encoder import prompts_of
from edgelr.stages.transformers.checks import require_two_graphs_fit
from edgelr.stages.transformers.rows import ROWS
from edgelr.stages.transformers.rows.image_encoder import ImageEncoderRows

if TYPE_CHECKING:
    from edgelr.core.settings import Settings
    from edgelr.core.vocabulary import Array
    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel
    from edgelr.planning.recipes import Recipe
    from edgelr.stages.transformers.subject import ModelSubject


class DualEncoderRows(ImageEncoderRows):
    """Images; the prompts are those of a run's labels."""

    graphs = "a graph of texts and one of images"

    def require(self, model: LoadedModel, settings: Settings, recipe: Recipe) -> None:
        require_two_graphs_fit(model, settings, recipe)

    def with_prompts(self, model: LoadedModel, settings: Settings, texts: Texts) -> LoadedModel:
        assert model.matching is not None
        matching = replace(model.matching, prompts=choose_prompts(settings, texts))
        prompts = tokenized(matching.prompts, load_tokenizer(model.folder), matching)
        return replace(model, matching=matching, prompts=prompts)

    def parity_inputs(
        self, subject: ModelSubject, calibration: Sequence[Calibration]
    ) -> list[Array]:
        """Give pixels of a few images and token ids of a few prompts, in turns."""
        images, prompts = super().parity_inputs(subject, calibration), prompts_of(subject.model)
        rows = zip(prompts.ids, prompts.mask, strict=True)
        texts = [ids[: mask.sum()] for ids, mask in islice(rows, len(PROMPTS))]
        return [each for both in zip_longest(images, texts) for each in both if each is not None]


ROWS.register("dual_encoder")(DualEncoderRows())
