"""The fleet as the balancer knows it: what each backend has, does and has shown.

Lives on the event loop and is changed without awaiting anything, so that each choice sees every
choice made before it.
"""

import asyncio
import logging
import math
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace

from services.balancer.core.decay import DecayedMean
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.health import Health, Signal, after, seconds_until_check
from services.balancer.core.models import (
    Capability,
    FleetModel,
    Holdings,
    InstalledModel,
    LoadedModel,
    ServerReport,
    merge,
)
from services.balancer.core.names import model_key
from services.balancer.core.requests import Completion, EmbeddingReply
from services.balancer.core.selection import BackendView, Decision, Refusal, Wanted, choose
from services.balancer.core.work import Speed, UnitCost, Work, load_seconds, unit_costs
from services.balancer.settings import Endpoint
from services.common.clock import Clock

__all__ = ["Backend", "Counters", "Fleet"]

_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Counters:
    """Totals since the start.

    Attributes:
        request_count: Requests received.
        failure_count: Requests that failed; cancelled ones not counted.
        retry_count: Attempts beyond the first of each request.
        cancelled_count: Requests cancelled by their callers.
        in_flight_count: Requests under way.
    """

    request_count: int = 0
    failure_count: int = 0
    retry_count: int = 0
    cancelled_count: int = 0
    in_flight_count: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Backend:
    """One backend.

    Attributes:
        endpoint: Where it listens.
        id: Host and port.
        health: Whether it takes requests.
        health_changed: Set when its next check should come earlier, or later, than planned.
        version: Version of its server; empty before the first successful check.
        installed: Its models by key; None before the first successful check.
        loaded: Models in its memory.
        checked_at: When it was last checked, seconds since the epoch; None before.
        check_seconds: How long the last check took.
        outstanding: Work it has been given and is not done with.
        in_flight_count: Attempts under way.
        request_count: Attempts sent to it.
        failure_count: Attempts that failed there.
        success_count: Attempts that succeeded there.
        success_seconds: What these took together.
        first_token_seconds: Time until the first token.
        speed: What its replies have shown.
        turns: Number of the last decision that chose it, by capability.
    """

    endpoint: Endpoint
    id: str = field(init=False)
    health: Health = field(default_factory=Health)
    health_changed: asyncio.Event = field(default_factory=asyncio.Event)
    version: str = ""
    installed: dict[str, InstalledModel] | None = None
    loaded: tuple[LoadedModel, ...] = ()
    checked_at: float | None = None
    check_seconds: float = 0.0
    outstanding: Work = field(default_factory=Work)
    in_flight_count: int = 0
    request_count: int = 0
    failure_count: int = 0
    success_count: int = 0
    success_seconds: float = 0.0
    first_token_seconds: DecayedMean = field(default_factory=DecayedMean)
    speed: Speed = field(default_factory=Speed)
    turns: dict[Capability, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keeps the id, which is read dozens of times per request."""
        self.id = self.endpoint.backend_id


class Fleet:
    """All backends.

    Args:
        endpoints: Where they listen.
        clock: Measures what they take.
    """

    def __init__(self, endpoints: Iterable[Endpoint], *, clock: Clock) -> None:
        self._clock = clock
        backends = sorted((Backend(endpoint=each) for each in endpoints), key=lambda each: each.id)
        self.backends = {backend.id: backend for backend in backends}
        self.counters = Counters()
        self.started_at = clock.now()
        self._output_token_count = DecayedMean()
        self._served = Work()
        self._attempt_count = 0
        self._turn = 0

    @property
    def healthy_count(self) -> int:
        """Number of backends that take requests."""
        return sum(backend.health.healthy for backend in self.backends.values())

    def choose(self, wanted: Wanted, excluded: Set[str]) -> Decision | Refusal:
        """Chooses a backend for a request, without giving it the request yet."""
        costs = self._unit_costs()
        views = [
            BackendView(
                backend_id=backend.id,
                healthy=backend.health.healthy,
                installed=backend.installed,
                outstanding=backend.outstanding,
                cost=costs[backend.id],
                last_turn=backend.turns.get(wanted.capability, 0),
            )
            for backend in self.backends.values()
        ]
        return choose(views, wanted, excluded)

    def load_scores(self) -> dict[str, float]:
        """Returns the load score of each backend: the seconds until it would be done with one more.

        One more is the average request of this fleet: without it all idle backends would look
        alike, fast ones and slow ones.
        """
        typical = Work(generation_count=1.0)
        if self._attempt_count:
            typical = self._served.times(1 / self._attempt_count)
        costs = self._unit_costs()
        return {
            backend.id: load_seconds(backend.outstanding + typical, costs[backend.id])
            for backend in self.backends.values()
        }

    def models(self) -> tuple[FleetModel, ...]:
        """Lists the models of the fleet as last seen, sorted by key."""
        return merge(
            {
                backend.id: Holdings(
                    installed=backend.installed,
                    loaded_keys=frozenset(model_key(each.name) for each in backend.loaded),
                )
                for backend in self.backends.values()
                if backend.installed is not None
            }
        )

    def begin_attempt(self, backend: Backend, wanted: Wanted) -> None:
        """Notes that a backend is given work; `end_attempt` must follow."""
        self._turn += 1
        backend.turns[wanted.capability] = self._turn
        backend.outstanding += wanted.work
        backend.in_flight_count += 1
        backend.request_count += 1
        self._attempt_count += 1
        self._served += wanted.work

    def end_attempt(self, backend: Backend, wanted: Wanted) -> None:
        """Notes that a backend is no longer at work on something."""
        backend.in_flight_count -= 1
        # Exactly zero when idle, whatever rounding did meanwhile.
        idle = backend.in_flight_count == 0
        backend.outstanding = Work() if idle else backend.outstanding - wanted.work

    def note_first_token(self, backend: Backend, seconds: float) -> None:
        """Notes how long the first token took."""
        now = self._clock.monotonic()
        backend.first_token_seconds = backend.first_token_seconds.add(seconds, now)

    def note_generation(self, backend: Backend, completion: Completion, seconds: float) -> None:
        """Notes a complete answer, and what it took from request to last byte."""
        self._note_success(backend, seconds)
        tokens = completion.output_token_count
        if tokens == 0 or completion.output_seconds == 0:
            return
        now = self._clock.monotonic()
        backend.speed = backend.speed.with_generation(
            prompt_seconds=completion.prompt_seconds,
            token_seconds=completion.output_seconds / tokens,
            now=now,
        )
        self._output_token_count = self._output_token_count.add(tokens, now)

    def note_embedding(
        self, backend: Backend, reply: EmbeddingReply, seconds: float, texts_ahead: float
    ) -> None:
        """Notes a reply with vectors.

        Args:
            backend: Who sent it.
            reply: The reply.
            seconds: What it took from request to last byte.
            texts_ahead: Texts the backend had to embed when it was given these, these included;
                it does one after the other.
        """
        self._note_success(backend, seconds)
        working_seconds = max(0.0, seconds - reply.load_seconds)
        now = self._clock.monotonic()
        backend.speed = backend.speed.with_texts(working_seconds / texts_ahead, now)

    def _note_success(self, backend: Backend, seconds: float) -> None:
        backend.success_count += 1
        backend.success_seconds += seconds
        now = self._clock.monotonic()
        backend.speed = backend.speed.with_outcome(failed=False, now=now)
        self._signal(backend, Signal.REQUEST_SUCCEEDED)

    def note_failure(self, backend: Backend, wanted: Wanted, failure: AttemptFailed) -> None:
        """Notes that an attempt failed, and what follows for the backend."""
        if failure.kind is FailureKind.MODEL_ABSENT and backend.installed is not None:
            backend.installed.pop(wanted.model_key, None)
        if failure.kind is FailureKind.REJECTED:
            return
        backend.failure_count += 1
        if not failure.kind.counts_against_backend:
            return
        now = self._clock.monotonic()
        backend.speed = backend.speed.with_outcome(failed=True, now=now)
        lost = failure.kind is FailureKind.CONNECTION
        self._signal(
            backend,
            Signal.REQUEST_CONNECTION_LOST if lost else Signal.REQUEST_FAILED,
            failure.message,
        )

    def note_check(
        self, backend: Backend, result: ServerReport | AttemptFailed, seconds: float
    ) -> None:
        """Notes what a check found, and how long it took."""
        backend.checked_at = self._clock.now()
        backend.check_seconds = seconds
        if isinstance(result, AttemptFailed):
            lost = result.kind is FailureKind.CONNECTION
            signal = Signal.CHECK_CONNECTION_LOST if lost else Signal.CHECK_FAILED
            self._signal(backend, signal, result.message)
            return
        backend.version = result.version
        if result.loaded is not None:
            backend.loaded = result.loaded
        if result.installed is not None:
            backend.installed = {model_key(each.name): each for each in result.installed}
        if backend.installed is None:
            self._signal(backend, Signal.CHECK_FAILED, "the server does not list its models")
        else:
            self._signal(backend, Signal.CHECK_SUCCEEDED)

    def _signal(self, backend: Backend, signal: Signal, message: str = "") -> None:
        before = backend.health
        backend.health = after(before, signal, message)
        if backend.health.healthy and not before.healthy:
            # Why it was out has been dealt with; it is not to be avoided on top of that.
            backend.speed = replace(backend.speed, failures=DecayedMean())
            _logger.info("backend takes requests", extra={"backend": backend.id})
        elif before.healthy and not backend.health.healthy:
            _logger.warning("backend is out", extra={"backend": backend.id, "failure": message})
        if seconds_until_check(backend.health, math.inf) != seconds_until_check(before, math.inf):
            backend.health_changed.set()

    def _unit_costs(self) -> dict[str, UnitCost]:
        return unit_costs(
            {backend.id: backend.speed for backend in self.backends.values()},
            self._output_token_count,
            self._clock.monotonic(),
        )
