"""Loading: in float32, identified by its weights, and refused by the name of what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.model.load import load
from tests.conftest import MakeModel, write_tiny


@pytest.fixture
def copied(tiny_decoder_folder: Path, tmp_path: Path) -> Path:
    """The tiny decoder, to be damaged."""
    return shutil.copytree(tiny_decoder_folder, tmp_path / "copied")


def change_weights(folder: Path, name: str, value: float | None) -> None:
    """Put a value into one weight, or drop the weight."""
    weights = load_file(folder / "model.safetensors")
    if value is None:
        del weights[name]
    else:
        weights[name][0, 3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_folder_is_loaded_in_float32_without_gradients(
    tiny_encoder_folder: Path, cache: Cache
) -> None:
    model = load(str(tiny_encoder_folder), cache)
    assert (model.task, model.pooling) == ("feature-extraction", "mean")
    kinds = {(weight.dtype, weight.requires_grad) for weight in model.module.parameters()}
    assert kinds == {(torch.float32, False)}
    assert not model.module.training


def test_the_digest_follows_the_weights(copied: Path, cache: Cache) -> None:
    before = load(str(copied), cache).digest
    assert load(str(copied), cache).digest == before
    change_weights(copied, "model.layers.0.mlp.down_proj.weight", 0.5)
    assert load(str(copied), cache).digest != before


# --- what is refused -----------------------------------------------------------------------------


def test_a_pickled_checkpoint_is_refused_with_the_way_out(copied: Path, cache: Cache) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"only pickled weights \(pytorch_model\.bin\).*save_pret"):
        load(str(copied), cache)


def test_a_folder_without_weights_or_configuration_is_refused(copied: Path, cache: Cache) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        load(str(copied), cache)
    (copied / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        load(str(copied), cache)


def test_damaged_safetensors_are_refused(copied: Path, cache: Cache) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        load(str(copied), cache)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    copied: Path, cache: Cache, value: float
) -> None:
    change_weights(copied, "model.layers.1.mlp.up_proj.weight", value)
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds 1 NaN"):
        load(str(copied), cache)


def test_a_checkpoint_with_a_gap_is_refused(copied: Path, cache: Cache) -> None:
    change_weights(copied, "model.layers.1.mlp.up_proj.weight", None)
    with pytest.raises(InputError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj\.weight"):
        load(str(copied), cache)


def test_an_unknown_model_type_is_refused_with_the_known_ones(copied: Path, cache: Cache) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(InputError, match=r"model type 'mamba'.*Known model types: .*bert.*llama"):
        load(str(copied), cache)


def test_code_of_the_model_is_not_run_unless_trusted(copied: Path, cache: Cache) -> None:
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "mine.py").write_text("raise SystemExit('the code ran')\n")
    with pytest.raises(InputError, match="--trust-remote-code runs a model's own code"):
        load(str(copied), cache)


def test_a_model_without_a_linear_to_split_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(InputError, match="has no linear that can be factorized"):
        make_model("llama", num_hidden_layers=0)


def test_windows_in_some_blocks_are_refused(tmp_path: Path, cache: Cache) -> None:
    changes = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    layers = ["full_attention", "sliding_attention"]
    folder = write_tiny(tmp_path / "model", "qwen2", **changes, layer_types=layers)
    with pytest.raises(InputError, match="sliding window in 1 of its 2 blocks"):
        load(str(folder), cache)
