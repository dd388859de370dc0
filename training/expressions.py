"""Conditions a user writes over the columns of a row, such as `tokens > 40 and genre in ("drama", "horror")`.

Python's grammar, a small part of it: comparisons, `and`, `or`, `not`, brackets, names, texts, numbers, and
`lower(...)`. A condition is compiled here, piece by piece, and never handed to `eval`: it can read the row it is
given and nothing else, and does no arithmetic, so it cannot be made to take long.
"""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Final

from training.errors import EvaluationInvalid

Record = Mapping[str, object]
Condition = Callable[[Record], bool]
_Value = Callable[[Record], object]

_LONGEST: Final = 1000
_ORDER: Final[Mapping[type[ast.cmpop], Callable[[float, float], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def parse_condition(source: str, names: Collection[str]) -> Condition:
    """The condition `source` over rows that have the columns `names`.

    A number is compared as a number with a text that reads as one; `<` and its kin are false where a side is no
    number. A column whose name is not a word is written `column("its name")`. Raises EvaluationInvalid.
    """
    if len(source) > _LONGEST:
        raise EvaluationInvalid(f"slice: the condition is longer than {_LONGEST} characters")
    try:
        tree = ast.parse(source.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise EvaluationInvalid(
            f"slice {source!r}: not a condition, which looks like: tokens > 40 and genre == 'drama'"
        ) from error
    try:
        return _Compiler(names).condition(tree.body)
    except EvaluationInvalid as error:
        raise EvaluationInvalid(f"slice {source!r}: {error.message}") from error


class _Compiler:
    """Turns the nodes that are allowed into functions of a row; every other node is refused by name."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def condition(self, node: ast.expr) -> Condition:
        """A node that is true or false."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value) for value in node.values]
            every = isinstance(node.op, ast.And)
            return lambda row: all(part(row) for part in parts) if every else any(part(row) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            return lambda row: not inner(row)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        raise EvaluationInvalid("needs a comparison, such as tokens > 40")

    def _comparison(self, node: ast.Compare) -> Condition:
        """`a < b < c` holds where each neighbouring pair does."""
        sides = [self._value(side) for side in (node.left, *node.comparators)]
        tests = [_test(operation) for operation in node.ops]
        return lambda row: all(
            test(left(row), right(row)) for test, left, right in zip(tests, sides, sides[1:], strict=False)
        )

    def _value(self, node: ast.expr) -> _Value:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            constant = node.value
            return lambda _: constant
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._negative(node)
        if isinstance(node, ast.Tuple | ast.List):
            items = [self._value(item) for item in node.elts]
            return lambda row: [item(row) for item in items]
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise EvaluationInvalid("only columns, texts, numbers and lists of them can be compared")

    def _negative(self, node: ast.UnaryOp) -> _Value:
        inner = node.operand
        if isinstance(inner, ast.Constant) and isinstance(inner.value, int | float):
            value = -inner.value
            return lambda _: value
        raise EvaluationInvalid("a minus sign stands before a number only")

    def _column(self, name: str) -> _Value:
        if name not in self._names:
            raise EvaluationInvalid(f"no column {name!r}; there are {', '.join(sorted(self._names))}")
        return lambda row: row[name]

    def _call(self, node: ast.Call) -> _Value:
        function = node.func.id if isinstance(node.func, ast.Name) else ""
        if function not in ("lower", "column") or len(node.args) != 1 or node.keywords:
            raise EvaluationInvalid("the only functions are lower(column) and column('name')")
        [argument] = node.args
        if function == "lower":
            inner = self._value(argument)
            return lambda row: str(inner(row)).lower()
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            raise EvaluationInvalid("column() takes the name in quotation marks")
        return self._column(argument.value)


def _test(operation: ast.cmpop) -> Callable[[object, object], bool]:
    if isinstance(operation, ast.Eq | ast.NotEq):
        wanted = isinstance(operation, ast.Eq)
        return lambda left, right: _equal(left, right) == wanted
    if isinstance(operation, ast.In | ast.NotIn):
        wanted = isinstance(operation, ast.In)
        return lambda left, right: _holds(right, left) == wanted
    order = _ORDER.get(type(operation))
    if order is None:
        raise EvaluationInvalid("compare with ==, !=, <, <=, >, >=, in or not in")
    return lambda left, right: order(number(left), number(right))


def _equal(left: object, right: object) -> bool:
    if isinstance(left, int | float) or isinstance(right, int | float):
        return number(left) == number(right)
    return left == right


def _holds(container: object, item: object) -> bool:
    """Whether a list has a member, or a text the part, that is `item`."""
    if isinstance(container, list):
        return any(_equal(member, item) for member in container)
    return str(item) in str(container)


def number(value: object) -> float:
    """A number, or a text that reads as one; NaN, which compares as false, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float(value) if isinstance(value, bool) else math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
