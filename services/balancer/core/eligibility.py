"""Who could serve a request at all, whatever it would cost there."""

from services.balancer.core.demand import Demand, Kind
from services.balancer.core.snapshot import BackendView
from services.balancer.core.terms import Exclusion

__all__ = ["RequestKind", "exclusion_of", "kind_of", "misfit"]

RequestKind = tuple[str, str | None, bool]


def kind_of(demand: Demand) -> RequestKind:
    """Returns what decides who holds the model that a demand asks for."""
    return demand.model_key, demand.digest, demand.kind is Kind.EMBED


def misfit(view: BackendView, demand: Demand) -> str | None:
    """Says why a backend, were it well, could not serve a demand."""
    if view.drained:
        return Exclusion.DRAINED
    model = (view.models or {}).get(demand.model_key)
    if model is None:
        return Exclusion.MODEL_ABSENT
    if demand.digest is not None and model.digest != demand.digest:
        return Exclusion.OTHER_DIGEST
    return None if model.can(demand.kind.capability) else Exclusion.CAPABILITY_MISSING


def exclusion_of(view: BackendView, demand: Demand) -> str | None:
    """Says why a backend cannot serve a demand now."""
    unfit = misfit(view, demand)
    if unfit is not None:
        return unfit
    if not view.takes_requests:
        return Exclusion.UNHEALTHY
    return Exclusion.TRIED if view.id in demand.tried else None
