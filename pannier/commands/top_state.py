"""What `pannier top` knows of the services: the last report of each, and how fast counts grow."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from pannier.balancer.v1 import balancer_service_pb2 as balancer_pb
from pannier.rag.v1 import rag_service_pb2 as rag_pb
from pannier.rag.v1 import usage_service_pb2 as usage_pb

__all__ = ["SERVICES", "Growth", "Seen", "TopState"]

SERVICES = ("rag", "cache", "balancer")

_SPAN_SECONDS = 10.0
_POINTS = 64


class Growth:
    """How fast counts have grown over the last seconds.

    Counts that fall, because their process was started anew, begin anew.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, dict[str, float]]] = deque(maxlen=_POINTS)

    def note(self, at: float, counts: dict[str, float]) -> None:
        """Takes in counts by name at a time in monotonic seconds."""
        if self._points and any(
            counts.get(name, 0.0) < value for name, value in self._points[-1][1].items()
        ):
            self._points.clear()
        # Points are kept apart, so that the span is covered however often reports come.
        if len(self._points) > 1 and at - self._points[-2][0] < _SPAN_SECONDS / (_POINTS // 2):
            self._points.pop()
        self._points.append((at, counts))
        while len(self._points) > 2 and at - self._points[1][0] >= _SPAN_SECONDS:
            self._points.popleft()

    def increase(self, name: str) -> float:
        """Returns by how much a count has grown over the span; 0 before the second report."""
        if not self._points:
            return 0.0
        first, last = self._points[0][1], self._points[-1][1]
        return last.get(name, 0.0) - first.get(name, 0.0)

    def per_second(self, name: str) -> float | None:
        """Returns how fast a count grows; None before the second report."""
        if len(self._points) < 2:
            return None
        seconds = self._points[-1][0] - self._points[0][0]
        return self.increase(name) / seconds if seconds > 0 else None


@dataclass(slots=True)
class Seen:
    """What was last heard of a service.

    Attributes:
        stats: Its last report; None before the first, and while it is away.
        away_since: Since when it is away, monotonic seconds; None while it is there.
        problem: Why it is away.
        growth: How fast what it counts grows.
    """

    stats: Any = None
    away_since: float | None = None
    problem: str = ""
    growth: Growth = field(default_factory=Growth)


@dataclass(slots=True)
class TopState:
    """What is known of all services.

    Attributes:
        services: By name.
        usage: What the tenant has used within a day; None before it was heard.
    """

    services: dict[str, Seen] = field(default_factory=lambda: {name: Seen() for name in SERVICES})
    usage: usage_pb.GetUsageResponse | None = None

    def note_report(self, service: str, stats: Any, at: float) -> None:
        """Takes in a report."""
        seen = self.services[service]
        seen.stats, seen.away_since, seen.problem = stats, None, ""
        if service == "rag":
            seen.growth.note(at, _rag_counts(stats))
        elif service == "balancer":
            seen.growth.note(at, _balancer_counts(stats))

    def note_away(self, service: str, problem: str, at: float) -> None:
        """Notes that a service does not answer."""
        seen = self.services[service]
        seen.stats, seen.problem = None, problem
        if seen.away_since is None:
            seen.away_since = at


def _rag_counts(stats: rag_pb.GetStatsResponse) -> dict[str, float]:
    counts: dict[str, float] = {}
    for mode in stats.modes:
        for name in ("query", "failure", "cached", "degraded"):
            count = getattr(mode, f"{name}_count")
            counts[name] = counts.get(name, 0.0) + count
            counts[f"{name}/{mode.mode}"] = count
    return counts


def _balancer_counts(stats: balancer_pb.GetStatsResponse) -> dict[str, float]:
    counts: dict[str, float] = {
        "request": stats.fleet.request_count,
        "failure": stats.fleet.failure_count,
        "retry": stats.fleet.retry_count,
    }
    for backend in stats.backends:
        counts[f"request/{backend.backend_id}"] = backend.request_count
    return counts
