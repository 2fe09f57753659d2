"""Run a decoder's graph: logits with a key-value cache, greedy continuation, padded batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Array
from edgelr.data.generation import step_by_step, token_ids

if TYPE_CHECKING:
    from edgelr.runtime.session import Port, Session, Value

_PAST = "past_key_values."
_PRESENT = "present."
_TOKEN_INPUTS = {"input_ids", "attention_mask", "position_ids"}


@dataclass(frozen=True, slots=True)
class KeyValueCache:
    """Keys and values of every block; they stay on the session's device.

    Attributes:
        values: tensor ``(batch, heads, capacity, head_size)`` for each cache input.
        tokens: number of tokens in the cache, padding included.
        capacity: tokens that it has room for; None where it grows with every run.
    """

    values: tuple[Value, ...]
    tokens: int
    capacity: int | None = None


class DecoderGraph:
    """One graph for prefill and decode.

    Args:
        session: graph with ``input_ids``, optional ``attention_mask``, ``position_ids`` and
            ``past_key_values.N.key/value``, and outputs ``logits`` and ``present.N.key/value``.
        config: ``config.json`` of the model, with cache sizes that the graph leaves symbolic.
        in_place: whether the graph may write the present into the tensors of the past: the cache is
            then allocated once, and no step copies it.

    Raises:
        InputError: the graph has other inputs or outputs.
    """

    def __init__(self, session: Session, config: Mapping[str, Any], in_place: bool = False) -> None:
        self.session = session
        self.config = config
        self.in_place = in_place
        self._past = [name for name in session.inputs if name.startswith(_PAST)]
        self._present = [name.replace(_PAST, _PRESENT, 1) for name in self._past]
        unknown = set(session.inputs) - set(self._past) - _TOKEN_INPUTS
        missing = {"logits", *self._present} - set(session.outputs)
        if unknown or missing:
            raise InputError(
                f"{session.path} is no decoder that edgelr can run: unknown inputs "
                f"{sorted(unknown)}, missing outputs {sorted(missing)}. Expected input_ids, "
                f"attention_mask and past_key_values, logits and present. Export it with edgelr."
            )

    @property
    def vocabulary(self) -> int:
        """Number of tokens that ``input_ids`` may name."""
        return int(self.config["vocab_size"])

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        return token_ids(self.config.get("eos_token_id"))

    def logits(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        past: KeyValueCache | None = None,
    ) -> tuple[Array, KeyValueCache]:
        """Run new tokens, after those of ``past``.

        Args:
            input_ids: token ids, ``(batch, tokens)``.
            attention_mask: mask ``(batch, past tokens + tokens)``, 0 for padding on the left; None
                for a batch without padding.
            past: cache of ``empty_cache`` or an earlier call; None for a run of its own. A cache
                with a capacity may be continued again and again, and each time what followed it
                before is overwritten.

        Returns:
            Logits ``(batch, tokens, vocabulary)`` float32, and the longer cache.

        Raises:
            InputError: the tokens do not fit the cache.
        """
        batch, tokens = input_ids.shape
        past = past or self.empty_cache(batch, tokens)
        total = past.tokens + tokens
        if past.capacity is not None and total > past.capacity:
            raise InputError(
                f"The cache has room for {past.capacity:,} tokens, and {total:,} were given. Make "
                f"it larger, or give fewer tokens."
            )
        mask = np.ones((batch, total), np.int64) if attention_mask is None else attention_mask
        feeds: dict[str, Array | Value] = {"input_ids": input_ids}
        if "attention_mask" in self.session.inputs:
            feeds["attention_mask"] = mask
        if "position_ids" in self.session.inputs:
            feeds["position_ids"] = np.maximum(mask.cumsum(-1) - 1, 0)[:, past.tokens :]
        feeds.update(zip(self._past, past.values, strict=True))
        places = past.values if self.in_place else [None] * len(self._present)
        keep = dict(zip(self._present, places, strict=True))
        (logits,), values = self.session.run(feeds, ["logits"], keep)
        held = past.values if self.in_place else tuple(values)
        return logits.astype(np.float32, copy=False), KeyValueCache(held, total, past.capacity)

    def empty_cache(self, batch: int, capacity: int) -> KeyValueCache:
        """Make the cache of ``batch`` sequences that have no token yet.

        Args:
            batch: number of sequences.
            capacity: tokens of the full cache, padding included; a cache that grows has no use for
                it.
        """
        tokens = capacity if self.in_place else 0
        values = [
            self.session.zeros(name, self._cache_shape(self.session.inputs[name], batch, tokens))
            for name in self._past
        ]
        return KeyValueCache(tuple(values), 0, capacity if self.in_place else None)

    def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """Continue each prompt, alone, by its most likely tokens; ties go to the lowest id.

        Args:
            prompts: token ids; each prompt has at least one.
            new_tokens: tokens to add to each; an end of text does not stop it.

        Returns:
            The new tokens of each prompt.

        Raises:
            InputError: the graph has no cache.
        """
        if not self._past:
            raise InputError(
                f"{self.session.path} has no past_key_values. Expected a decoder with a cache. "
                f"Export the model with edgelr."
            )
        alone = (self.continued([np.array(prompt, np.int64)], new_tokens) for prompt in prompts)
        return [row.tolist() for (row,) in alone]

    def continued(self, prompts: Sequence[Array], new_tokens: int) -> Array:
        """Continue prompts of one length, together, by their most likely tokens.

        Args:
            prompts: token ids ``(length,)`` each.
            new_tokens: tokens to add to each; an end of text does not stop it.

        Returns:
            The new tokens, ``(prompts, new tokens)`` int64; ties go to the lowest id.
        """
        step = np.stack(prompts)
        found = np.empty((len(step), new_tokens), np.int64)
        cache = self.empty_cache(len(step), step.shape[1] + new_tokens)
        for place in range(new_tokens):
            logits, cache = self.logits(step, past=cache)
            found[:, place] = logits[:, -1].argmax(-1)  # the first of equal values
            step = found[:, place : place + 1]
        return found

    def predicted(self, prompt: Array, tokens: Array, by_steps: bool = False) -> Array:
        """Predict given tokens behind a prompt.

        Args:
            prompt: token ids, ``(length,)``.
            tokens: token ids behind it, ``(tokens,)``; the last is not read.
            by_steps: whether the prompt is read, and then each token with the cache; else all at
                once.

        Returns:
            Logits that each token follows from, ``(tokens, vocabulary)`` float32.
        """
        whole = np.concatenate([prompt, tokens])[None]
        if not by_steps:
            return self.logits(whole[:, :-1])[0][0, len(prompt) - 1 :]
        cache = self.empty_cache(1, whole.shape[1])
        return step_by_step(
            lambda ids, past: self.logits(ids, past=past), whole, len(prompt), cache
        )

    def _cache_shape(self, port: Port, batch: int, tokens: int) -> tuple[int, int, int, int]:
        _, heads, _, head_size = port.shape
        config = self.config
        if not isinstance(heads, int):
            heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        if not isinstance(head_size, int):
            given = config.get("head_dim")
            head_size = int(given or config["hidden_size"] // config["num_attention_heads"])
        return batch, heads, tokens, head_size
