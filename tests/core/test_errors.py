"""Errors of users: a script tells them apart by the exit code of the command."""

from __future__ import annotations

import pytest

from edgelr.core.errors import EdgelrError

KINDS = EdgelrError.__subclasses__()


def test_every_kind_of_error_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes) > 4


def test_no_error_of_a_user_ends_like_a_bug() -> None:
    assert not {0, 1} & {kind.exit_code for kind in (EdgelrError, *KINDS)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_whoever_catches_one_catches_all(kind: type[EdgelrError]) -> None:
    with pytest.raises(EdgelrError, match="found, expected, now"):
        raise kind("found, expected, now")
