"""What the dashboards ask: every query, the metrics and labels in it, and a form to run it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tools.monitoring.dashboards.promql import parse
from tools.monitoring.dashboards.syntax import (
    Aggregation,
    Binary,
    Call,
    Expression,
    Range,
    Selector,
    Subquery,
    Unary,
    children,
)

__all__ = [
    "PanelQuery",
    "output_labels",
    "panel_queries",
    "panels",
    "resolve",
    "used_metrics",
    "windows",
]

# A name; `$1` is what a pattern of `label_replace` has found, and left alone by Grafana, too.
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::\w+)?\}|([A-Za-z_]\w*))")


class PanelQuery(NamedTuple):
    """One query of one panel.

    Attributes:
        dashboard_uid: the dashboard.
        panel_id: number of the panel in it.
        title: what the panel is called.
        ref_id: the query's letter.
        datasource_type: `prometheus` or `tempo`.
        expr: PromQL or TraceQL, with Grafana's variables; for the service map its name.
    """

    dashboard_uid: str
    panel_id: int
    title: str
    ref_id: str
    datasource_type: str
    expr: str


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All panels of a dashboard but the titles of its rows, in reading order."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def panel_queries(dashboard: Mapping[str, Any]) -> list[PanelQuery]:
    """All queries of a dashboard.

    Args:
        dashboard: The dashboard as Grafana reads it.
    """
    return [
        PanelQuery(
            dashboard["uid"],
            panel["id"],
            panel["title"],
            target["refId"],
            target["datasource"]["type"],
            target.get("expr") or target.get("query") or target["queryType"],
        )
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def resolve(
    query: str,
    *,
    rate_interval: str = "1m",
    picked_range: str = "15m",
    variables: Mapping[str, str] | None = None,
) -> str:
    """Puts values in the place of Grafana's variables.

    Args:
        query: PromQL or TraceQL from a dashboard.
        rate_interval: What `$__rate_interval` stands for; at least four scrapes.
        picked_range: What `$__range` stands for.
        variables: Regular expressions for the variables of the dashboards; else they match all.

    Returns:
        The query as Grafana would send it.

    Raises:
        KeyError: The query has a variable that the dashboards do not have.
    """
    values = {
        "__rate_interval": rate_interval,
        "__range": picked_range,
        "job": ".+",
        "instance": ".+",
        "service": ".+",
        **(variables or {}),
    }
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], query)


def used_metrics(query: str) -> dict[str, set[str]]:
    """Which series a query needs.

    Args:
        query: PromQL, with variables or without.

    Returns:
        Metric to the labels that it must have: those in conditions, and those that the query
        groups or matches by. Metrics are named as in the query, with `_bucket` and so on.

    Raises:
        PromqlError: The query is not PromQL.
    """
    used: dict[str, set[str]] = {}
    for selector, labels in _selectors(parse(query), frozenset()):
        own = {label for label, _, _ in selector.matchers}
        used.setdefault(selector.metric, set()).update(labels | own)
    return used


def windows(query: str) -> set[str]:
    """The ranges of time that a query looks back over, durations and variables."""

    def walk(expression: Expression) -> Iterator[str]:
        if isinstance(expression, Range | Subquery):
            yield expression.window
        for each in children(expression):
            yield from walk(each)

    return set(walk(parse(query)))


def output_labels(expression: Expression) -> frozenset[str] | None:
    """The labels of what an expression returns; None where they are those of the metric."""
    match expression:
        case Aggregation(operator="topk" | "bottomk", expression=inner):
            return output_labels(inner)
        case Aggregation(without=False, labels=labels):
            return frozenset(labels)
        case Call(function="histogram_quantile", arguments=(_, inner)):
            labels_ = output_labels(inner)
            return None if labels_ is None else labels_ - {"le"}
        case Call(function="label_replace"):
            return None
        case Call(arguments=arguments):
            return output_labels(arguments[-1]) if arguments else frozenset()
        case Binary(left=left, right=right):
            sides = [output_labels(side) for side in (left, right) if _is_vector(side)]
            return sides[0] if sides else frozenset()
        case Unary(expression=inner) | Subquery(expression=inner):
            return output_labels(inner)
        case _:
            return None


def _is_vector(expression: Expression) -> bool:
    if isinstance(expression, Call) and expression.function == "time":
        return False
    return isinstance(expression, Selector) or any(
        _is_vector(each) for each in children(expression)
    )


def _selectors(
    expression: Expression, labels: frozenset[str]
) -> Iterator[tuple[Selector, frozenset[str]]]:
    match expression:
        case Selector():
            yield expression, labels
        case Aggregation(labels=own, without=without):
            inside = labels if without else labels | frozenset(own)
            for each in children(expression):
                yield from _selectors(each, inside)
        case Binary(matching=own):
            for each in children(expression):
                yield from _selectors(each, labels | frozenset(own))
        case _:
            for each in children(expression):
                yield from _selectors(each, labels)
