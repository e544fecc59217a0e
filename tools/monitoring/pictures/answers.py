"""What Prometheus answers to the queries of a dashboard."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tools.monitoring.dashboards.queries import panels, resolve

__all__ = ["Answers", "Series", "ask", "read_answers"]

_STEPS: Final = 120


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer.

    Attributes:
        labels: its labels.
        points: times in seconds since the epoch, and finite values; at least one.
    """

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """Its last value."""
        return self.points[-1][1]


Answers = Mapping[tuple[int, str], tuple[Series, ...]]
"""Number of a panel and letter of its query to what was answered."""


def read_answers(bodies: Mapping[tuple[int, str], Mapping[str, Any]]) -> Answers:
    """Reads what Prometheus' HTTP API has sent.

    Args:
        bodies: Number of a panel and letter of its query to the whole JSON of the answer.

    Raises:
        ValueError: Prometheus could not answer.
    """
    return {key: tuple(_series(key, body)) for key, body in bodies.items()}


def ask(
    client: httpx.Client, dashboard: Mapping[str, Any], *, end: float, minutes: float
) -> Answers:
    """Asks Prometheus all that a dashboard asks it.

    Args:
        client: Leads to Prometheus, with its address as base.
        dashboard: The dashboard.
        end: The moment up to which it is asked, seconds since the epoch.
        minutes: How far back.

    Raises:
        ValueError: Prometheus refuses a query.
        httpx.HTTPError: It cannot be reached.
    """
    step = max(minutes * 60 / _STEPS, 1)
    bodies = {}
    for panel in panels(dashboard):
        for target in panel["targets"]:
            if "expr" not in target:
                continue
            query = resolve(target["expr"], picked_range=f"{max(round(minutes * 60), 1)}s")
            if target["instant"]:
                answer = client.get("/api/v1/query", params={"query": query, "time": end})
            else:
                answer = client.get(
                    "/api/v1/query_range",
                    params={
                        "query": query,
                        "start": end - minutes * 60,
                        "end": end,
                        "step": step,
                    },
                )
            bodies[panel["id"], target["refId"]] = answer.json()
    return read_answers(bodies)


def _series(key: tuple[int, str], body: Mapping[str, Any]) -> Iterator[Series]:
    if body["status"] != "success":
        raise ValueError(f"panel {key[0]}{key[1]}: {body.get('error', 'no answer')}")
    for each in body["data"]["result"]:
        sent = each["values"] if "values" in each else [each["value"]]
        points = tuple((float(at), float(value)) for at, value in sent)
        points = tuple(point for point in points if math.isfinite(point[1]))
        labels = {name: value for name, value in each["metric"].items() if name != "__name__"}
        if points:
            yield Series(labels, points)
