"""GGUF files: what their metadata says is in the model, or ends the run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.model.checkpoints.gguf_model import from_gguf
from edgelr.model.loaded import LoadedModel
from tests.conftest import MakeModel
from tests.helpers.gguf_files import write_gguf

IDS = torch.arange(4, 44).view(2, 20)
FACTORS = np.array([1.0, 1.0, 1.5, 2.0, 3.5, 6.0, 8.0, 8.0], np.float32)
FREQUENCIES = 10000.0 ** -(np.arange(0, 16, 2) / 16)


@pytest.fixture(scope="module")
def original(make_model: MakeModel) -> LoadedModel:
    """A Llama with heads of another size than usual."""
    return make_model(
        "llama",
        head_dim=16,
        hidden_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where weights are read."""

    def read(*arguments: object, **options: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", read)


def loaded(path: Path, cache: Cache) -> Any:
    folder = from_gguf(path, cache)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def with_frequencies(model: LoadedModel, frequencies: np.ndarray, scale: float = 1.0) -> Any:
    """Copy a model, and rotate with these frequencies; cosine and sine times ``scale``."""
    copy = transformers.LlamaForCausalLM(model.module.config)
    copy.load_state_dict(model.module.state_dict())
    copy.model.rotary_emb.inv_freq.copy_(torch.tensor(frequencies))
    copy.model.rotary_emb.attention_scaling = scale
    return copy.eval()


def require_equal_logits(found: Any, expected: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(found(IDS).logits, expected(IDS).logits, atol=1e-5, rtol=1e-4)


def yarn_frequencies(factor: float, original: int, fast: float, slow: float) -> np.ndarray:
    """Interpolate the frequencies that turn rarely (arXiv:2309.00071), as llama.cpp does."""

    def place(turns: float) -> float:
        return 16 * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(10000.0))

    low, high = max(math.floor(place(fast)), 0), min(math.ceil(place(slow)), 15)
    ramp = np.clip((np.arange(8) - low) / max(0.001, high - low), 0, 1)
    return FREQUENCIES / factor * ramp + FREQUENCIES * (1 - ramp)


def scaling(**values: Any) -> dict[str, Any]:
    return {f"llama.rope.scaling.{name}": value for name, value in values.items()}


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 16}
ROTARY: dict[str, tuple[dict[str, Any], dict[str, Any], np.ndarray, float]] = {
    "plain": ({}, {}, FREQUENCIES, 1.0),
    "none": (scaling(type="none", factor=4.0), {}, FREQUENCIES, 1.0),
    "linear": (scaling(type="linear", factor=4.0), {}, FREQUENCIES / 4, 1.0),
    "without a type": (scaling(factor=2.0), {}, FREQUENCIES / 2, 1.0),
    "legacy": ({"llama.rope.scale_linear": 2.0}, {}, FREQUENCIES / 2, 1.0),
    "yarn": (scaling(**YARN), {}, yarn_frequencies(4, 16, 32, 1), 1 + 0.1 * math.log(4)),
    "yarn by hand": (
        scaling(**YARN, yarn_beta_fast=8.0, yarn_beta_slow=2.0, attn_factor=0.9),
        {},
        yarn_frequencies(4, 16, 8, 2),
        0.9 * (1 + 0.1 * math.log(4)),
    ),
    "factors": ({}, {"rope_freqs.weight": FACTORS}, FREQUENCIES / FACTORS, 1.0),
    "factors and linear": (
        scaling(type="linear", factor=2.0),
        {"rope_freqs.weight": FACTORS},
        FREQUENCIES / FACTORS / 2,
        1.0,
    ),
    "short and long factors": (
        scaling(type="longrope", original_context_length=32, attn_factor=1.25),
        {"rope_factors_short.weight": FACTORS, "rope_factors_long.weight": FACTORS * 2},
        FREQUENCIES / FACTORS,  # 20 tokens
        1.25,
    ),
    "another base": ({"llama.rope.freq_base": 500.0}, {}, 500.0 ** -(np.arange(8) / 8), 1.0),
    "no base": ({"llama.rope.freq_base": None}, {}, FREQUENCIES, 1.0),
}


@pytest.mark.parametrize("name", ROTARY)
def test_rotary_positions_are_scaled_as_the_file_says(
    name: str, original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    metadata, tensors, frequencies, scale = ROTARY[name]
    path = write_gguf(original.module, tmp_path / "tiny.gguf", metadata, tensors)
    found = loaded(path, cache)
    np.testing.assert_allclose(found.model.rotary_emb.inv_freq, frequencies, rtol=1e-5)
    require_equal_logits(found, with_frequencies(original, frequencies, scale))


def test_factors_of_each_frequency_are_the_same_at_every_length(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    tensors = {"rope_freqs.weight": FACTORS}
    config = loaded(write_gguf(original.module, tmp_path / "a.gguf", {}, tensors), cache).config
    factors = [float(each) for each in FACTORS]
    assert config.rope_parameters == {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": 64,
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a window": ({"attention.sliding_window": 16}, "= 16, which LlamaConfig cannot express"),
    "a cap": ({"final_logit_softcapping": 30.0}, r"= 30\.0, which LlamaConfig cannot express"),
    "a cap of attention": ({"attn_logit_softcapping": 50.0}, r"= 50\.0, which LlamaConfig"),
    "experts": ({"expert_count": 8}, "expert_count = 8, which means 0 here"),
    "both sides": ({"attention.causal": False}, "attention.causal = False, which means True"),
    "a scale": ({"logit_scale": 0.5}, r"logit_scale = 0\.5"),
    "pooling": ({"pooling_type": 3}, "pooling_type = 3"),
    "a new key": ({"attention.new": "words"}, "attention.new = 'words', which is not understood"),
    "a new scaling": ({"rope.scaling.new": 2}, "rope.scaling.new = 2, which is not understood"),
    "a new type": ({"rope.scaling.type": "x"}, "rope.scaling.type = 'x', which is not understood"),
    "half a head": ({"rope.dimension_count": 8}, "dimension_count = 8, while heads have 16"),
    "other values": ({"attention.value_length": 8}, "value_length = 8, while keys have 16"),
    "other blocks": ({"feed_forward_length": [64, 32]}, "a size for each block"),
    "long alone": ({"rope.scaling.type": "longrope"}, "rope_factors_long.weight are needed"),
    "yarn of another kind": (
        {"rope.scaling.type": "yarn", "rope.scaling.yarn_ext_factor": 0.5},
        r"yarn_ext_factor = 0\.5",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("no_weights")
def test_metadata_that_is_not_understood_ends_the_run(
    name: str, original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    values, message = REFUSED[name]
    metadata = {f"llama.{key}": value for key, value in values.items()}
    path = write_gguf(original.module, tmp_path / "tiny.gguf", metadata)
    with pytest.raises(InputError, match=f"tiny.gguf has llama.*{message}"):
        from_gguf(path, cache)


def test_metadata_that_changes_nothing_is_read_over(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    metadata = {
        "general.name": "tiny",
        "general.quantization_version": 2,
        "quantize.imatrix.file": "matrix.dat",
        "llama.attention.sliding_window": 64,
        "llama.expert_count": 0,
        "llama.rope.dimension_count": 16,
        "llama.rope.scaling.finetuned": True,
    }
    path = write_gguf(original.module, tmp_path / "tiny.gguf", metadata)
    require_equal_logits(loaded(path, cache), original.module)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.type": "adapter"}, "of the type 'adapter'"),
        ({"clip.has_vision_encoder": True}, "has clip.has_vision_encoder = True"),
        ({"general.architecture": "nothing"}, "has llama.block_count = 2"),
        ({"tokenizer.ggml.pre": "viking"}, "tokenizer.ggml.pre = 'viking'"),
        ({"tokenizer.ggml.model": "rwkv"}, "cannot be read by transformers.*rwkv"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_files_of_another_kind_are_refused(
    metadata: dict[str, Any], message: str, original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    path = write_gguf(original.module, tmp_path / "tiny.gguf", metadata)
    with pytest.raises(InputError, match=message):
        from_gguf(path, cache)


@pytest.mark.usefixtures("no_weights")
def test_tensors_without_a_place_are_refused(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    tensors = {"blk.1.attn_q_norm.weight": np.ones(16, np.float32)}
    path = write_gguf(original.module, tmp_path / "tiny.gguf", tensors=tensors)
    with pytest.raises(InputError, match=r"1 tensors for which LlamaForCausalLM.*attn_q_norm"):
        from_gguf(path, cache)


def test_factors_of_another_number_are_refused(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    tensors = {"rope_freqs.weight": FACTORS[:5]}
    path = write_gguf(original.module, tmp_path / "tiny.gguf", tensors=tensors)
    with pytest.raises(InputError, match=r"5 factors in rope_freqs\.weight; expected.* 8 freq"):
        from_gguf(path, cache)


def test_a_file_that_does_not_fit_its_configuration_is_refused(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    wrong = {"llama.feed_forward_length": original.module.config.intermediate_size + 8}
    path = write_gguf(original.module, tmp_path / "tiny.gguf", wrong)
    with pytest.raises(InputError, match=r"another shape: .*mlp"):
        from_gguf(path, cache)


@pytest.mark.usefixtures("no_weights")
def test_tokens_without_a_row_are_named(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    rows = original.module.config.vocab_size
    tokens = {"tokenizer.ggml.tokens": [*(f"<{index}>" for index in range(rows)), "<more>"]}
    path = write_gguf(original.module, tmp_path / "tiny.gguf", tokens)
    with pytest.raises(InputError, match=rf"{rows + 1:,} tokens, and {rows:,} rows.*'<more>'"):
        from_gguf(path, cache)


def test_biases_of_attention_and_mlp_are_read(
    make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    model = make_model("llama", attention_bias=True, mlp_bias=True)
    for name, parameter in model.module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    path = write_gguf(model.module, tmp_path / "tiny.gguf")
    require_equal_logits(loaded(path, cache), model.module)


@pytest.mark.parametrize("given", [1, 3])
def test_parts_are_read_as_one_model_whichever_is_given(
    given: int, make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    model = make_model(
        "llama",
        hidden_size=64,
        intermediate_size=96,
        head_dim=16,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    kinds = ("Q8_0", "Q4_0", "F16", "BF16")
    whole = write_gguf(model.module, tmp_path / "whole.gguf", kinds=kinds)
    write_gguf(model.module, tmp_path / "tiny.gguf", kinds=kinds, parts=3)
    folder = from_gguf(tmp_path / f"tiny-{given:05d}-of-00003.gguf", cache)
    assert not list(folder.glob("*.gguf"))
    found = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    expected = loaded(whole, cache).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    tokens = (from_gguf(whole, cache) / "tokenizer.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == tokens


@pytest.mark.usefixtures("no_weights")
def test_missing_parts_are_named(original: LoadedModel, cache: Cache, tmp_path: Path) -> None:
    first = write_gguf(original.module, tmp_path / "tiny.gguf", parts=3)
    (tmp_path / "tiny-00002-of-00003.gguf").unlink()
    with pytest.raises(InputError, match="3 parts, and 1 of them are missing: tiny-00002-of-00003"):
        from_gguf(first, cache)


def test_a_part_under_another_name_is_refused(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    first = write_gguf(original.module, tmp_path / "tiny.gguf", parts=2)
    with pytest.raises(InputError, match=r"one of 2 parts \(split.count\).*its name finds 1"):
        from_gguf(first.rename(tmp_path / "renamed.gguf"), cache)


def test_parts_of_two_models_are_refused(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    first = write_gguf(original.module, tmp_path / "tiny.gguf", parts=2)
    more = {"rope_freqs.weight": FACTORS, "other": FACTORS}
    write_gguf(original.module, tmp_path / "other.gguf", tensors=more, parts=2)
    (tmp_path / "other-00002-of-00002.gguf").rename(tmp_path / "tiny-00002-of-00002.gguf")
    with pytest.raises(InputError, match=r"holds \d+ tensors, and its split.tensors.count is \d+"):
        from_gguf(first, cache)


def test_types_that_are_not_decoded_are_refused(
    original: LoadedModel, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(original.module, tmp_path / "tiny.gguf", kinds=("F16",))

    def undecoded(data: object, kind: gguf.GGMLQuantizationType) -> None:
        raise NotImplementedError

    monkeypatch.setattr("gguf.dequantize", undecoded)
    with pytest.raises(InputError, match=r"holds .* as .*, which the package gguf does not decode"):
        from_gguf(path, cache)


@pytest.mark.parametrize("split", ["gpt-2", "smollm"])
def test_texts_are_cut_as_the_file_says(
    split: str, make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    model = make_model("llama", hidden_size=96)
    digits = [*"0123456789", "12"]
    rare = [f"<{index}>" for index in range(model.module.config.vocab_size - len(digits))]
    metadata = {
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": [*rare, *digits],
        "tokenizer.ggml.merges": ["1 2"],
    }
    folder = from_gguf(write_gguf(model.module, tmp_path / "tiny.gguf", metadata), cache)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = {"gpt-2": ["12"], "smollm": ["1", "2"]}[split]
    assert tokenizer.tokenize("12") == expected


HALF = {"partial_rotary_factor": 0.5}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen3 with large heads": ("qwen3", {"head_dim": 24}),
    "phi3 with a window": ("phi3", {"sliding_window": 8}),
    "stablelm": (
        "stablelm",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, **HALF}},
    ),
    "starcoder2": (
        "starcoder2",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ),
    "gpt2": ("gpt2", {"n_inner": 40, "n_positions": 64}),
    "mistral": ("mistral", {"sliding_window": None}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_are_read_whole(
    name: str, make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    family, changes = FAMILIES[name]
    model = make_model(family, **changes).module
    found = loaded(write_gguf(model, tmp_path / "tiny.gguf"), cache)
    require_equal_logits(found, model)


def test_special_tokens_are_those_of_the_file(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    metadata = {"tokenizer.ggml.eos_token_id": 9, "tokenizer.ggml.bos_token_id": None}
    found = loaded(write_gguf(original.module, tmp_path / "tiny.gguf", metadata), cache)
    for told in (found.config, found.generation_config):
        assert (told.bos_token_id, told.eos_token_id, told.pad_token_id) == (None, 9, None)


def test_the_tokenizer_has_the_tokens_of_the_file_and_no_more(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    folder = from_gguf(write_gguf(original.module, tmp_path / "tiny.gguf"), cache)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == original.module.config.vocab_size
