"""Adapters are merged into the model that they were trained for, or refused by name."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgelr.core.cache import Cache
from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from tests.conftest import MakeModel
from tests.helpers.quantized_files import change_config

IDS = torch.arange(4, 24).view(2, 10)


@pytest.fixture(scope="module")
def base(make_model: MakeModel) -> Path:
    return make_model("llama", architectures=["LlamaForCausalLM"]).folder


def write_adapter(base: Path, folder: Path, config: peft.PeftConfig) -> torch.Tensor:
    """Write an adapter of random numbers; return the logits of base and adapter together."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, config).eval()
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "modules_to_save" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    with torch.no_grad():
        logits: torch.Tensor = adapted(IDS).logits
    return logits


def logits_of(model: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.module(IDS).logits
    return found


def change(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


LORA = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]}
CAUSAL = "CAUSAL_LM"


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(**LORA, task_type=CAUSAL),
        peft.LoraConfig(**LORA, use_dora=True, use_rslora=True, rank_pattern={"q_proj": 2}),
        peft.LoraConfig(r=2, target_modules=["lm_head", "v_proj"]),
        peft.LoraConfig(r=2, target_modules=["embed_tokens"]),
        peft.LoraConfig(**LORA, modules_to_save=["lm_head"]),
        peft.LoHaConfig(r=2, target_modules=["o_proj"]),
        peft.LoKrConfig(r=2, target_modules=["up_proj"]),
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ],
    ids=["lora", "dora", "lora-head", "lora-table", "lora-saved-head", "loha", "lokr", "ia3"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_alone_is_merged_into_its_base(
    config: peft.PeftConfig, base: Path, cache: Cache, tmp_path: Path
) -> None:
    expected = write_adapter(base, tmp_path / "adapter", config)
    model = load(str(tmp_path / "adapter"), cache)
    torch.testing.assert_close(logits_of(model), expected, atol=2e-5, rtol=1e-4)
    assert model.folder.is_relative_to(cache.root)
    assert not list(model.folder.glob("adapter*"))
    assert (model.folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert load(str(tmp_path / "adapter"), cache).folder == model.folder


@pytest.mark.parametrize("changed", ["lm_head", "embed_tokens"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_table_that_two_modules_share_changes_in_the_one_that_is_adapted(
    changed: str, make_model: MakeModel, cache: Cache, tmp_path: Path
) -> None:
    tied = make_model("llama", architectures=["LlamaForCausalLM"], tie_word_embeddings=True).folder
    config = peft.LoraConfig(r=2, target_modules=[changed])
    expected = write_adapter(tied, tmp_path / "adapter", config)
    model = load(str(tmp_path / "adapter"), cache)
    torch.testing.assert_close(logits_of(model), expected, atol=2e-5, rtol=1e-4)
    assert not model.module.config.tie_word_embeddings


def test_a_base_beside_its_adapter_is_the_one_that_is_changed(
    base: Path, cache: Cache, tmp_path: Path
) -> None:
    expected = write_adapter(base, tmp_path / "adapter", peft.LoraConfig(**LORA))
    together = tmp_path / "together"
    shutil.copytree(base, together)
    shutil.copytree(tmp_path / "adapter", together, dirs_exist_ok=True)
    change(together, base_model_name_or_path="somebody/else")
    model = load(str(together), cache)
    torch.testing.assert_close(logits_of(model), expected, atol=2e-5, rtol=1e-4)


def test_another_adapter_or_base_is_another_model(base: Path, cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    write_adapter(base, folder, peft.LoraConfig(**LORA))
    first = load(str(folder), cache)
    state = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: 2 * each for name, each in state.items()}, folder / "adapter_model.safetensors"
    )
    second = load(str(folder), cache)
    assert first.digest != second.digest
    assert not torch.allclose(logits_of(first), logits_of(second))


def test_a_tokenizer_of_the_adapter_goes_before_that_of_the_base(
    base: Path, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    write_adapter(base, folder, peft.LoraConfig(**LORA))
    own = (base / "tokenizer.json").read_text() + " "
    (folder / "tokenizer.json").write_text(own)
    (folder / "chat_template.jinja").write_text("its own")
    found = load(str(folder), cache).folder
    assert (found / "tokenizer.json").read_text() == own
    assert (found / "chat_template.jinja").read_text() == "its own"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "adapter of the type PROMPT_TUNING, which is no change"),
        ({"alora_invocation_tokens": [3, 4]}, "LORA with alora_invocation_tokens"),
        ({"base_model_name_or_path": None}, "names no model that it changes"),
        ({"base_model_name_or_path": "/nowhere/base"}, "'/nowhere/base', which cannot be used"),
        ({"target_modules": ["v_proj"]}, "does not fit the model it names.*no counterpart"),
        ({"r": 2}, "does not fit the model it names.*size mismatch"),
        ({"from_the_future": 1}, "does not fit the model it names.*from_the_future"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(
    changes: dict[str, Any], message: str, base: Path, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    write_adapter(base, folder, peft.LoraConfig(**LORA))
    change(folder, **changes)
    with pytest.raises(InputError, match=f"(?s){message}"):
        load(str(folder), cache)


def test_an_adapter_in_a_pickle_is_refused(base: Path, cache: Cache, tmp_path: Path) -> None:
    write_adapter(base, tmp_path / "adapter", peft.LoraConfig(**LORA))
    (tmp_path / "adapter/adapter_model.safetensors").rename(tmp_path / "adapter/adapter_model.bin")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors.*save_pretrained"):
        load(str(tmp_path / "adapter"), cache)


def test_a_base_of_an_unknown_class_is_refused(base: Path, cache: Cache, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    change_config(tmp_path / "base", architectures=["MyOwnForCausalLM"])
    write_adapter(tmp_path / "base", tmp_path / "adapter", peft.LoraConfig(**LORA))
    with pytest.raises(InputError, match="the architecture MyOwnForCausalLM; expected a class"):
        load(str(tmp_path / "adapter"), cache)


def test_without_peft_its_installation_is_told(
    base: Path, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(base, tmp_path / "adapter", peft.LoraConfig(**LORA))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'edgelr\[heal\]'"):
        load(str(tmp_path / "adapter"), cache)
    assert not cache.root.exists()
