"""Run the graphs of an encoder and its decoder: sources, and the targets that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Array
from edgelr.data.generation import Start, step_by_step
from edgelr.data.padding import right_padded
from edgelr.runtime.sampling import draw

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgelr.runtime.session import Session, Value

_PAST, _PRESENT = "past_key_values.", "present."


@dataclass(frozen=True, slots=True)
class EncodedSource:
    """Sources that the encoder has read; they stay on the session's device.

    Attributes:
        mask: mask ``(rows, positions)``, 0 for padding.
        values: keys and values of cross attention, by the decoder's names.
    """

    mask: Array
    values: dict[str, Value]


@dataclass(frozen=True, slots=True)
class TargetPast:
    """Keys and values of the decoder's own tokens, by its names."""

    values: dict[str, Value]


class EncoderDecoderGraphs:
    """The graphs of an encoder and of its decoder.

    Args:
        encoder: graph with ``input_ids`` and ``attention_mask``, or with ``reads`` alone, and
            outputs ``present.N.encoder.key/value``.
        decoder: graph with ``input_ids``, ``encoder_attention_mask`` where sources have a mask,
            ``past_key_values.N.encoder.key/value`` and ``past_key_values.N.decoder.key/value``, and
            outputs ``logits`` and ``present.N.decoder.key/value``.
        start: tokens that a target begins and ends with.
        tokenizer: tokenizer of answers in words; None where none are asked for.
        max_tokens: maximum answer length, tokens.
        vocabulary: number of tokens, for random ones.

    Attributes:
        reads: input of the encoder.
        batch: sources that are answered together.

    Raises:
        InputError: the graphs do not fit each other.
    """

    reads = "input_ids"
    batch = 16

    def __init__(
        self,
        encoder: Session,
        decoder: Session,
        start: Start,
        tokenizer: Tokenizer | None = None,
        max_tokens: int = 128,
        vocabulary: int = 0,
    ) -> None:
        self.encoder, self.session, self.start = encoder, decoder, start
        self.tokenizer, self.max_tokens, self.vocabulary = tokenizer, max_tokens, vocabulary
        past = [name for name in decoder.inputs if name.startswith(_PAST)]
        self._cross = [name for name in past if ".encoder." in name]
        self._own = [name for name in past if ".decoder." in name]
        missing = {_present(name) for name in self._cross} - set(encoder.outputs)
        missing |= {"logits", *map(_present, self._own)} - set(decoder.outputs)
        if missing or not past:
            raise InputError(
                f"{encoder.path} and {decoder.path} are no encoder-decoder that edgelr can run: "
                f"they lack the outputs {sorted(missing)}. Expected keys and values of cross "
                f"attention from the encoder, and logits from the decoder. Export the model with "
                f"edgelr."
            )

    def read(self, source: Array, mask: Array | None = None) -> EncodedSource:
        """Run the encoder.

        Args:
            source: token ids ``(rows, source_tokens)``, or sounds ``(rows, mel_bins, frames)``.
            mask: mask of the ids, 0 for padding; None for a batch without.
        """
        mask = np.ones(source.shape[:2], np.int64) if mask is None else mask
        feeds = {self.reads: source, "attention_mask": mask}
        wanted = {name: value for name, value in feeds.items() if name in self.encoder.inputs}
        present = dict.fromkeys(map(_present, self._cross))
        _, values = self.encoder.run(wanted, [], present)
        return EncodedSource(mask, dict(zip(self._cross, values, strict=True)))

    def logits(
        self, target: Array, source: EncodedSource, past: TargetPast | None = None
    ) -> tuple[Array, TargetPast]:
        """Run the decoder on new tokens, after those of ``past``.

        Args:
            target: token ids, ``(rows, tokens)``.
            source: sources of as many rows.
            past: past that an earlier call returned; None for the beginning.

        Returns:
            Logits ``(rows, tokens, vocabulary)`` float32, and the longer past.
        """
        values = past.values if past is not None else self.empty_past(len(target), 0).values
        feeds: dict[str, Array | Value] = {"input_ids": target, **source.values, **values}
        if "encoder_attention_mask" in self.session.inputs:
            feeds["encoder_attention_mask"] = source.mask
        present = dict.fromkeys(map(_present, self._own))
        (logits,), kept = self.session.run(feeds, ["logits"], present)
        longer = TargetPast(dict(zip(self._own, kept, strict=True)))
        return logits.astype(np.float32, copy=False), longer

    def empty_past(self, rows: int, tokens: int) -> TargetPast:
        """Make a past of so many tokens, all of them zero."""
        made = {}
        for name in self._own:
            _, heads, _, size = self.session.inputs[name].shape
            assert isinstance(heads, int)
            assert isinstance(size, int)
            made[name] = self.session.zeros(name, (rows, heads, tokens, size))
        return TargetPast(made)

    def forced(self, source: Array, target: Array, mask: Array | None = None) -> Array:
        """Predict every token of given targets.

        Args:
            source: sources, see ``read``.
            target: token ids ``(rows, tokens + 1)``, from the start token on.
            mask: mask of the source.

        Returns:
            Logits ``(rows, tokens, vocabulary)`` float32.
        """
        return self.logits(target[:, :-1], self.read(source, mask))[0]

    def greedy(self, sources: Sequence[Array], new_tokens: int) -> list[list[int]]:
        """Answer each source, alone, by the likeliest tokens; an end of text does not stop it.

        Returns:
            The new tokens of each; ties go to the lowest id.
        """
        first = self.start.length
        return [self._answer([source], new_tokens)[0][first:] for source in sources]

    def continued(self, sources: Sequence[Array], new_tokens: int) -> Array:
        """Answer a batch by the likeliest tokens, ``(sources, new tokens)`` int64."""
        rows = self._answer(sources, new_tokens)
        return np.array([row[self.start.length :] for row in rows], np.int64)

    def predicted(self, source: Array, tokens: Array, by_steps: bool = False) -> Array:
        """Predict given tokens of an answer.

        Args:
            source: token ids ``(length,)``, or a sound.
            tokens: token ids ``(tokens,)`` behind those that every target begins with; the last is
                not read.
            by_steps: whether each token is read with the past; else all at once.

        Returns:
            Logits that each token follows from, ``(tokens, vocabulary)`` float32.
        """
        read = self.read(*self.together([source]))
        begun = self.start.begin(1, lambda ids: self.logits(ids, read)[0][:, -1])
        target = np.concatenate([begun, tokens[None]], axis=1)
        if not by_steps:
            return self.logits(target[:, :-1], read)[0][0, begun.shape[1] - 1 :]
        return step_by_step(
            lambda ids, past: self.logits(ids, read, past), target, begun.shape[1], past=None
        )

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return self.start.ends

    def drawn(
        self, sources: Sequence[Array], new_tokens: int, generator: np.random.Generator
    ) -> list[list[int]]:
        """Draw an answer to each of a batch, from the start token up to the end of the text."""

        def choose(scores: Array) -> Array:
            return draw(scores, generator.random(len(scores)))

        return self._answer(sources, new_tokens, choose, to_end=True)

    def answers(self, sources: Sequence[Array]) -> list[str]:
        """Answer sources by the likeliest tokens, up to the end, in words."""
        assert self.tokenizer is not None, "these graphs were opened without a tokenizer"
        texts: list[str] = []
        for start in range(0, len(sources), self.batch):
            batch = sources[start : start + self.batch]
            rows = self._answer(batch, self.max_tokens, to_end=True)
            texts += self.tokenizer.decode_batch([row[self.start.length :] for row in rows])
        return texts

    def together(self, sources: Sequence[Array]) -> tuple[Array, Array | None]:
        """Make a batch of sources, and its mask; None where all have one length."""
        return right_padded([source.tolist() for source in sources])

    def _answer(
        self,
        sources: Sequence[Array],
        new_tokens: int,
        choose: Callable[[Array], Array] = lambda scores: scores.argmax(-1),  # the first of equals
        to_end: bool = False,
    ) -> list[list[int]]:
        """Answer a batch from the start token on, by the likeliest tokens or by what is chosen.

        Each up to its end, or all to the last token.
        """
        read, past = self.read(*self.together(sources)), None
        step = self.start.begin(len(sources), lambda ids: self.logits(ids, read)[0][:, -1])
        begun = step.tolist()
        rows: list[list[int]] = [[] for _ in sources]
        while len(rows[0]) < new_tokens:
            logits, past = self.logits(step, read, past)
            chosen = choose(self.start.allowed(logits[:, -1], len(rows[0])))
            for row, token in zip(rows, chosen.tolist(), strict=True):
                row.append(token)
            if to_end and all(set(row) & set(self.start.ends) for row in rows):
                break
            step = chosen[:, None].astype(np.int64)
        cut = map(self.start.until_end, rows) if to_end else rows
        return [[*start, *row] for start, row in zip(begun, cut, strict=True)]


def _present(name: str) -> str:
    return name.replace(_PAST, _PRESENT, 1)
