"""Run an encoder's graph: hidden states or logits of token ids, vectors or labels of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgelr.core.bundle import ExportBundle, read_config, read_tokenizer
from edgelr.core.errors import InputError
from edgelr.core.tasks import decides_each_label
from edgelr.core.vocabulary import Array
from edgelr.data.padding import right_padded
from edgelr.data.text import mask_tokens
from edgelr.runtime.session import Session, open_session

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Pooling = Literal["mean", "cls"]
_BATCH = 32
_FEW = 4  # texts whose logits have a number for every token of the vocabulary


class Encoder:
    """A graph from token ids to hidden states or logits, and what turns texts into ids around it.

    Args:
        session: a graph with ``input_ids``, optional ``attention_mask`` and ``token_type_ids``,
            and an output ``last_hidden_state``, or else its first output.
        tokenizer: needed for texts only; its truncation and padding are replaced.
        pooling: ``"mean"`` over the real tokens, or the vector of the first token, ``"cls"``.
        max_tokens: longer texts are cut.
        decides_each_label: see ``tasks.decides_each_label``.
        mask_token: the id that stands for what is to be filled in; None where nothing is.

    Raises:
        InputError: the graph has other inputs.
    """

    input_name = "input_ids"

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer | None = None,
        pooling: Pooling = "mean",
        max_tokens: int = 512,
        decides_each_label: bool = False,
        mask_token: int | None = None,
    ) -> None:
        self.session = session
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
        cls, bundle: ExportBundle, provider: str = "cpu", threads: int | None = None
    ) -> Encoder:
        """Open the encoder of a bundle, with its tokenizer."""
        config = read_config(bundle)
        labels = len(config.get("id2label", ()))
        return cls(
            open_session(bundle.model_path, provider, threads),
            read_tokenizer(bundle),
            bundle.manifest.pooling or "mean",
            bundle.manifest.context_tokens,
            bundle.manifest.task == "text-classification"
            and decides_each_label(config.get("problem_type"), labels),
            bundle.manifest.mask_token,
        )

    def run(self, input_ids: Array, attention_mask: Array | None = None) -> Array:
        """Compute what the graph answers.

        Args:
            input_ids: ``(batch, tokens)``.
            attention_mask: ``(batch, tokens)``, 0 for padding; None for a batch without.

        Returns:
            Hidden states ``(batch, tokens, features)``, logits of every token ``(batch, tokens,
            labels)`` or of every text ``(batch, labels)``; float32.
        """
        mask = np.ones_like(input_ids) if attention_mask is None else attention_mask
        feeds = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(input_ids),
        }
        wanted = {name: value for name, value in feeds.items() if name in self.session.inputs}
        (found,), _ = self.session.run(wanted, [self._output])
        return found.astype(np.float32, copy=False)

    def run_together(self, rows: Sequence[Array]) -> list[Array]:
        """Run token ids ``(length,)`` as one padded batch; return what each is answered."""
        outputs = self.run(*right_padded([row.tolist() for row in rows]))
        cut = outputs.ndim == 3  # an answer for every token
        return [each[: len(row)] if cut else each for each, row in zip(outputs, rows, strict=True)]

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

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenize texts."""
        assert self.tokenizer is not None, "this encoder was opened without a tokenizer"
        return self.tokenizer.encode_batch(list(texts))

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self.encode(texts)
        if self.mask_token is None:
            return [encoding.ids for encoding in encodings]
        return [mask_tokens(encoding, self.mask_token) for encoding in encodings]

    def _embed(self, input_ids: Array, mask: Array) -> Array:
        return pooled(self.run(input_ids, mask), mask, self.pooling)


def output_of(session: Session) -> str:
    """Name what a graph answers: ``last_hidden_state``, or else its first output."""
    wanted = "last_hidden_state"
    return wanted if wanted in session.outputs else next(iter(session.outputs))


def pooled(hidden: Array, mask: Array, pooling: Pooling) -> Array:
    """Pool ``(batch, tokens, features)`` over the real tokens to unit vectors."""
    if pooling == "cls":
        vectors = hidden[:, 0]
    else:
        weights = (mask / mask.sum(-1, keepdims=True)).astype(np.float32)
        vectors = (hidden * weights[..., None]).sum(1)
    unit: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def each_decision(logits: Array) -> Array:
    """Turn ``(rows, labels)`` into decisions between yes and no, ``(rows * labels, 2)``."""
    pairs = np.stack((logits, np.zeros_like(logits)), axis=-1)
    return pairs.reshape(-1, 2)
