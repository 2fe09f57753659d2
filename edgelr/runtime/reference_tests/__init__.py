"""Reference tests: values that the tests of a bundle compare with, and the tests that compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.registry import Registry
from edgelr.runtime.reference_tests.values import ReferenceValues

SUITES = Path(__file__).parents[2] / "report" / "snippets" / "regression"


@dataclass(frozen=True)
class ReferenceTest:
    """How the bundles of one modality are tested where edgelr is not.

    Attributes:
        collect: function of the dense export, the bundle, and the source that it was judged on;
            runs both on the CPU and returns inputs and answers.
        suite: file for pytest, which compares a bundle with them.
    """

    collect: Callable[[ExportBundle, ExportBundle, Path | None], ReferenceValues]
    suite: Path


REFERENCE_TESTS: Registry[ReferenceTest] = Registry(
    "reference test", package="edgelr.runtime.reference_tests", group="edgelr.reference_tests"
)
