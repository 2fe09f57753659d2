"""Where a device's memory goes, what is left for the weights, and how fast they could be read.

device memory = operating system + ONNX Runtime + fixed weights + activations + cache
                + the factorizable weights + headroom
"""

from __future__ import annotations

from edgelr.device import DeviceProfile
from edgelr.errors import BudgetError
from edgelr.types import PRECISION_BYTES, Budget, ModelShape, Precision, Prediction

_MIB = 2**20
_HIDDEN_BUFFERS = 4  # residual, its norm, a block's output, one that is being freed
_INTERMEDIATE_BUFFERS = 3  # gate, up, their product
_SCORE_BUFFERS = 2  # attention scores and their softmax


def weight_budget(
    device: DeviceProfile,
    shape: ModelShape,
    fixed_weight_bytes: int,
    context_tokens: int,
    precision: Precision,
) -> Budget:
    """Compute the bytes that a device leaves for the factorizable weights.

    Args:
        device: gives the memory, the batch and the tokens of a prefill.
        shape: sizes of the model.
        fixed_weight_bytes: weights that are never factorized: embeddings, norms, biases.
        context_tokens: tokens that the key/value cache holds, per sequence.
        precision: of the activations and the cache.
    """
    return Budget(
        device_bytes=device.visible_bytes,
        reserved_bytes=device.reserved_bytes,
        runtime_bytes=device.runtime_bytes,
        fixed_weight_bytes=fixed_weight_bytes,
        activation_bytes=activation_bytes(device, shape, precision),
        cache_bytes=cache_bytes(device, shape, context_tokens, precision),
        context_tokens=context_tokens,
    )


def cache_bytes(
    device: DeviceProfile, shape: ModelShape, context_tokens: int, precision: Precision
) -> int:
    """Compute the size of the keys and values of every layer; 0 for encoders."""
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_size * PRECISION_BYTES[precision]
    return per_token * context_tokens * device.workload.batch.value


def activation_bytes(device: DeviceProfile, shape: ModelShape, precision: Precision) -> int:
    """Estimate the largest sum of buffers that are alive together while a prompt is read.

    With ``t`` tokens in a prefill, at most one of attention, MLP and (decoders) logits is alive::

        4 t hidden + max(2 heads t t + 3 t heads head_size, 3 t intermediate, t vocab)

    The scores are counted in full, because only some attention kernels avoid them.
    """
    tokens = device.prefill_tokens
    attention_width = shape.attention_heads * shape.head_size
    attention = _SCORE_BUFFERS * shape.attention_heads * tokens + 3 * attention_width  # q, k, v
    widest = max(attention, _INTERMEDIATE_BUFFERS * shape.intermediate_size)
    if shape.kv_heads:
        widest = max(widest, shape.vocab_size)
    per_token = _HIDDEN_BUFFERS * shape.hidden_size + widest
    return per_token * tokens * device.workload.batch.value * PRECISION_BYTES[precision]


def ledger(budget: Budget, weight_bytes: int) -> list[tuple[str, int]]:
    """List where the memory goes: the first row is the sum of the others."""
    return [
        ("device memory", budget.device_bytes),
        ("operating system and services", budget.reserved_bytes),
        ("ONNX Runtime process", budget.runtime_bytes),
        ("weights that stay as they are", budget.fixed_weight_bytes),
        ("activations", budget.activation_bytes),
        (f"key/value cache of {budget.context_tokens} tokens", budget.cache_bytes),
        ("factorizable weights", weight_bytes),
        ("headroom", budget.weight_bytes - weight_bytes),
    ]


def longest_context_tokens(budget: Budget, weight_bytes: int) -> int:
    """Compute how many tokens the cache may hold beside ``weight_bytes``; 0 when none fit.

    The cache is the only part of a budget that grows with the context.
    """
    if not budget.cache_bytes:
        return budget.context_tokens if weight_bytes <= budget.weight_bytes else 0
    cache_bytes_per_token = budget.cache_bytes // budget.context_tokens
    room_bytes = budget.weight_bytes + budget.cache_bytes - weight_bytes
    return max(0, room_bytes // cache_bytes_per_token)


def require_feasible(budget: Budget, smallest_plan_bytes: int, device: DeviceProfile) -> None:
    """Make sure that the smallest plan fits.

    Raises:
        BudgetError: it does not; the message has the ledger and the nearest feasible point.
    """
    if smallest_plan_bytes <= budget.weight_bytes:
        return
    rows = ledger(budget, smallest_plan_bytes)
    table = "\n".join(f"  {name:<36}{size / _MIB:>12,.1f} MiB" for name, size in rows)
    raise BudgetError(
        f"The smallest plan needs {smallest_plan_bytes:,} bytes of weights, but {device.id} "
        f"leaves {max(0, budget.weight_bytes):,}:\n{table}\n"
        f"{_nearest_feasible_point(budget, smallest_plan_bytes)}"
    )


def _nearest_feasible_point(budget: Budget, smallest_plan_bytes: int) -> str:
    tokens = longest_context_tokens(budget, smallest_plan_bytes)
    if tokens:
        return f"It fits with --context-tokens {tokens}, or on a device with more memory."
    short_bytes = smallest_plan_bytes - budget.weight_bytes - budget.cache_bytes
    if budget.cache_bytes:  # a context shorter than one token is of no use
        short_bytes += budget.cache_bytes // budget.context_tokens
    short_mib = -(-short_bytes // _MIB)
    return (
        f"Even the shortest context leaves the device {short_mib:,} MiB short: "
        f"choose a lower precision, a smaller model, or a device with more memory."
    )


def predict(
    device: DeviceProfile,
    shape: ModelShape,
    budget: Budget,
    precision: Precision,
    *,
    dense_bytes: int,
    bundle_bytes: int,
    dense_parameters: int,
    bundle_parameters: int,
) -> Prediction | None:
    """Predict latencies on a device that is not at hand, by a roofline; never a measurement.

    Decoding a token reads every weight and the full cache once: ``bytes / bandwidth``. Reading a
    prompt is bound by arithmetic or by memory: ``max(2 parameters tokens / peak, bytes /
    bandwidth)``. Overheads are not counted, so that real times are longer.

    Args:
        device: gives the peak rates; without arithmetic in ``precision``, its float32 rate.
        shape: tells decoders from encoders; encoders do not decode.
        budget: gives the cache at full context, and what else stays in memory.
        precision: of the arithmetic.
        dense_bytes: size of the dense export's weight files.
        bundle_bytes: size of the bundle's.
        dense_parameters: parameters that every token is multiplied by, in the dense export.
        bundle_parameters: the same of the bundle.

    Returns:
        The prediction, or None when the profile has no bandwidth or no peak rate.
    """
    bandwidth = device.bandwidth_bytes_per_second
    peak = device.flops_per_second(precision) or device.flops_per_second("float32")
    if bandwidth is None or peak is None:
        return None
    tokens = device.prefill_tokens
    flops_per_parameter = 2 * tokens * device.workload.batch.value  # one multiply, one add

    def decode_ms(weight_bytes: int) -> float | None:
        return (weight_bytes + budget.cache_bytes) / bandwidth * 1e3 if shape.kv_heads else None

    def prefill_ms(weight_bytes: int, parameters: int) -> float:
        return max(flops_per_parameter * parameters / peak, weight_bytes / bandwidth) * 1e3

    return Prediction(
        dense_decode_ms=decode_ms(dense_bytes),
        bundle_decode_ms=decode_ms(bundle_bytes),
        dense_prefill_ms=prefill_ms(dense_bytes, dense_parameters),
        bundle_prefill_ms=prefill_ms(bundle_bytes, bundle_parameters),
        prefill_tokens=tokens,
        resident_bytes=(
            bundle_bytes + budget.runtime_bytes + budget.activation_bytes + budget.cache_bytes
        ),
    )
