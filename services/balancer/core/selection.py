"""Which backend gets a request.

A pure function of what is known: the service calls it, and tests and simulations can do so too.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum

from services.balancer.core.models import Capability, InstalledModel
from services.balancer.core.work import UnitCost, Work, load_seconds

__all__ = ["BackendView", "Decision", "Reason", "Refusal", "RefusalReason", "Wanted", "choose"]

# Load scores nearer than this are taken for equal: the estimates behind them are no better
# (response times of equal backends vary by half, and a mean of twenty by a tenth).
_TIE_RATIO = 0.2
# One failure is no tie: whoever just failed a request would be next in turn for its successor.
_TIE_FAILURE_RATIO = 0.02


class Reason(Enum):
    """Why a backend was chosen; the values serve as labels of metrics and spans."""

    LOWEST_LOAD = "lowest_load"
    ONLY_CANDIDATE = "only_candidate"
    ROUND_ROBIN_FALLBACK = "round_robin_fallback"


class RefusalReason(Enum):
    """Why no backend was chosen."""

    MODEL_NOT_FOUND = "model_not_found"
    CAPABILITY_MISSING = "capability_missing"
    NONE_LEFT = "none_left"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendView:
    """What the choice needs to know of a backend.

    Attributes:
        backend_id: Host and port.
        healthy: Whether it takes requests.
        installed: Its models by key; None where it was never reached.
        outstanding: Work it has been given and is not done with.
        cost: What a unit of work is expected to take there.
        last_turn: Number of the last decision of this kind that chose it; 0 for none.
    """

    backend_id: str
    healthy: bool
    installed: Mapping[str, InstalledModel] | None
    outstanding: Work
    cost: UnitCost
    last_turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request asks of a backend.

    Attributes:
        model_key: Key of the model.
        capability: What the model must be capable of.
        work: Amount of work.
        digest: The one variant of the model that will do; None where any does.
    """

    model_key: str
    capability: Capability
    work: Work
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A choice.

    Attributes:
        backend_id: Who gets the request.
        reason: Why.
        model: The model as that backend has it; None where it was never reached.
        load_seconds: Load score of each candidate with the request's own work, by backend id.
    """

    backend_id: str
    reason: Reason
    model: InstalledModel | None
    load_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """No choice.

    Attributes:
        reason: Why.
        known_models: Names of the models there are, sorted.
    """

    reason: RefusalReason
    known_models: tuple[str, ...]


def choose(
    backends: Sequence[BackendView], wanted: Wanted, excluded: Set[str]
) -> Decision | Refusal:
    """Chooses a backend for a request.

    Of the healthy backends that have the model, the one with the lowest load score: the seconds
    until it is expected to be done with all outstanding work and the request. Equal scores
    take turns. Where no healthy backend has the model, those that have it take turns in spite of
    their health, after them those of which nothing is known.

    Args:
        backends: The fleet.
        wanted: The request.
        excluded: Ids of backends that the request was tried on.
    """
    holders = [each for each in backends if _may_have(each, wanted)]
    capable = [each for each in holders if _may_do(each, wanted)]
    left = [each for each in capable if each.backend_id not in excluded]
    if not left:
        return Refusal(
            reason=_refusal_reason(holders, capable, wanted), known_models=_known_models(backends)
        )
    ready = [each for each in left if each.healthy]
    if ready:
        return _least_loaded(ready, wanted)
    known = [each for each in left if each.installed is not None]
    return _decide(known or left, known or left, wanted, Reason.ROUND_ROBIN_FALLBACK)


def _least_loaded(ready: Sequence[BackendView], wanted: Wanted) -> Decision:
    if len(ready) == 1:
        return _decide(ready, ready, wanted, Reason.ONLY_CANDIDATE)
    best = min(ready, key=lambda each: _score(each, wanted))
    lowest = _score(best, wanted)
    tied = [
        each
        for each in ready
        if _score(each, wanted) <= lowest * (1.0 + _TIE_RATIO)
        and each.cost.failure_ratio <= best.cost.failure_ratio + _TIE_FAILURE_RATIO
    ]
    return _decide(tied, ready, wanted, Reason.LOWEST_LOAD)


def _decide(
    tied: Sequence[BackendView],
    candidates: Sequence[BackendView],
    wanted: Wanted,
    reason: Reason,
) -> Decision:
    # Whoever waited longest. A counter taken modulo would favour the successors of backends
    # that are often absent from the list.
    chosen = min(tied, key=lambda each: (each.last_turn, each.backend_id))
    return Decision(
        backend_id=chosen.backend_id,
        reason=reason,
        model=(chosen.installed or {}).get(wanted.model_key),
        load_seconds={each.backend_id: _score(each, wanted) for each in candidates},
    )


def _score(backend: BackendView, wanted: Wanted) -> float:
    return load_seconds(backend.outstanding + wanted.work, backend.cost)


def _may_have(backend: BackendView, wanted: Wanted) -> bool:
    if backend.installed is None:
        return True
    model = backend.installed.get(wanted.model_key)
    return model is not None and wanted.digest in (None, model.digest)


def _may_do(backend: BackendView, wanted: Wanted) -> bool:
    return backend.installed is None or backend.installed[wanted.model_key].can(wanted.capability)


def _refusal_reason(
    holders: Sequence[BackendView], capable: Sequence[BackendView], wanted: Wanted
) -> RefusalReason:
    if capable:
        return RefusalReason.NONE_LEFT
    if holders:
        return RefusalReason.CAPABILITY_MISSING
    return RefusalReason.MODEL_NOT_FOUND if wanted.digest is None else RefusalReason.NONE_LEFT


def _known_models(backends: Sequence[BackendView]) -> tuple[str, ...]:
    return tuple(
        sorted({model.name for each in backends for model in (each.installed or {}).values()})
    )
