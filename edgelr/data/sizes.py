"""Sizes of free axes that fit together: axes have names, or are expressions of other names."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Sequence

FIRST_AXIS = 1  # of a free size: what is first is the batch
OTHER_AXES = 32  # of a free size: images are often halved five times
DOUBLINGS = 10  # of a name, until a difference is positive

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def choose_sizes(shapes: Sequence[Sequence[int | str | None]]) -> list[tuple[int, ...]]:
    """Give every free axis a size; one name has one size, and expressions are what they say.

    Args:
        shapes: sizes, names of free axes, expressions of names (``past + tokens``), or None where
            an axis has no name; by input.
    """
    axes = [
        (size, FIRST_AXIS if place == 0 else OTHER_AXES)
        for shape in shapes
        for place, size in enumerate(shape)
        if isinstance(size, str)
    ]
    names = {text: usual for text, usual in reversed(axes) if text.isidentifier()}
    trees = {text: _parsed(text, {*names}) for text, _ in axes}
    for text, usual in axes:
        for name, _ in _leaves(trees[text]):
            names.setdefault(name, usual)
    for _ in range(DOUBLINGS):
        short = [tree for tree in trees.values() if _value(tree, names) < 1]
        for name in {name for tree in short for name, added in _leaves(tree) if added}:
            names[name] *= 2
    return [
        tuple(
            _value(trees[size], names)
            if isinstance(size, str)
            else size
            if size is not None and size > 0
            else (OTHER_AXES if place else FIRST_AXIS)
            for place, size in enumerate(shape)
        )
        for shape in shapes
    ]


def _parsed(text: str, known: set[str]) -> ast.expr:
    """Parse an expression; all else is a name, as ``batch-size`` is, unless both are names."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return ast.Name(text)
    is_sum = all(
        isinstance(node, (ast.Name, ast.Constant, ast.BinOp, ast.expr_context))
        or type(node) in _OPERATORS
        for node in ast.walk(tree)
    ) and all(
        isinstance(node.value, int) for node in ast.walk(tree) if isinstance(node, ast.Constant)
    )
    is_known = all(name in known for name, _ in _leaves(tree))
    return tree if is_sum and (is_known or "-" not in text) else ast.Name(text)


def _leaves(tree: ast.expr, added: bool = True) -> Iterator[tuple[str, bool]]:
    """List the names of an expression, and whether it grows with them."""
    if isinstance(tree, ast.Name):
        yield tree.id, added
    elif isinstance(tree, ast.BinOp):
        yield from _leaves(tree.left, added)
        keeps = not isinstance(tree.op, (ast.Sub, ast.FloorDiv))
        yield from _leaves(tree.right, added if keeps else not added)


def _value(tree: ast.expr, names: dict[str, int]) -> int:
    if isinstance(tree, ast.BinOp):
        left, right = _value(tree.left, names), _value(tree.right, names)
        return _OPERATORS[type(tree.op)](left, right)
    if isinstance(tree, ast.Constant):
        assert isinstance(tree.value, int)
        return tree.value
    assert isinstance(tree, ast.Name)
    return names[tree.id]
