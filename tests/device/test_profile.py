"""Profiles: a contract over the whole catalogue, and the files of users."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from edgelr.core.errors import InputError
from edgelr.device import profile as device
from edgelr.device.profile import DeviceProfile, Figure, load_profile, profile_names, profile_path

IR_VERSION_OF_OPSET = {19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 11}  # ONNX, docs/Versioning.md
MIB = 2**20

every_profile = pytest.mark.parametrize("name", profile_names())


def fields_of(name: str) -> Any:
    return yaml.safe_load(profile_path(name).read_text(encoding="utf-8"))


def board(folder: Path, fields: object) -> str:
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return str(path)


def figures(profile: DeviceProfile) -> Iterator[tuple[str, Figure[Any, Any]]]:
    for section_name, section in profile:
        for key, value in section if isinstance(section, BaseModel) else ():
            if isinstance(value, Figure):
                yield f"{section_name}.{key}", value


def bare_numbers(value: object, path: str = "") -> Iterator[str]:
    """Walk a file and find the numbers that stand alone, without a unit and a source."""
    if isinstance(value, dict) and "value" not in value:
        for key, child in value.items():
            yield from bare_numbers(child, f"{path}.{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


# --- the contract of every profile ---------------------------------------------------------------


@every_profile
def test_every_number_has_a_unit_and_a_source(name: str) -> None:
    assert list(bare_numbers(fields_of(name))) == []
    found = list(figures(load_profile(name)))
    assert len(found) >= 16
    for key, figure in found:
        assert figure.unit, key
        assert len(figure.source) > 8, key


@every_profile
def test_id_is_the_name_of_the_file(name: str) -> None:
    assert load_profile(name).id == name


@every_profile
def test_ir_version_is_the_one_that_came_with_the_opset(name: str) -> None:
    profile = load_profile(name)
    assert profile.ir_version == IR_VERSION_OF_OPSET[profile.max_opset]


@every_profile
def test_prompt_fits_the_context(name: str) -> None:
    profile = load_profile(name)
    assert profile.prefill_tokens <= profile.context_tokens


@pytest.mark.usefixtures("machine")
@every_profile
def test_memory_is_left_for_a_model(name: str) -> None:
    profile = load_profile(name)
    assert profile.reserved_bytes + profile.runtime_bytes < profile.visible_bytes


@every_profile
def test_shipped_precision_has_a_peak_rate_where_speed_is_known(name: str) -> None:
    profile = load_profile(name)
    known = profile.bandwidth_bytes_per_second is not None
    assert (profile.flops_per_second(profile.precision) is not None) == known


@every_profile
def test_defaults_of_edgelr_and_unknown_numbers_are_not_called_verified(name: str) -> None:
    for key, figure in figures(load_profile(name)):
        if figure.value is None or figure.source.startswith("edgelr default"):
            assert not figure.verified, key


@every_profile
def test_device_tree_names_belong_to_one_profile(name: str) -> None:
    others = [load_profile(other) for other in profile_names() if other != name]
    taken = {part for other in others for part in other.detect.device_tree}
    assert taken.isdisjoint(load_profile(name).detect.device_tree)


# --- reading -------------------------------------------------------------------------------------


def test_properties_are_in_bytes_and_per_second() -> None:
    profile = load_profile("jetson")
    assert profile.visible_bytes == 7620 * MIB
    assert profile.bandwidth_bytes_per_second == 68e9
    assert profile.flops_per_second("float16") == 2.56e12
    assert (profile.provider, profile.precision) == ("cuda", "float16")


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_users_own_board_is_loaded_by_its_path(tmp_path: Path, suffix: str) -> None:
    fields = fields_of("jetson") | {"id": "my-board"}
    path = tmp_path / f"board{suffix}"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    assert load_profile(str(path)).id == "my-board"


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"'jetsen'\. Did you mean jetson"):
        load_profile("jetsen")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml.*one of: agx-orin-64gb"):
        load_profile(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize("text", ["memory: {visible: [", "a: b: c", "\tid: x"])
def test_a_syntax_error_names_the_file_and_the_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"(?s)board\.yaml.*line 1"):
        load_profile(str(path))


@pytest.mark.parametrize("text", ["", "- jetson", "7620"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"the file: found .* expected a mapping with id, title"):
        load_profile(str(path))


@pytest.mark.parametrize(
    ("keys", "value", "complaint"),
    [
        (("memory", "visble"), 1, r"memory\.visble: unknown key, expected one of visible, reser"),
        (("colour",), "red", r"colour: unknown key, expected one of id, title, memory"),
        (("memory", "visible", "unit"), "GB", r"memory\.visible\.unit: found 'GB', expected 'MiB'"),
        (("memory", "visible", "value"), "7620", r"visible\.value: found '7620', expected a valid"),
        (("memory", "visible", "value"), None, r"visible\.value: found None, expected a valid num"),
        (("memory", "visible", "value"), -1, r"visible\.value: found -1, expected greater than or"),
        (("memory", "reserved", "value"), "detect", r"reserved\.value: found 'detect', expected"),
        (("memory", "visible"), 7620, r"visible: found 7620, expected a mapping with value, unit"),
        (("compute", "bandwidth", "value"), 0, r"bandwidth\.value: found 0, expected greater than"),
        (("layout", "rank_multiple", "value"), 7.5, r"rank_multiple\.value: found 7\.5, expected"),
        (("workload", "batch", "value"), True, r"batch\.value: found True, expected a valid int"),
        (("software", "provider"), "tpu", r"software\.provider: found 'tpu', expected 'cpu' or"),
        (("software", "python", "value"), 3.1, r"python\.value: found 3\.1, expected a valid str"),
        (("gate", "min_mean_cosine", "source"), "", r"cosine\.source: found '', expected"),
    ],
)
def test_a_wrong_entry_is_refused_by_its_dotted_key(
    tmp_path: Path, keys: tuple[str, ...], value: object, complaint: str
) -> None:
    fields = fields_of("jetson")
    section = fields
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    with pytest.raises(InputError, match=rf"board\.yaml is not a device profile:\n.*{complaint}"):
        load_profile(board(tmp_path, fields))


def test_every_missing_number_is_named_at_once(tmp_path: Path) -> None:
    fields = fields_of("jetson")
    del fields["memory"]["visible"]["source"], fields["gate"]
    with pytest.raises(InputError) as caught:
        load_profile(board(tmp_path, fields))
    assert "memory.visible.source: not found" in str(caught.value)
    assert "gate: not found" in str(caught.value)


def test_a_packaged_folder_comes_before_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("profiles", "edgelr/_profiles"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "profiles/checkout.yaml").touch()
    monkeypatch.setattr(device, "__file__", str(tmp_path / "edgelr/device/profile.py"))
    assert profile_names() == []
    (tmp_path / "edgelr/_profiles").rmdir()
    assert profile_names() == ["checkout"]


def test_import_pulls_in_no_heavy_library() -> None:
    code = (
        "import sys, edgelr.device.profile, edgelr.device.budget; "
        "sys.exit(str({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0"
