"""Reads PromQL, so that queries are changed and checked as what they are, not as text.

The grammar is that of Prometheus 2.42, https://prometheus.io/docs/prometheus/latest/querying/,
but for selectors without a metric's name. In the place of a range or of a number Grafana's
variables may stand: `$__rate_interval`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tools.monitoring.dashboards.syntax import (
    Aggregation,
    Binary,
    Call,
    Expression,
    Literal,
    Range,
    Selector,
    Subquery,
    Unary,
    walk,
)

__all__ = ["PromqlError", "parse", "with_matchers"]


class PromqlError(ValueError):
    """A query that Prometheus would refuse."""


_AGGREGATIONS: Final = frozenset(
    {"sum", "min", "max", "avg", "group", "stddev", "stdvar", "count"}
    | {"count_values", "bottomk", "topk", "quantile"}
)
_WITH_PARAMETER: Final = frozenset({"count_values", "bottomk", "topk", "quantile"})
_MATRIX: Final = frozenset(
    {"rate", "irate", "increase", "delta", "idelta", "deriv", "changes", "resets"}
    | {f"{kind}_over_time" for kind in ("avg", "min", "max", "sum", "count", "last", "stddev")}
)
# What each other function takes: v a vector, s a number, t a string, m a range; ? may be left out.
_FUNCTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_MATRIX, "m"),
    "abs": "v", "absent": "v", "ceil": "v", "floor": "v", "ln": "v", "log2": "v", "sqrt": "v",
    "sort": "v", "sort_desc": "v", "timestamp": "v", "scalar": "v", "vector": "s", "time": "",
    "clamp": "vss", "clamp_max": "vs", "clamp_min": "vs", "histogram_quantile": "sv",
    "quantile_over_time": "sm", "predict_linear": "ms", "round": "vs?", "label_replace": "vtttt",
}  # fmt: skip
_PRECEDENCE: Final = (
    ("or",),
    ("and", "unless"),
    ("==", "!=", "<=", "<", ">=", ">"),
    ("+", "-"),
    ("*", "/", "%", "atan2"),
)
_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<variable>\$\{\w+(?::\w+)?\}|\$\w+)
    | (?P<duration>(?:\d+(?:ms|[smhdwy]))+(?![\w.]))
    | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w]))
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<name>[A-Za-z_][\w:]*)
    | (?P<sign>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}\[\],:@])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


def parse(query: str) -> Expression:
    """Reads a query.

    Args:
        query: PromQL, with Grafana's variables as they stand in a dashboard.

    Returns:
        The query as a tree.

    Raises:
        PromqlError: It is not PromQL, or a function gets what it can not work on.
    """
    return _Parser(query).whole()


def with_matchers(query: str, matchers: Mapping[str, str]) -> str:
    """Adds conditions to every selector of a query.

    Args:
        query: PromQL.
        matchers: label to operator and quoted value, such as `=~"$job"`.

    Returns:
        The query, otherwise unchanged.

    Raises:
        PromqlError: The query is not PromQL.
    """
    added = ", ".join(f"{label}{condition}" for label, condition in matchers.items())
    found = sorted(
        (each for each in walk(parse(query)) if isinstance(each, Selector)),
        key=lambda each: each.name_end,
        reverse=True,
    )
    for each in found:
        if each.braces_end is None:
            place, text = each.name_end, f"{{{added}}}"
        else:
            place, text = each.braces_end, f", {added}" if each.matchers else added
        query = query[:place] + text + query[place:]
    return query


def _is_range(expression: Expression) -> bool:
    return isinstance(expression, Range | Subquery)


class _Parser:
    """Descends through the tokens of one query."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = list(self._read())
        self._next = 0

    def whole(self) -> Expression:
        expression = self._binary(0)
        if self._peek().kind != "end":
            raise self._error("nothing more")
        return expression

    def _read(self) -> Iterator[_Token]:
        place = 0
        while place < len(self._query):
            found = _TOKEN.match(self._query, place)
            if found is None:
                message = f"character {place} cannot be read: {self._query[place:]!r}"
                raise PromqlError(message)
            if found.lastgroup != "space":
                yield _Token(str(found.lastgroup), found.group(), place)
            place = found.end()
        yield _Token("end", "", place)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek()
        if token.kind == "end":
            raise self._error("more")
        self._next += 1
        return token

    def _at(self, *texts: str) -> bool:
        token = self._peek()
        return token.kind in ("name", "sign") and token.text in texts

    def _accept(self, *texts: str) -> bool:
        if self._at(*texts):
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> _Token:
        if not self._at(text):
            raise self._error(repr(text))
        return self._take()

    def _error(self, wanted: str) -> PromqlError:
        token = self._peek()
        return PromqlError(
            f"{wanted} expected at character {token.start}, not {token.text!r}: {self._query}"
        )

    def _binary(self, level: int) -> Expression:
        if level == len(_PRECEDENCE):
            return self._signed()
        left = self._binary(level + 1)
        while self._at(*_PRECEDENCE[level]):
            operator = self._take().text
            if operator in _PRECEDENCE[2]:
                self._accept("bool")
            matching: tuple[str, ...] = ()
            if self._at("on", "ignoring"):
                named = self._take().text == "on"
                labels = self._labels()
                # What is ignored need not be there.
                matching = labels if named else ()
                if self._accept("group_left", "group_right") and self._at("("):
                    matching += self._labels()
            right = self._binary(level + 1)
            if _is_range(left) or _is_range(right):
                raise PromqlError(f"{operator} works on no range: {self._query}")
            left = Binary(operator=operator, matching=matching, left=left, right=right)
        return left

    def _signed(self) -> Expression:
        if self._accept("-", "+"):
            return Unary(self._signed())
        base = self._followed(self._simple())
        if self._accept("^"):
            return Binary(operator="^", matching=(), left=base, right=self._signed())
        return base

    def _followed(self, expression: Expression) -> Expression:
        """Reads what may stand behind an expression: a range, an offset."""
        if self._accept("["):
            window = self._window()
            if self._accept(":"):
                if not self._at("]"):
                    self._window()
                expression = Subquery(expression, window)
            elif isinstance(expression, Selector):
                expression = Range(expression, window)
            else:
                raise self._error("':', for this is no selector,")
            self._expect("]")
        if self._accept("offset"):
            self._accept("-")
            self._window()
        if self._accept("@"):
            if not self._accept("start", "end"):
                raise self._error("start() or end()")
            self._expect("(")
            self._expect(")")
        return expression

    def _window(self) -> str:
        if self._peek().kind not in ("duration", "variable"):
            raise self._error("a duration")
        return self._take().text

    def _simple(self) -> Expression:
        token = self._take()
        following = self._peek()
        if token.kind in ("number", "string", "variable", "duration"):
            if token.kind == "duration":
                raise PromqlError(f"{token.text} is no number: {self._query}")
            return Literal(token.text)
        if token.text == "(" and token.kind == "sign":
            expression = self._binary(0)
            self._expect(")")
            return expression
        if token.kind != "name":
            self._next -= 1
            raise self._error("an expression")
        if token.text in _AGGREGATIONS and following.text in ("(", "by", "without"):
            return self._aggregation(token.text)
        if following.text == "(":
            return self._call(token.text)
        return self._selector(token)

    def _selector(self, name: _Token) -> Selector:
        end = name.start + len(name.text)
        matchers: list[tuple[str, str, str]] = []
        braces_end: int | None = None
        if self._accept("{"):
            while not self._at("}"):
                label = self._take()
                operator = self._take()
                value = self._take()
                if (
                    label.kind != "name"
                    or operator.text not in ("=", "!=", "=~", "!~")
                    or value.kind != "string"
                ):
                    raise PromqlError(f"no condition at character {label.start}: {self._query}")
                matchers.append((label.text, operator.text, value.text))
                if not self._accept(","):
                    break
            braces_end = self._expect("}").start
        return Selector(
            metric=name.text, matchers=tuple(matchers), name_end=end, braces_end=braces_end
        )

    def _labels(self) -> tuple[str, ...]:
        self._expect("(")
        labels: list[str] = []
        while not self._at(")"):
            if self._peek().kind != "name":
                raise self._error("a label")
            labels.append(self._take().text)
            if not self._accept(","):
                break
        self._expect(")")
        return tuple(labels)

    def _arguments(self) -> tuple[Expression, ...]:
        self._expect("(")
        arguments: list[Expression] = []
        while not self._at(")"):
            arguments.append(self._binary(0))
            if not self._accept(","):
                break
        self._expect(")")
        return tuple(arguments)

    def _aggregation(self, operator: str) -> Aggregation:
        labels: tuple[str, ...] = ()
        without = False
        grouped = self._at("by", "without")
        if grouped:
            without = self._take().text == "without"
            labels = self._labels()
        arguments = self._arguments()
        if not grouped and self._at("by", "without"):
            without = self._take().text == "without"
            labels = self._labels()
        if len(arguments) != (2 if operator in _WITH_PARAMETER else 1) or _is_range(arguments[-1]):
            raise PromqlError(f"{operator} aggregates something else: {self._query}")
        return Aggregation(
            operator=operator,
            labels=labels,
            without=without,
            parameter=arguments[0] if len(arguments) == 2 else None,
            expression=arguments[-1],
        )

    def _call(self, function: str) -> Call:
        arguments = self._arguments()
        if function not in _FUNCTIONS:
            raise PromqlError(f"there is no function {function}: {self._query}")
        wanted = _FUNCTIONS[function]
        kinds = wanted.replace("?", "")
        if not len(wanted) - 2 * wanted.count("?") <= len(arguments) <= len(kinds):
            raise PromqlError(f"{function} takes {len(kinds)} arguments: {self._query}")
        for kind, argument in zip(kinds, arguments, strict=False):
            is_string = isinstance(argument, Literal) and argument.text[0] in "\"'"
            if (kind == "m") != _is_range(argument) or (kind == "t") != is_string:
                raise PromqlError(f"{function} gets what it cannot work on: {self._query}")
        return Call(function, arguments)
