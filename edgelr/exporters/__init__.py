"""The catalogue of a checkout, in ``exporters/``; a wheel has those files here instead."""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "exporters")]
