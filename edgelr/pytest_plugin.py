"""For tests of yours: the fixture ``edgelr_bundle``, and ``assert_no_regression``.

pytest loads this wherever edgelr is installed, so nothing heavy is imported before it is used.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgelr.core.results import Validation

OPTION, INI = "--edgelr-bundle", "edgelr_bundle"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--edgelr-bundle DIR``, and the setting of the same name."""
    text = "Bundle that the fixture edgelr_bundle names: a folder that 'edgelr export' wrote."
    parser.getgroup("edgelr").addoption(OPTION, metavar="DIR", help=text)
    parser.addini(INI, text)


@pytest.fixture(scope="session")
def edgelr_bundle(pytestconfig: pytest.Config) -> Path:
    """Name the bundle under test; a setting is relative to the file that holds it."""
    given = pytestconfig.getoption(OPTION)
    named = pytestconfig.getini(INI)
    if not given and not named:
        raise pytest.UsageError(
            f"No bundle is named. Expected a folder that 'edgelr export' wrote. Give {OPTION} DIR, "
            f"or set {INI} in the configuration of pytest."
        )
    return Path(given) if given else pytestconfig.rootpath / named


def assert_no_regression(
    bundle: Path | str,
    against: Path | str | None = None,
    data: Path | str | None = None,
    max_drop: float | None = None,
    provider: str = "cpu",
) -> Validation | None:
    """Run a bundle in ONNX Runtime, and fail where it lost accuracy.

    Args:
        bundle: folder that ``edgelr export`` wrote.
        against: reference: another bundle, a dense export, or the original model; None runs the
            tests in the bundle, which ``edgelr export --with-tests`` wrote.
        data: text, files or inputs to compare on; None takes the data of ``edgelr validate``.
        max_drop: largest loss of accuracy, see ``edgelr.device.gate``; None takes the bundle's own.
        provider: execution provider, ``cpu`` or ``cuda``.

    Returns:
        Metrics and gate; None where the bundle's own tests have passed.

    Raises:
        AssertionError: the bundle's answers have changed, or it is outside the gate.
        EdgelrError: it cannot be run or compared.
    """
    if against is None:
        _run_own_tests(Path(bundle), data, max_drop, provider)
        return None
    from edgelr.commands.validate import validate_again
    from edgelr.core.bundle import read_bundle
    from edgelr.core.cache import Cache, default_root
    from edgelr.core.errors import InputError
    from edgelr.core.run import Run
    from edgelr.report.figures import gate_sentence

    given, text = read_bundle(Path(bundle), verify=True), None if data is None else Path(data)
    run = Run(Cache(default_root()))
    found = validate_again(given, str(against), text, max_drop, provider, run)
    if found.gate is None:
        raise InputError(
            f"{bundle} has no accuracy gate of its own; expected a limit. Give max_drop."
        )
    assert found.passed, gate_sentence(found.gate)
    return found


def _run_own_tests(
    bundle: Path, data: Path | str | None, max_drop: float | None, provider: str
) -> None:
    """Run the tests in a bundle, in a process that has nothing of this one's plugins."""
    from edgelr.core.errors import InputError

    if data is not None or max_drop is not None:
        raise InputError(
            "data and max_drop are for a comparison, and nothing is given to compare with; the "
            "tests in the bundle have theirs stored. Give against as well, or neither."
        )
    tests = bundle / "tests"
    if not (tests / "test_accuracy.py").is_file():
        raise InputError(
            f"{bundle} holds no tests. Expected tests/test_accuracy.py. Export it again with "
            f"--with-tests, or give against."
        )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", str(tests)],
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "EDGELR_PROVIDER": PROVIDERS.get(provider, provider),
        },
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{bundle} fails its own tests:\n{done.stdout}{done.stderr}"
