"""Does this reranker still sort passages as it did when it was exported?

    pytest tests

Needs numpy, onnxruntime, tokenizers and pytest. conftest.py says which provider is tested, and how
closely. `stored` holds pairs of texts, and the scores that the original and this bundle gave them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

TOGETHER = 4  # pairs in the padded batch


def score(session: ort.InferenceSession, ids: Any, mask: Any, types: Any) -> Any:
    """Return the scores of pairs, ``(pairs,)``."""
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    wanted = {item.name: feeds[item.name] for item in session.get_inputs()}
    return session.run(None, wanted)[0][:, 0].astype(np.float32)


def ranks(values: Any) -> Any:
    """Rank numbers from 1; equal ones share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


@pytest.fixture(scope="session")
def scores(session: ort.InferenceSession, stored: Any) -> Any:
    """Score every pair alone."""
    found = []
    for ids, types, length in zip(stored["ids"], stored["types"], stored["lengths"], strict=True):
        row = ids[None, :length]
        found.append(score(session, row, np.ones_like(row), types[None, :length])[0])
    return np.array(found)


def test_the_tokenizer_gives_the_stored_ids(folder: Path, manifest: Any, stored: Any) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    longest = (tokenizer.truncation or {}).get("max_length", manifest["context_tokens"])
    tokenizer.enable_truncation(min(longest, manifest["context_tokens"]))
    tokenizer.no_padding()
    columns = (stored[name] for name in ("pairs", "ids", "types", "lengths"))
    for pair, ids, types, length in zip(*columns, strict=True):
        found = tokenizer.encode(str(pair[0]), str(pair[1]))
        assert found.ids == ids[:length].tolist(), pair
        assert found.type_ids == types[:length].tolist(), pair


def test_scores_are_those_of_the_export(
    scores: Any, stored: Any, expected: Any, difference: Callable[..., float]
) -> None:
    assert difference(scores, stored["scores"]) <= expected["tolerance"]


def test_the_order_is_within_the_gate_of_the_original(
    scores: Any, stored: Any, expected: Any
) -> None:
    ordered = np.corrcoef(ranks(scores), ranks(stored["original_scores"]))[0, 1]
    assert ordered >= expected["limit"], f"{expected['metric']} is {ordered:.4f}"


def test_padded_pairs_score_like_pairs_alone(
    session: ort.InferenceSession,
    scores: Any,
    stored: Any,
    config: Any,
    expected: Any,
    difference: Callable[..., float],
) -> None:
    lengths = stored["lengths"][:TOGETHER]
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids, types = (stored[name][:TOGETHER, : lengths.max()] for name in ("ids", "types"))
    padded = np.where(mask == 1, ids, max(0, config.get("pad_token_id") or 0))
    found = score(session, padded, mask, types)
    assert difference(found, scores[:TOGETHER]) <= expected["tolerance"]
