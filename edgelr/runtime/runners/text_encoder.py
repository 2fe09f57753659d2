"""Text encoders: hidden states or logits of token ids, vectors or labels of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelr.core.bundle import ExportBundle, read_config, read_tokenizer
from edgelr.core.errors import InputError
from edgelr.core.tasks import decides_each_label
from edgelr.core.vocabulary import Array, Pooling
from edgelr.data.labels import Record, label_ids, read_records, token_labels
from edgelr.data.padding import padding_token, right_padded
from edgelr.data.text import mask_tokens, read_text, split_sentences
from edgelr.runtime.evaluators import Known
from edgelr.runtime.graphs import open_graph, random_ids
from edgelr.runtime.requests import (
    ON_CPU,
    CappedRuns,
    DeviceSizes,
    Evaluation,
    Execution,
    PhaseSizes,
    TimedInputs,
    TimedPhase,
)
from edgelr.runtime.runners import RUNNERS, Runner
from edgelr.runtime.runners.forward import (
    FORWARD_TOKENS,
    each_decision,
    forward_phases,
    output_of,
    pooled,
    vector_of,
)

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from typing_extensions import Self

    from edgelr.data.pairs import Pair
    from edgelr.runtime.session import Session

_BATCH = 32
_FEW = 4  # texts whose logits have a number for every token of the vocabulary


@RUNNERS.register("text_encoder")
class TextEncoderRunner(Runner):
    """A graph from token ids to hidden states or logits, and the tokenizer of its texts.

    Args:
        session: graph with ``input_ids``, optional ``attention_mask`` and ``token_type_ids``,
            and an output ``last_hidden_state``, or else its first output.
        tokenizer: tokenizer of texts, whose truncation and padding are replaced; None where none
            are read.
        pooling: way to one vector: ``"mean"`` of the real tokens, or the first token, ``"cls"``.
        max_tokens: length to which longer texts are cut.
        decides_each_label: whether several labels may be true: see ``tasks.decides_each_label``.
        mask_token: id of the token that is to be filled in; None where none is.
        config: configuration of the model: its vocabulary, and the token that is padding.

    Raises:
        InputError: the graph has other inputs.
    """

    answer_names = ("input_ids_0", "output_0")

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer | None = None,
        pooling: Pooling = "mean",
        max_tokens: int = 512,
        decides_each_label: bool = False,
        mask_token: int | None = None,
        config: Mapping[str, Any] = {},
    ) -> None:
        self.session = session
        self.vocabulary = int(config.get("vocab_size", 0))
        self.padding = padding_token(config.get("pad_token_id"))
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.mask_token = mask_token
        self._decides_each_label = decides_each_label
        unknown = set(session.inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise InputError(
                f"{session.path} is no encoder that edgelr can run: unknown inputs "
                f"{sorted(unknown)}. Expected input_ids, attention_mask and token_type_ids. "
                f"Export the model with edgelr."
            )
        self._output = output_of(session)
        if tokenizer is not None:
            trained = tokenizer.truncation or {"max_length": max_tokens}
            tokenizer.enable_truncation(min(trained["max_length"], max_tokens))
            tokenizer.no_padding()

    @classmethod
    def open(
        cls, bundle: ExportBundle, execution: Execution = ON_CPU, tokenizer: bool = True
    ) -> Self:
        """Open the encoder of a bundle."""
        config = read_config(bundle)
        labels = len(config.get("id2label", ()))
        return cls(
            open_graph(bundle, execution),
            read_tokenizer(bundle) if tokenizer else None,
            bundle.manifest.pooling or "mean",
            bundle.manifest.context_tokens,
            bundle.manifest.task == "text-classification"
            and decides_each_label(config.get("problem_type"), labels),
            bundle.manifest.mask_token,
            config,
        )

    @classmethod
    def phases(cls, bundle: ExportBundle, sizes: PhaseSizes) -> list[TimedPhase]:
        """List runs of one text and of several."""
        return forward_phases(min(FORWARD_TOKENS, bundle.manifest.context_tokens))

    @classmethod
    def profiled_phase(cls, bundle: ExportBundle, tokens: int) -> TimedPhase:
        """Profile a run of one text."""
        return TimedPhase("forward", 1, min(tokens, bundle.manifest.context_tokens))

    @classmethod
    def capped_runs(cls, bundle: ExportBundle, sizes: DeviceSizes) -> CappedRuns:
        """Read one batch."""
        longest = min(sizes.context_tokens, bundle.manifest.context_tokens)
        tokens = min(sizes.prefill_tokens, longest)
        return CappedRuns((TimedPhase("forward", sizes.batch, tokens),), tokens, longest)

    def samples(self, evaluation: Evaluation) -> list[str] | Known:
        """Read sentences, or texts with their labels."""
        source, count = evaluation.source, evaluation.size.sentences
        records = read_records(source, evaluation.original.manifest.task)
        if records is None:
            return split_sentences(read_text(source), count)
        return self._labelled(evaluation.original, records[:count], str(source))

    def _labelled(self, bundle: ExportBundle, records: Sequence[Record], source: str) -> Known:
        """Resolve the labels of texts, or of words: that of a word is its first token's."""
        labels = label_ids(records, read_config(bundle), source)
        if bundle.manifest.task == "text-classification":
            return Known([record.given for record in records], np.array(labels))
        texts = [" ".join(record.given) for record in records]
        truths: list[int] = []
        for encoding, record, ids in zip(self.encode(texts), records, labels, strict=True):
            truths += token_labels(encoding, record.given, ids)
        return Known(texts, np.array(truths))

    def prepare(self, phase: TimedPhase, inputs: TimedInputs) -> Callable[[], object]:
        """Draw tokens."""
        ids = random_ids(self.vocabulary, phase.batch, phase.tokens)
        return lambda: self.run(ids)

    def run(self, input_ids: Array, attention_mask: Array | None = None) -> Array:
        """Compute what the graph answers.

        Args:
            input_ids: token ids, ``(batch, tokens)``; of pairs of texts ``(batch, 2, tokens)``, the
                second telling which text a token is of.
            attention_mask: mask ``(batch, tokens)``, 0 for padding; None for a batch without.

        Returns:
            Hidden states ``(batch, tokens, features)``, logits of every token ``(batch, tokens,
            labels)`` or of every text ``(batch, labels)``; float32.
        """
        paired = input_ids.ndim == 3
        ids = input_ids[:, 0] if paired else input_ids
        mask = np.ones_like(ids) if attention_mask is None else attention_mask
        feeds = {
            "input_ids": np.where(mask == 1, ids, self.padding),
            "attention_mask": mask,
            "token_type_ids": input_ids[:, 1] if paired else np.zeros_like(ids),
        }
        wanted = {name: value for name, value in feeds.items() if name in self.session.inputs}
        (found,), _ = self.session.run(wanted, [self._output])
        return found.astype(np.float32, copy=False)

    def run_together(self, rows: Sequence[Array]) -> list[Array]:
        """Run token ids ``(length,)`` as one padded batch; return the answer to each.

        Those of pairs of texts are ``(2, length)``, see ``run``.
        """
        outputs = self.run(*right_padded(rows))
        cut = outputs.ndim == 3  # an answer for every token
        return [each[: len(row)] if cut else each for each, row in zip(outputs, rows, strict=True)]

    def vector(self, output: Array) -> Array:
        return vector_of(output, self.pooling)

    def embed(self, texts: Sequence[str], batch: int = _BATCH) -> Array:
        """Compute one unit vector for each text, ``(texts, features)`` float32."""
        rows = self._tokenized(texts)
        vectors = [
            self._embed(*right_padded(rows[start : start + batch]))
            for start in range(0, len(rows), batch)
        ]
        return np.concatenate(vectors)

    def decide(self, texts: Sequence[str], batch: int = _BATCH) -> Array:
        """Compute the logits of every decision, ``(decisions, classes)`` float32.

        A decision is the label of a text or of a token; where a text may have several labels, each
        of them is one between yes and no. A model that fills masks is given some, and decides
        about them alone.
        """
        rows = self._tokenized(texts)
        decisions = []
        if self.mask_token is not None:
            batch = min(batch, _FEW)
        for start in range(0, len(rows), batch):
            ids, mask = right_padded(rows[start : start + batch])
            logits = self.run(ids, mask)
            if self._decides_each_label:
                logits = each_decision(logits)
            elif logits.ndim == 3:
                logits = logits[self._decided(ids, mask)]
            decisions.append(logits.reshape(-1, logits.shape[-1]))
        return np.concatenate(decisions)

    def _decided(self, ids: Array, mask: Array) -> Array:
        """Tell which tokens are decided about: those that are no padding, or what is masked."""
        real: Array = mask == 1
        return real if self.mask_token is None else real & (ids == self.mask_token)

    def encode(self, texts: Sequence[str | Pair]) -> list[Encoding]:
        """Tokenize texts, or pairs of texts."""
        assert self.tokenizer is not None, "this encoder was opened without a tokenizer"
        return self.tokenizer.encode_batch(list(texts))

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self.encode(texts)
        if self.mask_token is None:
            return [encoding.ids for encoding in encodings]
        return [mask_tokens(encoding, self.mask_token) for encoding in encodings]

    def _embed(self, input_ids: Array, mask: Array) -> Array:
        return pooled(self.run(input_ids, mask), mask, self.pooling)
