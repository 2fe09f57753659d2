"""Budgets: identities of the ledger, and refusals that name a point that really is feasible."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgelr.core.errors import BudgetError
from edgelr.core.plan import Budget
from edgelr.device.budget import (
    ModelShape,
    activation_bytes,
    cache_bytes,
    ledger,
    longest_context_tokens,
    require_feasible,
    weight_budget,
)
from edgelr.device.profile import DeviceProfile, load_profile, profile_names

MIB = 2**20
DECODER = ModelShape(
    layers=30,
    hidden_size=576,
    intermediate_size=1536,
    attention_heads=9,
    kv_heads=3,
    head_size=64,
    vocab_size=49152,
)
ENCODER = replace(DECODER, layers=6, kv_heads=0, vocab_size=0)
FIXED_BYTES = 12_345_678

every_profile = pytest.mark.parametrize("name", profile_names())


@pytest.fixture
def jetson() -> DeviceProfile:
    return load_profile("jetson")


def budget_of(device: DeviceProfile, shape: ModelShape, context_tokens: int = 2048) -> Budget:
    return weight_budget(device, shape, FIXED_BYTES, context_tokens, device.precision)


def with_batch(device: DeviceProfile, batch: int) -> DeviceProfile:
    figure = device.workload.batch.model_copy(update={"value": batch})
    workload = device.workload.model_copy(update={"batch": figure})
    return device.model_copy(update={"workload": workload})


# --- arithmetic ----------------------------------------------------------------------------------


@every_profile
def test_ledger_adds_up_to_the_device(name: str) -> None:
    budget = budget_of(load_profile(name), DECODER)
    (_, device_bytes), *parts = ledger(budget, weight_bytes=99_999_999)
    assert sum(size for _, size in parts) == device_bytes == budget.device_bytes


def test_headroom_is_zero_when_the_weights_take_the_whole_budget(jetson: DeviceProfile) -> None:
    budget = budget_of(jetson, DECODER)
    assert ledger(budget, budget.weight_bytes)[-1] == ("headroom", 0)


def test_cache_holds_keys_and_values_of_every_layer() -> None:
    # keys and values, 30 layers, 3 heads of 64, 100 tokens of 2 sequences, 2 bytes
    assert cache_bytes(DECODER, 2, 100, "float16") == 2 * 30 * 3 * 64 * 100 * 2 * 2


def test_cache_is_linear_in_context_and_doubles_in_float32() -> None:
    one = cache_bytes(DECODER, 1, 1, "float16")
    assert cache_bytes(DECODER, 1, 777, "float16") == 777 * one
    assert cache_bytes(DECODER, 1, 777, "float32") == 2 * 777 * one


def test_encoders_keep_no_cache_and_no_logits() -> None:
    assert cache_bytes(ENCODER, 1, 512, "float32") == 0
    plain = activation_bytes(ENCODER, 1, 128, 128, "float32")
    assert activation_bytes(ENCODER, 1, 128, 2048, "float32") == plain
    assert plain < activation_bytes(DECODER, 1, 128, 128, "float32")


def test_an_encoder_that_fills_masks_has_logits() -> None:
    fills = replace(ENCODER, vocab_size=30522)
    logits = activation_bytes(fills, 2, 128, 128, "float32") - activation_bytes(
        ENCODER, 2, 128, 128, "float32"
    )
    assert logits == 2 * 128 * 30522 * 4


def test_activations_hold_logits_scores_and_hidden_states() -> None:
    per_token = 49152 + 4 * 576 + 9 * (2048 + 3 * 64) + 3 * 1536
    assert activation_bytes(DECODER, 2, 100, 2048, "float16") == 2 * 100 * per_token * 2


def test_one_more_token_of_context_takes_what_the_budget_says(jetson: DeviceProfile) -> None:
    budget, longer = budget_of(jetson, DECODER, 100), budget_of(jetson, DECODER, 101)
    assert budget.weight_bytes - longer.weight_bytes == budget.context_token_bytes > 0
    assert budget_of(jetson, ENCODER, 100).context_token_bytes == 0


def test_a_batch_multiplies_cache_and_activations(jetson: DeviceProfile) -> None:
    one, three = budget_of(jetson, DECODER), budget_of(with_batch(jetson, 3), DECODER)
    assert three.cache_bytes == 3 * one.cache_bytes
    assert three.activation_bytes == 3 * one.activation_bytes


def test_a_byte_of_fixed_weights_is_a_byte_less_for_the_others(jetson: DeviceProfile) -> None:
    budget = budget_of(jetson, DECODER)
    more = weight_budget(jetson, DECODER, FIXED_BYTES + 1, 2048, "float16")
    assert budget.weight_bytes - more.weight_bytes == 1


# --- refusals ------------------------------------------------------------------------------------


def test_a_plan_of_exactly_the_budget_is_accepted(jetson: DeviceProfile) -> None:
    budget = budget_of(jetson, DECODER)
    require_feasible(budget, budget.weight_bytes, jetson)
    with pytest.raises(BudgetError):
        require_feasible(budget, budget.weight_bytes + 1, jetson)


@pytest.mark.parametrize("context_tokens", [400_000, 7_777_777])
def test_the_named_context_is_the_longest_that_fits(
    jetson: DeviceProfile, context_tokens: int
) -> None:
    smallest_plan_bytes = 123_456_789
    budget = budget_of(jetson, DECODER, context_tokens)
    with pytest.raises(BudgetError) as caught:
        require_feasible(budget, smallest_plan_bytes, jetson)
    found = re.search(r"--context-tokens (\d+)", str(caught.value))
    assert found is not None
    longest = int(found[1])
    require_feasible(budget_of(jetson, DECODER, longest), smallest_plan_bytes, jetson)
    with pytest.raises(BudgetError):
        require_feasible(budget_of(jetson, DECODER, longest + 1), smallest_plan_bytes, jetson)


def test_a_refusal_shows_the_ledger_and_the_exit_code(jetson: DeviceProfile) -> None:
    budget = budget_of(jetson, DECODER)
    with pytest.raises(BudgetError, match=r"jetson leaves [\d,]+:\n  device memory +7,620\.0 MiB"):
        require_feasible(budget, 2 * jetson.visible_bytes, jetson)
    assert BudgetError.exit_code == 4


@pytest.mark.parametrize("shape", [DECODER, ENCODER])
def test_the_named_shortfall_is_what_the_device_lacks(
    jetson: DeviceProfile, shape: ModelShape
) -> None:
    smallest_plan_bytes = jetson.visible_bytes
    with pytest.raises(BudgetError) as caught:
        require_feasible(budget_of(jetson, shape), smallest_plan_bytes, jetson)
    found = re.search(r"([\d,]+) MiB short", str(caught.value))
    assert found is not None
    short_bytes = int(found[1].replace(",", "")) * MIB
    shortest = budget_of(jetson, shape, 1)
    for extra_bytes, fits in ((short_bytes, True), (short_bytes - MIB, False)):
        grown = replace(shortest, device_bytes=shortest.device_bytes + extra_bytes)
        assert (smallest_plan_bytes <= grown.weight_bytes) is fits


def test_no_context_is_longer_than_the_model_takes(jetson: DeviceProfile) -> None:
    budget = weight_budget(jetson, DECODER, FIXED_BYTES, 512, "float16", model_tokens=8192)
    assert longest_context_tokens(budget, 0) == 8192
    assert longest_context_tokens(budget, budget.weight_bytes) == 512


def test_context_does_not_matter_to_encoders(jetson: DeviceProfile) -> None:
    budget = budget_of(jetson, ENCODER, 512)
    assert longest_context_tokens(budget, budget.weight_bytes) == 512
    assert longest_context_tokens(budget, budget.weight_bytes + 1) == 0
