"""Where a device's memory goes, and what is left for the weights.

device memory = operating system + ONNX Runtime + fixed weights + activations + cache
                + the planned weights + headroom

Weights count as ONNX Runtime holds them, which is not as they are stored (``graph/residency.py``).
"""

from __future__ import annotations

from dataclasses import replace

from edgelr.core.dimensions import ModelShape
from edgelr.core.errors import BudgetError
from edgelr.core.plan import Budget
from edgelr.core.vocabulary import MIB, PRECISION_BYTES, Precision
from edgelr.device.profile import DeviceProfile

_HIDDEN_BUFFERS = 4  # residual, its norm, a block's output, one that is being freed
_INTERMEDIATE_BUFFERS = 3  # gate, up, their product


def weight_budget(
    device: DeviceProfile,
    shape: ModelShape,
    fixed_weight_bytes: int,
    context_tokens: int,
    precision: Precision,
    model_tokens: int | None = None,
) -> Budget:
    """Compute the bytes that a device leaves for the planned weights.

    Args:
        device: profile with the memory, the batch and the tokens of a prefill.
        shape: sizes of the model.
        fixed_weight_bytes: weights that no plan changes, in memory: embeddings, norms, biases.
        context_tokens: tokens that the key/value cache holds, per sequence.
        precision: precision of the activations and the cache.
        model_tokens: the longest context that the model takes, where that is known.
    """
    batch, tokens = device.workload.batch.value, device.prefill_tokens

    def growing(context: int) -> tuple[int, int]:
        activations = activation_bytes(shape, batch, tokens, context, precision)
        return activations, cache_bytes(shape, batch, context, precision)

    activations, cache = growing(context_tokens)
    return Budget(
        device_bytes=device.visible_bytes,
        reserved_bytes=device.reserved_bytes,
        runtime_bytes=device.runtime_bytes,
        fixed_weight_bytes=fixed_weight_bytes,
        activation_bytes=activations,
        cache_bytes=cache,
        context_tokens=context_tokens,
        context_token_bytes=sum(growing(context_tokens + 1)) - activations - cache,
        model_tokens=model_tokens,
    )


def cache_bytes(shape: ModelShape, batch: int, tokens: int, precision: Precision) -> int:
    """Compute the size of the keys and values of every layer; 0 for encoders.

    The cache is allocated once, and written in place. That of a decoder beside an encoder grows:
    past and present are there together; keys and values of the source never change.
    """
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_size * PRECISION_BYTES[precision]
    if shape.source_tokens:
        return per_token * (2 * tokens + shape.source_tokens) * batch
    return per_token * tokens * batch


def activation_bytes(
    shape: ModelShape, batch: int, tokens: int, context_tokens: int, precision: Precision
) -> int:
    """Estimate the buffers that ONNX Runtime holds after ``tokens`` were read at once.

    ``t`` tokens take what follows, where encoders attend to ``t`` tokens::

        t (4 hidden + heads context + 3 heads head_size + 3 intermediate + vocab)

    An encoder reads a whole source, and the decoder beside it a token at a time. The parts are not
    alive together, but the arena that frees one seldom has room for the next in its place. Scores
    are counted in full, because only some attention kernels avoid them. Of models with stages,
    those of the first are counted: ``t`` positions that attend to a window.
    """
    if shape.source_tokens:
        encoder = replace(shape, kv_heads=0, source_tokens=0)
        decoder, attended = replace(shape, source_tokens=0), context_tokens + shape.source_tokens
        reads = activation_bytes(encoder, batch, shape.source_tokens, 0, precision)
        return reads + activation_bytes(decoder, batch, 1, attended, precision)
    tokens = round(tokens * shape.positions_per_token)
    attended = context_tokens if shape.kv_heads else shape.window or tokens
    per_token = (
        _HIDDEN_BUFFERS * shape.hidden_size
        + shape.attention_heads * (attended + 3 * shape.head_size)  # scores; query, key and value
        + _INTERMEDIATE_BUFFERS * shape.intermediate_size
        + shape.vocab_size
    )
    return per_token * tokens * batch * PRECISION_BYTES[precision]


def ledger(budget: Budget, weight_bytes: int) -> list[tuple[str, int]]:
    """List where the memory goes: the first row is the sum of the others."""
    return [
        ("device memory", budget.device_bytes),
        ("operating system and services", budget.reserved_bytes),
        ("ONNX Runtime process", budget.runtime_bytes),
        ("weights that stay as they are", budget.fixed_weight_bytes),
        ("activations", budget.activation_bytes),
        (f"key/value cache of {budget.context_tokens:,} tokens", budget.cache_bytes),
        ("planned weights", weight_bytes),
        ("headroom", budget.weight_bytes - weight_bytes),
    ]


def longest_context_tokens(budget: Budget, weight_bytes: int) -> int:
    """Compute how many tokens the cache may hold beside ``weight_bytes``; 0 when none fit.

    No more than the model takes.
    """
    room_bytes = budget.weight_bytes - weight_bytes
    if not budget.context_token_bytes:
        return budget.context_tokens if room_bytes >= 0 else 0
    longest = max(0, budget.context_tokens + room_bytes // budget.context_token_bytes)
    return longest if budget.model_tokens is None else min(longest, budget.model_tokens)


def require_feasible(budget: Budget, smallest_plan_bytes: int, device: DeviceProfile) -> None:
    """Make sure that the smallest plan fits.

    Raises:
        BudgetError: it does not; the message has the ledger and the nearest feasible point.
    """
    if smallest_plan_bytes <= budget.weight_bytes:
        return
    rows = ledger(budget, smallest_plan_bytes)
    table = "\n".join(f"  {name:<36}{size / MIB:>12,.1f} MiB" for name, size in rows)
    raise BudgetError(
        f"The smallest plan needs {smallest_plan_bytes:,} bytes of memory for its weights, but "
        f"{device.id} leaves {max(0, budget.weight_bytes):,}:\n{table}\n"
        f"{_nearest_feasible_point(budget, smallest_plan_bytes)}"
    )


def _nearest_feasible_point(budget: Budget, smallest_plan_bytes: int) -> str:
    tokens = longest_context_tokens(budget, smallest_plan_bytes)
    if tokens:
        return f"It fits with --context-tokens {tokens}, or on a device with more memory."
    shortest = max(0, budget.context_tokens - 1) * budget.context_token_bytes  # saved by one token
    short_bytes = smallest_plan_bytes - budget.weight_bytes - shortest
    short_mib = -(-short_bytes // MIB)
    return (
        f"Even the shortest context leaves the device {short_mib:,} MiB short: "
        f"choose a lower precision, a smaller model, or a device with more memory."
    )
