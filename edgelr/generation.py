"""How a generated text begins, what it may not hold, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Start:
    """What transformers' ``generate`` knows from a model's configuration.

    Attributes:
        tokens: that every target begins with.
        ends: any of these ends it.
        never: these are never generated.
    """

    tokens: tuple[int, ...]
    ends: tuple[int, ...]
    never: tuple[int, ...] = ()

    def allowed(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Rule out what is never generated, of logits ``(rows, vocabulary)``; they are changed."""
        logits[:, list(self.never)] = -np.inf
        return logits

    def until_end(self, tokens: Sequence[int]) -> list[int]:
        """Cut a target behind its end."""
        return until_end(tokens, self.ends)


def read_start(config: Mapping[str, Any], generation: Mapping[str, Any]) -> Start:
    """Read ``config.json`` and ``generation_config.json``, of which the second wins."""
    known = {name: value for name, value in config.items() if value is not None}
    known |= {name: value for name, value in generation.items() if value is not None}
    forced = known.get("forced_bos_token_id")
    first = known.get("decoder_start_token_id", known.get("bos_token_id", 0))
    words = [word[0] for word in known.get("bad_words_ids", ()) if len(word) == 1]
    return Start(
        tokens=(int(first), *token_ids(forced)),
        ends=token_ids(known.get("eos_token_id")),
        never=(*words, *known.get("suppress_tokens", ())),
    )


def step_by_step(
    run: Callable[[NDArray[Any], Any], tuple[NDArray[Any], Any]],
    ids: NDArray[Any],
    begun: int,
    past: Any,
) -> NDArray[Any]:
    """Run a text with a cache: its beginning at once, then token by token.

    Args:
        run: reads ids ``(1, tokens)`` after a past; returns logits ``(1, tokens, vocabulary)`` and
            the longer past.
        ids: ``(1, length)``, the last of which is not read.
        begun: how many of them are the beginning.
        past: an empty one.

    Returns:
        What each of the other ids follows from, ``(length - begun, vocabulary)``.
    """
    rows, read = [], 0
    for stop in range(begun, ids.shape[1]):
        logits, past = run(ids[:, read:stop], past)
        rows.append(logits[0, -1])
        read = stop
    return np.stack(rows)


def until_end(tokens: Sequence[int], ends: Collection[int]) -> list[int]:
    """Cut tokens behind the first that ends a text."""
    for place, token in enumerate(tokens):
        if token in ends:
            return list(tokens[: place + 1])
    return list(tokens)


def token_ids(value: int | Iterable[int] | None) -> tuple[int, ...]:
    """Read what a configuration names: no token, one, or several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
