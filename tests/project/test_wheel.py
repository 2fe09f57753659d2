"""The wheel: one top-level package, which does what the checkout does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgelr.cli import app
from tests.helpers.bare import build
from tests.helpers.paths import ROOT

pytest.importorskip("hatchling", reason="hatchling builds the wheel: see the extra `dev`")
pytest.importorskip("hatch_fancy_pypi_readme", reason="as hatchling")

URL = "https://github.com/edgelr/edgelr"
# The command line of an installed wheel, without the checkout on the path.
RUN = """
import sys
site, checkout = sys.argv[1:3]
sys.path[:] = [site, *(each for each in sys.path if each not in ("", checkout))]
del sys.argv[1:3]
from edgelr.cli import main
main()
"""
QUICK = ["--profile", "generic-cpu", "--recipe", "svd-llm", "--keep", "0.7",
         "--calibration-tokens", "512", "--calibration-length", "32"]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


@pytest.fixture(scope="module")
def site(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist, installed: unpacked, as no file of it is made for a platform."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(build("wheel", source, tmp_path_factory.mktemp("wheel"))) as archive:
        archive.extractall(folder)
    return folder


def installed(site: Path) -> Distribution:
    (folder,) = site.glob("*.dist-info")
    return Distribution.at(folder)


@pytest.fixture
def outputs(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, str]]:
    """Run a command from the wheel and from the checkout, in folders of these names."""

    def run(*words: str) -> tuple[str, str]:
        for name in ("wheel", "checkout"):
            (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(site), str(ROOT), *words],
            cwd=tmp_path / "wheel",
            env={**os.environ, "EDGELR_CACHE": "cache", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        monkeypatch.chdir(tmp_path / "checkout")
        monkeypatch.setenv("EDGELR_CACHE", "cache")
        here = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert here.exit_code == 0, here.stderr
        return done.stdout, here.stdout

    return run


def test_the_sdist_holds_every_file_of_the_repository(source: Path) -> None:
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this source tree is not a git repository")
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    assert len(names) > 100
    assert [name for name in names if not (source / name).exists()] == []


def test_the_wheel_installs_one_top_level_package(site: Path) -> None:
    version = installed(site).version
    assert {each.name for each in site.iterdir()} == {"edgelr", f"edgelr-{version}.dist-info"}
    assert (site / "edgelr" / "py.typed").exists()


@pytest.mark.parametrize(
    ("folder", "packaged"),
    [("exporters", "exporters"), ("profiles", "_profiles")],
)
def test_the_wheel_holds_the_catalogues(site: Path, folder: str, packaged: str) -> None:
    here, there = ROOT / folder, site / "edgelr" / packaged
    files = [each for each in here.rglob("*.*") if each.suffix in (".py", ".yaml")]
    assert len(files) > 5
    for path in files:
        assert (there / path.relative_to(here)).read_bytes() == path.read_bytes()


def test_the_metadata_says_where_the_project_is(site: Path) -> None:
    urls = [each.split(", ") for each in installed(site).metadata.get_all("Project-URL")]
    assert {name for name, _ in urls} == {"Documentation", "Issues", "Repository"}
    assert all(url.startswith(URL) for _, url in urls)


def test_every_link_of_the_description_leads_to_a_file_of_the_repository(site: Path) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", str(installed(site).metadata["Description"]))
    assert len(targets) > 10
    for target in targets:
        found = re.fullmatch(rf"{URL}/(blob|tree)/HEAD/([^#]+)(#.*)?", target)
        assert found, f"PyPI does not know {target}"
        path = ROOT / found[2]
        assert path.is_dir() if found[1] == "tree" else path.is_file(), target


@pytest.mark.parametrize(
    "words",
    [("list", "exporters"), ("list", "profiles"), ("profiles", "show", "jetson"), ("--version",)],
    ids=" ".join,
)
@pytest.mark.whole
def test_a_command_says_the_same_from_the_wheel(
    outputs: Callable[..., tuple[str, str]], words: tuple[str, ...]
) -> None:
    wheel, checkout = outputs(*words)
    assert wheel == checkout != ""


@pytest.mark.whole
def test_an_export_is_the_same_from_the_wheel(
    outputs: Callable[..., tuple[str, str]], tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    outputs("export", str(tiny_encoder_folder), *QUICK, "--out", "bundle")
    for name in ("onnx/model.onnx", "onnx/model.onnx.data", "edgelr/plan.json"):
        wheel, checkout = (
            (tmp_path / each / "bundle" / name).read_bytes() for each in ("wheel", "checkout")
        )
        assert wheel == checkout
