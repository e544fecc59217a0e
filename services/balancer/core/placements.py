"""What a plan consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.balancer.core.cost import Candidate
from services.balancer.core.demand import Demand
from services.balancer.core.eligibility import RequestKind
from services.balancer.core.openings import Opening
from services.balancer.core.terms import Terms

__all__ = ["Assessment", "LoadOrder", "Outcome", "Placement", "Plan", "Reason"]


class Outcome(Enum):
    """What happens to a request; the values serve as labels of metrics."""

    DISPATCHED = "dispatched"
    HELD = "held"
    LOADING = "loading"
    EXHAUSTED = "exhausted"


class Reason(Enum):
    """Why a backend was chosen; the values serve as labels of metrics and spans."""

    LOWEST_COST = "lowest_cost"
    LONGEST_PREFIX = "longest_prefix"
    LEAST_BUSY = "least_busy"
    ONLY_CANDIDATE = "only_candidate"
    ROUND_ROBIN_FALLBACK = "round_robin_fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a plan does with one request.

    Attributes:
        demand: The request.
        outcome: What happens to it.
        backend_id: Where it goes or waits; None where no backend is left.
        reason: Why there.
        terms: What it costs there; None without a cost, that is in a round robin.
        position: Requests before it in the queue.
    """

    demand: Demand
    outcome: Outcome
    position: int
    backend_id: str | None = None
    reason: Reason | None = None
    terms: Terms | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """A model to be loaded.

    Attributes:
        backend_id: Where.
        model_key: Which.
        evicted_keys: Models to be unloaded before, all idle.
        context_token_count: Context window to load it with; 0 for its own choice.
        predicted_seconds: What unloading and loading are predicted to take together.
        embeds: Whether it is to be loaded as an embedding model.
    """

    backend_id: str
    model_key: str
    evicted_keys: tuple[str, ...]
    context_token_count: int
    predicted_seconds: float
    embeds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done now.

    Attributes:
        placements: One per request looked at, in order of service.
        loads: Models to be loaded.
        yielding: Models in use that are given nothing more until they can be unloaded for another,
            as pairs of backend id and model key; quick plans want it in their snapshots.
        openings: What is left for those whom the plan has not looked at, by kind of request; none
            in quick plans, which pass over those that wait.
    """

    placements: tuple[Placement, ...]
    loads: tuple[LoadOrder, ...]
    yielding: frozenset[tuple[str, str]] = frozenset()
    openings: Mapping[RequestKind, tuple[Opening, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What every backend would cost a request.

    Attributes:
        candidates: By backend id: what it would cost, or why it is no candidate.
        placement: What the plan does with the request.
    """

    candidates: Mapping[str, Candidate | str]
    placement: Placement
