"""What the use cases share: the fleet, the way to it, and the account of every request."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import trace

from services.balancer.attempts import Attempts, deadline_is_spent
from services.balancer.core.models import Capability
from services.balancer.core.names import model_key
from services.balancer.core.requests import Operation
from services.balancer.core.selection import Wanted
from services.balancer.core.work import Work
from services.balancer.fleet import Fleet
from services.balancer.ports import ModelServer
from services.common.clock import Clock
from services.common.metrics import Metrics

__all__ = ["Dispatcher", "wanted_generation", "wanted_vectors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Gives requests to backends.

    Attributes:
        fleet: The backends.
        servers: What reaches them, by backend id.
        clock: Measures durations.
        metrics: Receives what attempts took.
        tracer: Makes the spans of attempts.
        maximum_attempts: Most attempts per request.
    """

    fleet: Fleet
    servers: Mapping[str, ModelServer]
    clock: Clock
    metrics: Metrics
    tracer: trace.Tracer
    maximum_attempts: int

    @contextmanager
    def account(self) -> Iterator[None]:
        """Counts a request and its one outcome."""
        counters = self.fleet.counters
        counters.request_count += 1
        counters.in_flight_count += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            if deadline_is_spent():
                counters.failure_count += 1
            else:
                counters.cancelled_count += 1
            raise
        except BaseException:
            counters.failure_count += 1
            raise
        finally:
            counters.in_flight_count -= 1

    def attempts(self, operation: Operation, model: str, wanted: Wanted) -> Attempts:
        """Opens the attempts of a request, or of one piece of it.

        Args:
            operation: What is asked for.
            model: The model as the caller wrote it.
            wanted: What is asked of a backend.
        """
        return Attempts(
            self.fleet,
            self.servers,
            clock=self.clock,
            metrics=self.metrics,
            tracer=self.tracer,
            operation=operation,
            model=model,
            wanted=wanted,
            maximum_count=self.maximum_attempts,
        )


def wanted_generation(model: str) -> Wanted:
    """Says what one answer asks of a backend."""
    return Wanted(
        model_key=model_key(model),
        capability=Capability.COMPLETION,
        work=Work(generation_count=1.0),
    )


def wanted_vectors(model: str, text_count: int) -> Wanted:
    """Says what the vectors of some texts ask of a backend."""
    return Wanted(
        model_key=model_key(model),
        capability=Capability.EMBEDDING,
        work=Work(text_count=float(text_count)),
    )
