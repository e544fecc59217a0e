"""How soon those can be served at the earliest whom a plan does not look at.

A plan places only so many requests, and slots never fall free sooner for having been given to more:
whoever is served behind those that it has placed starts no sooner than where their places end. That
is a bound from below, so that nobody is refused for it who could be served.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.balancer.core.cost import Lane
from services.balancer.core.demand import Demand, Kind
from services.balancer.core.eligibility import RequestKind, kind_of
from services.balancer.core.snapshot import Residency

__all__ = ["Opening", "earliest_first_token", "openings_of", "turning_points"]


@dataclass(frozen=True, slots=True)
class Opening:
    """The slots of a model on one backend, once those before have been given theirs.

    Attributes:
        backend_id: Where.
        at: No slot is free sooner, monotonic seconds.
        prefill_rate: Tokens of a prompt read per second.
        overhead_seconds: What a request costs besides its tokens.
    """

    backend_id: str
    at: float
    prefill_rate: float
    overhead_seconds: float


def turning_points(queue: Sequence[Demand], limit: int) -> dict[int, list[Demand]]:
    """Says how far a plan has to come before the openings of each kind of request are known.

    That is behind the last of them; but texts that wait for a model are embedded together, so that
    those behind need not wait for those before.

    Args:
        queue: The requests that wait, in order of service.
        limit: Most of them that the plan looks at.

    Returns:
        One request of each kind, by the place in the queue before which to look.
    """
    places: dict[RequestKind, tuple[int, Demand]] = {}
    count = 0
    for place, demand in enumerate(queue):
        if demand.expected:
            continue
        if count == limit:
            break
        count += 1
        kind = kind_of(demand)
        if demand.kind is not Kind.EMBED:
            places[kind] = (place + 1, demand)
        elif kind not in places:
            places[kind] = (place, demand)
    points: dict[int, list[Demand]] = {}
    for place, demand in places.values():
        points.setdefault(place, []).append(demand)
    return points


def openings_of(lanes: Iterable[Lane]) -> tuple[Opening, ...]:
    """Returns the openings of a model as a plan has come to know them, the soonest first."""
    found = [
        Opening(
            lane.bench.view.id,
            _opens_at(lane),
            lane.model.prefill_rate,
            lane.model.overhead_seconds,
        )
        for lane in lanes
    ]
    return tuple(sorted(found, key=lambda each: each.at))


def _opens_at(lane: Lane) -> float:
    if lane.residency is Residency.LOADING:
        return max(lane.ready_at, lane.free_at)
    if lane.residency is Residency.WARM and not lane.yielding:
        return lane.free_at
    begin = max(lane.bench.now, lane.idle_at)
    if lane.bench.loading_key is not None:
        begin = max(begin, lane.bench.loading_until)
    return begin + lane.model.load_seconds


def earliest_first_token(demand: Demand, openings: Iterable[Opening], now: float) -> float | None:
    """Returns in how many seconds a request has its first token at the earliest.

    Args:
        demand: The request; it is served behind those that the plan has placed.
        openings: Those of its kind, the soonest first.
        now: Seconds of the monotonic clock.

    Returns:
        None where nobody can say, because all who could serve it have failed it.
    """
    best: float | None = None
    for opening in openings:
        wait = max(0.0, opening.at - now)
        if best is not None and wait >= best:
            break
        if opening.backend_id in demand.tried:
            continue
        unread = demand.prompt_token_count - min(
            demand.prefix_hits.get(opening.backend_id, 0), demand.prompt_token_count
        )
        seconds = wait + unread / opening.prefill_rate + opening.overhead_seconds
        best = seconds if best is None else min(best, seconds)
    return best
