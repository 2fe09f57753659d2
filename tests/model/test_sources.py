"""Where models come from: factories, GGUF files and the Hub become folders, or are refused."""

from __future__ import annotations

import sys
from pathlib import Path, PurePath

import numpy as np
import pytest
import transformers

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.sources import folder_of, quiet_transformers, require_complete
from tests.conftest import MakeModel
from tests.helpers.run_exports import batch, run_torch


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


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
        ("platform:node", r"is str; expected \(model, tokenizer\)"),
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


def test_a_folder_is_taken_as_it_lies(tmp_path: Path, cache: Cache) -> None:
    assert folder_of(str(tmp_path), cache, None) == tmp_path
    assert not cache.root.exists()


def test_a_name_of_the_hub_brings_what_a_model_needs_and_no_pickles(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert folder_of("owner/model", cache, "v1") == tmp_path
    assert (asked["name"], asked["revision"]) == ("owner/model", "v1")
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)

    def wanted(name: str) -> bool:
        return any(PurePath(name).match(pattern) for pattern in patterns)

    needed = ("config.json", "model.safetensors", "tokenizer.model", "README.md", "chat.jinja")
    assert all(map(wanted, needed))
    assert not any(map(wanted, ("pytorch_model.bin", "model.onnx", "weights.gguf", "flax.msgpack")))


def test_weights_that_are_missing_are_named_with_a_way_out() -> None:
    whole = {"missing_keys": [], "mismatched_keys": []}
    require_complete(whole, "folder", has_head=True)
    gaps = {"missing_keys": ["d", "b", "c"], "mismatched_keys": [("a", (1, 2), (2, 1))]}
    with pytest.raises(InputError, match=r"folder lacks 4 weights .*: a, b, c\."):
        require_complete(gaps, "folder")
    with pytest.raises(InputError, match="or give --task feature-extraction"):
        require_complete(gaps, "folder", has_head=True)


def test_transformers_is_as_loud_afterwards_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity()

    def interrupted() -> None:
        with quiet_transformers():
            assert logging.get_verbosity() == logging.ERROR != before
            print("a bar", file=sys.stderr)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert logging.get_verbosity() == before
    assert capsys.readouterr().err == ""
