"""Quantized checkpoints: decoded exactly as they are stored, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.model.checkpoints.quantized import dequantized
from edgelr.model.checkpoints.weights import StoredTensors
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from tests.conftest import MakeModel
from tests.helpers.quantized_files import AWQ_COLUMNS, change_config, pack, requantized

GROUP = 8
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "weight_block_size": [24, 16]}


@pytest.fixture(scope="module")
def original(make_model: MakeModel) -> LoadedModel:
    return make_model(
        "llama",
        hidden_size=64,
        intermediate_size=96,
        head_dim=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        architectures=["LlamaForCausalLM"],
    )


class Numbers:
    """Random integers, zeros and scales of weights, without a layout."""

    def __init__(self, bits: int, group: int = GROUP) -> None:
        self.random, self.bits, self.group = np.random.default_rng(bits), bits, group

    def draw(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        outputs, inputs = shape
        groups = inputs // self.group if self.group > 0 else 1
        integers = self.random.integers(0, 2**self.bits, (inputs, outputs))
        zeros = self.random.integers(1, 2**self.bits, (groups, outputs))
        scales = self.random.uniform(0.001, 0.01, (groups, outputs)).astype(np.float16)
        return integers, zeros, scales


def decoded(
    integers: np.ndarray, zeros: np.ndarray, scales: np.ndarray, groups: np.ndarray
) -> torch.Tensor:
    """``scale * (q - zero)``, one number at a time, in float64: its result fits into float32."""
    weight = scales.astype(np.float64)[groups] * (integers - zeros[groups])
    found = weight.T.astype(np.float32)
    assert (found == weight.T).all()
    return torch.tensor(found)


def gptq(bits: int, offset: int = 1, group: int = GROUP, mixed: bool = False) -> Any:
    numbers = Numbers(bits, group)

    def make(shape: tuple[int, int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        integers, zeros, scales = numbers.draw(shape)
        groups = np.arange(shape[1]) // (group if group > 0 else shape[1])
        groups = numbers.random.permutation(groups) if mixed else groups
        tensors = {
            "qweight": pack(integers.T, bits).T,
            "qzeros": pack(zeros - offset, bits),
            "scales": torch.tensor(scales),
            "g_idx": torch.tensor(groups, dtype=torch.int32),
            "bias": torch.zeros(shape[0], dtype=torch.float16),
        }
        return tensors, decoded(integers, zeros, scales, groups)

    return make


def awq(shape: tuple[int, int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    integers, zeros, scales = Numbers(4).draw(shape)
    tensors = {
        "qweight": pack(integers, 4, AWQ_COLUMNS),
        "qzeros": pack(zeros, 4, AWQ_COLUMNS),
        "scales": torch.tensor(scales),
    }
    return tensors, decoded(integers, zeros, scales, np.arange(shape[1]) // GROUP)


def float8(rows: int, columns: int, name: str = "weight_scale_inv") -> Any:
    """Make weights of 8-bit floats with a scale for blocks; 0 counts for the whole axis."""

    def make(shape: tuple[int, int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        height, width = rows or shape[0], columns or shape[1]
        weight = torch.randn(shape).to(torch.float8_e4m3fn)
        scale = torch.rand(-(-shape[0] // height), -(-shape[1] // width)) / 50 + 0.01
        each = torch.tensor(
            [[scale[i // height, j // width] for j in range(shape[1])] for i in range(shape[0])]
        )
        kept = scale.reshape(()) if scale.numel() == 1 else scale
        return {"weight": weight, name: kept, "input_scale": torch.ones(())}, weight.float() * each

    return make


CT = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8}}},
}


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        (GPTQ, gptq(4)),
        ({**GPTQ, "bits": 2, "group_size": 16}, gptq(2, group=16)),
        ({**GPTQ, "bits": 8, "group_size": -1}, gptq(8, group=-1)),
        ({**GPTQ, "checkpoint_format": "gptq_v2"}, gptq(4, offset=0)),
        ({**GPTQ, "desc_act": True}, gptq(4, mixed=True)),
        (AWQ, awq),
        (FP8, float8(24, 16)),
        ({**FP8, "weight_block_size": None}, float8(0, 0)),
        (CT, float8(1, 0, "weight_scale")),
        (CT, float8(0, 0, "weight_scale")),
    ],
    ids=[
        "gptq",
        "gptq-2",
        "gptq-8",
        "gptq_v2",
        "desc_act",
        "awq",
        "fp8",
        "fp8-one",
        "ct",
        "ct-one",
    ],
)
def test_quantized_weights_are_decoded_exactly(
    settings: dict[str, Any], make: Any, original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "quantized"
    plain = requantized(original.folder, folder, settings, make)
    found = StoredTensors(dequantized(folder, cache))
    assert found.headers.keys() == plain.keys()
    for name, tensor in plain.items():
        assert torch.equal(found.read(name), tensor), name

    model = load(str(folder), cache)
    wanted = transformers.LlamaForCausalLM(original.module.config)
    wanted.load_state_dict(plain, strict=False)
    ids = torch.arange(4, 20)[None]
    assert torch.equal(model.module(ids).logits, wanted.eval()(ids).logits)
    assert not hasattr(model.module.config, "quantization_config")


def test_a_folder_of_floats_stays_where_it_is(original: LoadedModel, cache: Cache) -> None:
    assert dequantized(original.folder, cache) == original.folder
    assert not cache.root.exists()


def test_pickled_weights_are_left_to_be_refused(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "quantized"
    requantized(original.folder, folder, GPTQ, gptq(4))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="only pickled weights"):
        load(str(folder), cache)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "3 bits": ({**GPTQ, "bits": 3}, "gptq, and its bits is 3"),
    "marlin": ({**GPTQ, "checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
    "no bits": ({"quant_method": "gptq"}, "bits are not told"),
    "gemv": ({**AWQ, "version": "gemv"}, "version is 'gemv'"),
    "symmetric awq": ({**AWQ, "zero_point": False}, "zero_point is False"),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "by bitsandbytes"),
    "aqlm": ({"quant_method": "aqlm"}, "by aqlm"),
    "hqq": ({"quant_method": "hqq"}, "by hqq"),
    "mxfp4": ({"quant_method": "mxfp4"}, "by mxfp4"),
    "packed": ({**CT, "format": "pack-quantized"}, "format is 'pack-quantized'"),
    "sparse": ({**CT, "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
    "integers": (
        {**CT, "config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 8}}}},
        "8 bits of int",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_methods_are_refused_by_name(
    name: str, original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    settings, message = REFUSED[name]
    folder = tmp_path / "quantized"
    requantized(original.folder, folder, settings, gptq(4))
    with pytest.raises(InputError, match=f"{message}.*Give the original model"):
        dequantized(folder, cache)
    assert not cache.root.exists()


@pytest.mark.parametrize(
    ("settings", "make", "message"),
    [
        ({**GPTQ, "group_size": 16}, gptq(4), r"parts of .*_proj have sizes of another layout"),
        ({**GPTQ, "bits": 8}, gptq(4), r"parts of .*_proj have sizes of another layout"),
        ({**FP8, "weight_block_size": [8, 8]}, float8(24, 16), r"for blocks of \(8, 8\)"),
        ({**FP8}, float8(24, 16, "scale"), "has no weight_scale_inv or weight_scale"),
        (GPTQ, float8(0, 0), "as F8_E4M3 of .* quantization_config does not explain"),
        (None, float8(0, 0), "as F8_E4M3 of .* quantization_config does not explain"),
        (None, awq, "as I32 of .* quantization_config does not explain"),
    ],
)
def test_tensors_that_do_not_fit_the_settings_are_refused(
    settings: dict[str, Any] | None,
    make: Any,
    message: str,
    original: LoadedModel,
    cache: Cache,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "quantized"
    requantized(original.folder, folder, settings or {}, make)
    with pytest.raises(InputError, match=message):
        dequantized(folder, cache)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e5m2])
def test_weights_of_unexplained_numbers_are_refused(
    dtype: torch.dtype, original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    requantized(original.folder, folder, {}, lambda shape: ({"weight": torch.ones(shape)}, None))
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if "up_proj" in name)
    save_file({**state, name: state[name].to(dtype)}, folder / "model.safetensors")
    with pytest.raises(InputError, match=f"{name} as .* does not explain"):
        dequantized(folder, cache)


def test_buffers_of_integers_and_masks_are_no_quantized_weights(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "buffers"
    requantized(original.folder, folder, {}, lambda shape: ({"weight": torch.ones(shape)}, None))
    state = load_file(folder / "model.safetensors")
    state["embeddings.position_ids"] = torch.arange(8)[None]
    state["h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    state["norm.num_batches_tracked"] = torch.tensor(3)
    save_file(state, folder / "model.safetensors")
    assert dequantized(folder, cache) == folder


def test_an_unknown_family_is_refused_before_the_work(
    original: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "quantized"
    requantized(original.folder, folder, AWQ, awq)
    change_config(folder, model_type="nobody")
    with pytest.raises(InputError, match="No exporter knows the model type 'nobody'"):
        dequantized(folder, cache)
    assert not cache.root.exists()
