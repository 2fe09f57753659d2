"""Beginning, forbidden tokens and end of a generated text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelr.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Keys of generation_config.json that bundles do as asked, or that ask for nothing here.
ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
STARTS = (
    "bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "forced_bos_token_id",
    "forced_decoder_ids", "is_multilingual", "lang_to_id", "language", "no_timestamps_token_id",
    "suppress_tokens", "task", "task_to_id",
)  # fmt: skip
HARMLESS = (
    # Sampling, which stays with the file for who samples: programs take the likeliest token.
    "do_sample", "epsilon_cutoff", "eta_cutoff", "min_p", "temperature", "top_h", "top_k", "top_p",
    "typical_p",
    # Limits and formats of an answer, which callers give.
    "max_initial_timestamp_index", "max_length", "max_new_tokens", "max_time",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_logits",
    "output_scores",
    "prev_sot_token_id", "return_dict_in_generate", "return_timestamps", "stop_strings",
    # Of beams, which are told by their number; and how transformers works.
    "_from_model_config", "alignment_heads", "cache_config", "cache_implementation",
    "compile_config", "continuous_batching_config", "disable_compile", "diversity_penalty",
    "early_stopping", "length_penalty", "num_beam_groups", "renormalize_logits",
    "remove_invalid_values", "transformers_version", "use_cache", "use_mla",
)  # fmt: skip
NEUTRAL: Mapping[str, Any] = {  # what asks for nothing, of keys that ask for something
    "encoder_repetition_penalty": 1.0,
    "guidance_scale": 1.0,
    "num_beams": 1,
    "repetition_penalty": 1.0,
}


def left_out(generation: Mapping[str, Any], has_start: bool) -> dict[str, Any]:
    """List what ``generation_config.json`` asks for, and programs of a bundle do not do.

    Args:
        generation: its content.
        has_start: whether targets begin as ``read_start`` reads it, as those of encoder-decoders.
    """
    done = {*ENDS, *HARMLESS, *(STARTS if has_start else ())}
    return {
        name: value
        for name, value in generation.items()
        if name not in done and value and value != NEUTRAL.get(name)
    }


@dataclass(frozen=True, slots=True)
class Start:
    """Settings that transformers' ``generate`` takes from a model's configuration.

    Attributes:
        tokens: prefix token ids of every target.
        ends: token ids of which any ends the target.
        never: token ids that are never generated.
        never_first: token ids that are never generated right behind the prefix.
        choices: of these, the likeliest follows ``tokens``: the language of a sound, if nothing
            else says it.
        then: token ids inserted after the choice.
    """

    tokens: tuple[int, ...]
    ends: tuple[int, ...]
    never: tuple[int, ...] = ()
    never_first: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()
    then: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens before the first that is generated."""
        return len(self.tokens) + bool(self.choices) + len(self.then)

    def begin(
        self, rows: int, ask: Callable[[NDArray[np.int64]], NDArray[Any]]
    ) -> NDArray[np.int64]:
        """Give the prefixes of the targets of a batch, ``(rows, length)``.

        Args:
            rows: number of rows of the batch.
            ask: gives the logits ``(rows, vocabulary)`` behind tokens ``(rows, n)``; called where
                there is a choice.
        """
        begun = np.tile(np.array(self.tokens, np.int64), (rows, 1))
        if not self.choices:
            return begun
        choices = np.array(self.choices, np.int64)
        chosen = choices[ask(begun)[:, choices].argmax(-1)]
        then = np.tile(np.array(self.then, np.int64), (rows, 1))
        return np.concatenate([begun, chosen[:, None], then], axis=1)

    def ruled_out(self, generated: int) -> list[int]:
        """List the token ids that may not follow so many generated tokens."""
        return [*self.never, *(() if generated else self.never_first)]

    def allowed(self, logits: NDArray[Any], generated: int) -> NDArray[Any]:
        """Rule out tokens that may not follow, in logits ``(rows, vocabulary)``; in place."""
        logits[:, self.ruled_out(generated)] = -np.inf
        return logits

    def until_end(self, tokens: Sequence[int]) -> list[int]:
        """Cut a target behind its end."""
        return until_end(tokens, self.ends)


def read_start(config: Mapping[str, Any], generation: Mapping[str, Any]) -> Start:
    """Read ``config.json`` and ``generation_config.json``, of which the second wins.

    Raises:
        InputError: they name a language or a task that has no token.
    """
    known = {name: value for name, value in config.items() if value is not None}
    known |= {name: value for name, value in generation.items() if value is not None}
    first = int(known.get("decoder_start_token_id", known.get("bos_token_id", 0)))
    words = [word[0] for word in known.get("bad_words_ids", ()) if len(word) == 1]
    prompt = [*token_ids(known.get("forced_bos_token_id")), *_prompt(known)]
    place = prompt.index(None) if None in prompt else len(prompt)
    heard = known.get("lang_to_id", {}).values() if place < len(prompt) else ()
    before, behind = ([token for token in part if token is not None]
                      for part in (prompt[:place], prompt[place:]))  # fmt: skip
    return Start(
        tokens=(first, *before, *(() if heard else behind)),
        ends=token_ids(known.get("eos_token_id")),
        never=(*words, *known.get("suppress_tokens", ())),
        never_first=token_ids(known.get("begin_suppress_tokens")),
        choices=tuple(heard),
        then=tuple(behind) if heard else (),
    )


def _prompt(known: Mapping[str, Any]) -> list[int | None]:
    """Read the prompt of a model of speech; None stands for a language that is to be detected.

    As in transformers, ``language`` and ``task`` count where there are any, and else
    ``forced_decoder_ids``, pairs of a place and a token. No times are asked for.
    """
    languages, tasks = known.get("lang_to_id", {}), known.get("task_to_id", {})
    language, task = known.get("language"), known.get("task")
    prompt: list[int | None] = []
    if language is None and task is None:
        prompt += [token for _, token in sorted(known.get("forced_decoder_ids", ()))]
    if language is not None:
        prompt.append(_named(str(language), languages, "language"))
    elif languages and not prompt:
        prompt.append(None)
    if task or (language and tasks):
        prompt.append(_named(task or "transcribe", tasks, "task"))
    untimed = known.get("no_timestamps_token_id")
    return prompt if untimed is None or untimed in prompt else [*prompt, untimed]


def _named(name: str, ids: Mapping[str, int], what: str) -> int:
    """Look a language up by its token or what stands in it, ``<|en|>`` or ``en``; or a task."""
    for spelled in (name, f"<|{name}|>"):
        if spelled in ids:
            return ids[spelled]
    raise InputError(
        f"generation_config.json asks for the {what} {name!r}; expected one of "
        f"{', '.join(sorted(ids)) or 'none: the model has one'}. Change the {what} there, or "
        f"remove it."
    )


def step_by_step(
    run: Callable[[NDArray[Any], Any], tuple[NDArray[Any], Any]],
    ids: NDArray[Any],
    begun: int,
    past: Any,
) -> NDArray[Any]:
    """Run a text with a cache: its beginning at once, then token by token.

    Args:
        run: function that reads ids ``(1, tokens)`` after a past, and returns logits
            ``(1, tokens, vocabulary)`` and the longer past.
        ids: token ids ``(1, length)``, the last of which is not read.
        begun: number of them that are the beginning.
        past: empty cache.

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
    """Read the token ids that a configuration names: none, one, or several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
