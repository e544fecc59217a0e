"""What PromQL consists of, as a tree."""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Aggregation",
    "Binary",
    "Call",
    "Expression",
    "Literal",
    "Range",
    "Selector",
    "Subquery",
    "Unary",
    "children",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Literal:
    """A number or a string, as written."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """An instant vector: a metric with conditions on labels.

    Attributes:
        metric: its name.
        matchers: label, operator and value with its quotes, in the order of the query.
        name_end: where in the query the name ends.
        braces_end: where the closing brace stands, if there is one.
    """

    metric: str
    matchers: tuple[tuple[str, str, str], ...]
    name_end: int
    braces_end: int | None


@dataclass(frozen=True, slots=True)
class Range:
    """A range vector.

    Attributes:
        selector: what is looked at.
        window: how far back, a duration or a variable.
    """

    selector: Selector
    window: str


@dataclass(frozen=True, slots=True)
class Subquery:
    """An expression evaluated over a range of time."""

    expression: "Expression"
    window: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    function: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """An aggregation.

    Attributes:
        operator: `sum`, `topk` and so on.
        labels: what stands in `by` or `without`.
        without: whether it was `without`.
        parameter: the number of `topk`, `quantile` and so on.
        expression: what is aggregated.
    """

    operator: str
    labels: tuple[str, ...]
    without: bool
    parameter: "Expression | None"
    expression: "Expression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Two operands, with the labels that say which series belong together."""

    operator: str
    matching: tuple[str, ...]
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Unary:
    """A sign before an expression."""

    expression: "Expression"


Expression = Literal | Selector | Range | Subquery | Call | Aggregation | Binary | Unary


def children(expression: Expression) -> tuple[Expression, ...]:
    """What an expression consists of."""
    match expression:
        case Call(arguments=arguments):
            return arguments
        case Aggregation(parameter=parameter, expression=inner):
            return (inner,) if parameter is None else (parameter, inner)
        case Binary(left=left, right=right):
            return (left, right)
        case Unary(expression=inner) | Subquery(expression=inner):
            return (inner,)
        case Range(selector=selector):
            return (selector,)
        case _:
            return ()


def walk(expression: Expression) -> Iterator[Expression]:
    """An expression and everything in it."""
    yield expression
    for each in children(expression):
        yield from walk(each)
