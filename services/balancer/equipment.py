"""What all attempts at backends share."""

from dataclasses import dataclass, field

from opentelemetry import trace

from services.balancer.backend import ModelState
from services.balancer.core.budgets import RatioBudget
from services.balancer.core.patience import Overruns, Patience
from services.balancer.failing import FailureEffects
from services.balancer.fleet import Fleet
from services.balancer.ports import KEEP_FOR_EVER, Servers
from services.balancer.scheduler import Scheduler
from services.common.clock import Clock
from services.common.deadline import remaining_seconds
from services.common.metrics import Metrics

__all__ = ["Equipment", "deadline_is_spent"]


def deadline_is_spent() -> bool:
    """Tells whether the running call has no time left."""
    remaining = remaining_seconds()
    return remaining is not None and remaining <= 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What all attempts share.

    Attributes:
        fleet: The backends.
        scheduler: Gives out their slots.
        servers: What reaches them.
        effects: What follows from failures.
        retries: What may be retried.
        clock: Measures durations.
        metrics: Receives what attempts took.
        tracer: Makes their spans.
        patience: How long a backend may be silent.
        keep_alive: How long a backend is told to keep a model loaded.
        maximum_attempts: Most attempts per request.
        overruns: Which models were given too short a time.
    """

    fleet: Fleet
    scheduler: Scheduler
    servers: Servers
    effects: FailureEffects
    retries: RatioBudget
    clock: Clock
    metrics: Metrics
    tracer: trace.Tracer
    patience: Patience
    keep_alive: str
    maximum_attempts: int
    overruns: Overruns = field(default_factory=Overruns)

    def keep_alive_of(self, model: ModelState) -> str | int:
        """Returns how long a backend is told to keep a model: the last one told counts."""
        return KEEP_FOR_EVER if model.pinned else self.keep_alive
