"""Groups of linears: their sizes are those of what they share and of what each has."""

from __future__ import annotations

import pytest

from edgelr.core.sites import LinearSite, SiteGroup


def site(name: str, in_features: int, out_features: int) -> LinearSite:
    return LinearSite(name, in_features, out_features, True, name, 0, "x")


QUERY, KEY = site("q", 40, 24), site("k", 40, 8)
UP, DOWN = site("up", 24, 40), site("down", 40, 24)


@pytest.mark.parametrize("kind", ["one", "input", "blocks"])
def test_outputs_of_a_group_stand_side_by_side(kind: str) -> None:
    group = SiteGroup("qk", (QUERY, KEY), kind)  # type: ignore[arg-type]
    assert (group.in_features, group.out_features) == (40, 32)
    assert group.parameters == 40 * 32 == QUERY.parameters + KEY.parameters


def test_a_tied_pair_has_one_matrix_and_the_parameters_of_two() -> None:
    pair = SiteGroup("pair", (UP, DOWN), "tied")
    assert (pair.in_features, pair.out_features) == (24, 40)
    assert pair.parameters == 2 * 24 * 40


def test_a_bias_is_no_parameter_of_a_weight() -> None:
    assert QUERY.has_bias
    assert QUERY.parameters == 40 * 24
