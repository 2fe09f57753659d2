"""The model ``edgelr`` of lm-evaluation-harness: its tasks run on a bundle, in ONNX Runtime.

    python -m edgelr.lm_eval run --model edgelr --model_args bundle=DIR --tasks hellaswag

Importing this registers the model ``edgelr``; lm-eval has no other way to find models of other
packages, so that ``lm_eval`` itself does not know it. Scores are comparable to those of its model
``hf``: texts are tokenized alike, cut alike, and each is judged by the same logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelr.core.bundle import read_bundle, read_tokenizer
from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError
from edgelr.runtime.evaluators.perplexity import log_softmax
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.decoder import DecoderRunner

if TYPE_CHECKING:
    from numpy.typing import NDArray

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    problem = EnvironmentProblem(
        f"lm-evaluation-harness cannot be imported ({error}). Expected the package lm_eval. "
        f"Install it: pip install 'edgelr[lm-eval]'."
    )
    raise (SystemExit(str(problem)) if __name__ == "__main__" else problem) from error

FROM_HARNESS = {"batch_size", "max_batch_size", "device"}
Request = tuple[Any, list[int], list[int]]  # key in the cache, or None; context; continuation


@register_model("edgelr")
class BundleLM(TemplateLM):  # type: ignore[misc]  # its classes are not looked into
    """A model of lm-eval that runs a decoder's bundle, one text at a time.

    Args:
        bundle: folder that ``edgelr export`` wrote.
        provider: ``"cpu"`` or ``"cuda"``.
        threads: threads of one operator; None takes every core.
        max_length: longest context, tokens; None takes the model's.
        max_gen_toks: longest answer of tasks that do not set one, tokens.
        others: arguments that lm-eval itself adds; they are not used.

    Raises:
        InputError: the bundle generates no text, or an argument is unknown.
    """

    def __init__(
        self,
        bundle: str,
        provider: str = "cpu",
        threads: int | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        **others: object,
    ) -> None:
        super().__init__()
        if unknown := sorted(others.keys() - FROM_HARNESS):
            raise InputError(
                f"--model_args has {', '.join(unknown)}; expected bundle, provider, threads, "
                f"max_length and max_gen_toks. Leave the others away."
            )
        opened = read_bundle(Path(bundle))
        self.decoder = DecoderRunner.open(opened, Execution(provider, threads))
        self.tokenizer = read_tokenizer(opened)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.max_length = min(
            max_length or opened.manifest.context_tokens, opened.manifest.context_tokens
        )
        self.max_gen_toks = max_gen_toks
        self._first: int | None = self.decoder.config.get("bos_token_id")

    @property
    def eot_token_id(self) -> int:
        """Token that ends a text; where the model has none, the one that begins it."""
        return next(iter(self.decoder.ends), self._first or 0)

    @property
    def prefix_token_id(self) -> int:
        """Token that stands before what has no context."""
        return self.eot_token_id if self._first is None else self._first

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Tokenize as the tokenizer does by itself, but begin no text twice."""
        if add_special_tokens is None:
            begun = self.tokenizer.id_to_token(self.prefix_token_id)
            add_special_tokens = not (begun and string.startswith(begun))
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=add_special_tokens).ids
        return ids

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        """Sum the logarithms of probabilities, and tell whether each token is the likeliest."""
        answers = []
        for key, context, following in _with_progress(requests, "Likelihoods", disable_tqdm):
            answers.append(self._likelihood(context, following))
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, answers[-1])
        return answers

    def _likelihood(self, context: list[int], following: list[int]) -> tuple[float, bool]:
        if not following:
            return 0.0, True
        tokens = np.array([*context, *following][-(self.max_length + 1) :], np.int64)
        count = min(len(following), len(tokens) - 1)
        given, wanted = tokens[:-count], tokens[-count:]
        logits = log_softmax(self.decoder.predicted(given, wanted))
        total = float(logits[np.arange(count), wanted].sum())
        return total, bool((logits.argmax(-1) == wanted).all())

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Sum the logarithms of the probabilities of whole texts, in pieces of the context."""
        answers = []
        for (text,) in _with_progress([each.args for each in requests], "Texts", disable_tqdm):
            windows = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            )
            pieces = [(None, *make_disjoint_window(window)) for window in windows]
            answers.append(sum(found for found, _ in self._loglikelihood_tokens(pieces, True)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answers[-1])
        return answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Write greedily behind every context, up to a text that stops it, or the end."""
        answers = []
        for context, options in _with_progress(
            [each.args for each in requests], "Answers", disable_tqdm
        ):
            answers.append(self._written(context, **options))
            self.cache_hook.add_partial("generate_until", (context, options), answers[-1])
        return answers

    def _written(
        self,
        context: str,
        until: str | Sequence[str] = (),
        max_gen_toks: int | None = None,
        do_sample: bool = False,
        temperature: float = 0.0,
        **_: object,
    ) -> str:
        if do_sample and temperature > 0:
            raise InputError(
                f"The task asks for sampled text (temperature {temperature}); expected one that "
                f"takes the likeliest. Give --gen_kwargs do_sample=False."
            )
        stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
        count = min(max_gen_toks or self.max_gen_toks, self.max_length - 1)
        prompt = self.tok_encode(context)[-(self.max_length - count) :]
        step: NDArray[np.int64] = np.array([prompt or [self.prefix_token_id]], np.int64)
        cache = self.decoder.empty_cache(1, step.shape[1] + count)
        tokens: list[int] = []
        text = ""
        while len(tokens) < count and not any(stop in text for stop in stops):
            logits, cache = self.decoder.logits(step, past=cache)
            tokens.append(int(logits[0, -1].argmax()))
            if tokens[-1] in self.decoder.ends:
                break
            text, step = self.tokenizer.decode(tokens), np.array([tokens[-1:]], np.int64)
        found = [text.index(stop) for stop in stops if stop in text]
        return text[: min(found, default=len(text))]


def _with_progress(items: Sequence[Any], what: str, quiet: bool) -> Any:
    """Show how far the work is, as lm-eval does."""
    from tqdm import tqdm

    return tqdm(items, desc=what, disable=quiet)


def main() -> None:
    """Run lm-eval's own command line with this model in it."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except EdgelrError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
