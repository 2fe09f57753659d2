"""A model in memory, with everything that is needed to trace it and to run it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.dimensions import ModelShape
from edgelr.core.inputs import ImageInput, Matching, Prompts, SoundInput
from edgelr.core.sites import LinearSite
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Pooling, Task
from edgelr.model.losses import LOSSES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.model.exporter import Exporter


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, with everything that is known about it before any computation.

    Attributes:
        module: transformers model in float32.
        exporter: family that it belongs to.
        task: task that it was loaded for.
        modality: name of its modality, see ``core.modality``.
        folder: Hugging Face folder with the same weights in float32, the configuration and the
            tokenizer: what the graph tracer and the bundle read.
        source: name that the user gave.
        revision: branch, tag or commit of a Hub id.
        digest: hash that identifies the weights.
        dimensions: sizes that decide about memory and time.
        longest_text: longest sequence that it takes, tokens; of an image, its tokens.
        pooling: rule that makes an embedding from tokens; None for models that do not embed, and
            for those that pool themselves.
        sentence_layers: hash of the pooling and the layers that an embedder applies itself, so that
            its graph gives one vector for a text; empty where it gives one for each token.
        image: preparation of an image; None for models that read none.
        mask_token: token id that stands for what is to be filled in; None without such tokens.
        sound: preparation of a sound; None for models that read none.
        score_deviation: standard deviation of the scores of a reranker, by which they are divided
            where losses are compared.
        matching: comparison of texts with images; None for models that do not compare them.
        prompts: tokens of the texts that images are compared with in this run.
        sites: linears that can be factorized, in the order in which they run.
        table: table of token embeddings as a linear, see ``token_table``; None without any.
    """

    module: nn.Module
    exporter: Exporter
    task: Task
    modality: str
    folder: Path
    source: str
    revision: str | None
    digest: str
    dimensions: ModelShape
    longest_text: int
    pooling: Pooling | None = None
    sentence_layers: str = ""
    image: ImageInput | None = None
    mask_token: int | None = None
    sound: SoundInput | None = None
    score_deviation: float = 1.0
    matching: Matching | None = None
    prompts: Prompts | None = None
    sites: tuple[LinearSite, ...] = ()
    table: LinearSite | None = None

    @property
    def output(self) -> str:
        """Name of the output that is compared."""
        return "sentence_embedding" if self.sentence_layers else TASKS.get(self.task).output

    def example_inputs(self, rows: int, tokens: int) -> dict[str, Tensor]:
        """Make random inputs of one forward pass; an image or a sound has always its own size."""
        size = LOSSES.get(self.modality).example_size(self, tokens)
        return self.exporter.example_inputs(self.module.config, rows, size)
