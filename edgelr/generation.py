"""How the target of a sequence-to-sequence model begins, what it may not hold, where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        for place, token in enumerate(tokens):
            if token in self.ends:
                return list(tokens[: place + 1])
        return list(tokens)


def read_start(config: Mapping[str, Any], generation: Mapping[str, Any]) -> Start:
    """Read ``config.json`` and ``generation_config.json``, of which the second wins."""
    known = {name: value for name, value in config.items() if value is not None}
    known |= {name: value for name, value in generation.items() if value is not None}
    forced = known.get("forced_bos_token_id")
    first = known.get("decoder_start_token_id", known.get("bos_token_id", 0))
    words = [word[0] for word in known.get("bad_words_ids", ()) if len(word) == 1]
    return Start(
        tokens=(int(first), *_numbers(forced)),
        ends=_numbers(known.get("eos_token_id")),
        never=(*words, *known.get("suppress_tokens", ())),
    )


def _numbers(value: int | Iterable[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
