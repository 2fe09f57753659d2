from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites
from tests.conftest import MakeModel, write_tiny
from tests.helpers.run_exports import batch, run_torch


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


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


# --- each kind of source -------------------------------------------------------------------------


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


def test_a_factory_is_imported_and_kept_as_a_folder(
    tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models.py").write_text(
        "import transformers\n"
        "def make():\n"
        f"    source = {str(tiny_decoder.folder)!r}\n"
        "    model = transformers.AutoModelForCausalLM.from_pretrained(source)\n"
        "    return model, transformers.AutoTokenizer.from_pretrained(source)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = load("my_models:make", cache)
    sys.modules.pop("my_models", None)
    assert model.folder.is_relative_to(cache.root)
    assert (model.folder / "tokenizer.json").exists()
    inputs = batch(model, 2, 9)
    np.testing.assert_array_equal(run_torch(model, *inputs), run_torch(tiny_decoder, *inputs))


def test_a_gguf_file_is_loaded(make_model: MakeModel, cache: Cache, tmp_path: Path) -> None:
    original = make_model("llama", hidden_size=96)  # heads times their size: all that is read
    model = load(str(write_gguf(original, tmp_path / "tiny.gguf")), cache)
    assert model.folder.is_relative_to(cache.root)
    inputs = batch(model, 2, 9)
    expected = run_torch(original, *inputs)
    np.testing.assert_allclose(run_torch(model, *inputs), expected, atol=1e-4)


def test_a_gguf_file_that_does_not_fit_its_configuration_is_refused(
    tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"another shape: .*q_proj"):
        load(str(write_gguf(tiny_decoder, tmp_path / "tiny.gguf")), cache)


def write_gguf(model: LoadedModel, path: Path) -> Path:
    """Write a Llama as llama.cpp does: its rotary weights interleave the halves of a head."""
    gguf = pytest.importorskip("gguf")
    config, weights = model.module.config, model.module.state_dict()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    rare = [f"<{index}>" for index in range(config.vocab_size - 3)]
    writer.add_token_list([*rare, "a", "b", "ab"])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, weight in weights.items():
        if name == "lm_head.weight":
            continue
        array = weight.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = len(array) // config.head_dim
            halves = array.reshape(heads, 2, config.head_dim // 2, -1)
            array = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/model", "is missing; expected a model folder"),
        ("./nowhere", "is missing; expected a model folder"),
        ("~/nowhere", "is missing; expected a model folder"),
        ("/nowhere/model.gguf", r"does not exist; expected a \.gguf file"),
        ("/nowhere/model.onnx", "is an ONNX graph.*Give the model that the graph was exported"),
        ("no_such_module:make", r"cannot be imported.*returns \(model, tokenizer or image"),
        ("json:no_such_factory", r"cannot be imported.*returns \(model, tokenizer or image"),
        ("platform:node", r"returned str; expected \(model, tokenizer\)"),
    ],
)
def test_a_source_that_is_none_is_refused(source: str, message: str, cache: Cache) -> None:
    with pytest.raises(InputError, match=message):
        load(source, cache)


def test_a_file_that_is_no_model_is_refused(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="is a file; expected a model folder"):
        load(str(tmp_path / "notes.txt"), cache)


def test_a_broken_gguf_file_is_refused(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"broken\.gguf cannot be read"):
        load(str(tmp_path / "broken.gguf"), cache)


def test_an_unknown_name_is_refused_when_the_hub_has_no_such_model(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def absent(*arguments: object, **options: object) -> None:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    with pytest.raises(InputError, match="is no local folder or file, and the Hub gave no model"):
        load("nobody/nothing", cache)


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
    model = make_model("llama", num_hidden_layers=0)
    with pytest.raises(InputError, match="has no linear that can be factorized"):
        find_sites(model)


def test_a_sliding_window_ends_the_context(make_model: MakeModel) -> None:
    assert make_model("mistral", sliding_window=40).longest_text == 40
    assert make_model("mistral", sliding_window=None).longest_text == 128


def test_positions_that_are_kept_for_padding_shorten_the_context(make_model: MakeModel) -> None:
    assert make_model("roberta").longest_text == 72 - 1
    assert make_model("bert").longest_text == 72


def test_windows_in_some_blocks_are_refused(tmp_path: Path, cache: Cache) -> None:
    changes = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    layers = ["full_attention", "sliding_attention"]
    folder = write_tiny(tmp_path / "model", "qwen2", **changes, layer_types=layers)
    with pytest.raises(InputError, match="sliding window in 1 of its 2 blocks"):
        load(str(folder), cache)
