"""All backends: who belongs to the fleet, and what happens to each.

Lives on the event loop and is changed without awaiting anything, so that each decision sees every
decision made before it.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.balancer.backend import Backend, ModelState, Occupancy
from services.balancer.core.cost import Terms
from services.balancer.core.demand import Demand
from services.balancer.core.models import (
    FleetModel,
    Holdings,
    InstalledModel,
    LoadedModel,
    ServerReport,
    merge,
)
from services.balancer.core.requests import Completion
from services.balancer.core.shares import Reservations, SoleReplica
from services.balancer.core.snapshot import Policy, Room
from services.balancer.core.standing import RULES, Rules, Signal, after, takes_requests
from services.balancer.drift import DriftLog
from services.balancer.fleet_views import FleetViews
from services.balancer.settings import Endpoint
from services.common.clock import Clock

__all__ = ["Counters", "Fleet"]

_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Counters:
    """Totals since the start.

    Attributes:
        request_count: Requests received.
        failure_count: Requests that failed; cancelled ones not counted.
        retry_count: Attempts beyond the first of each request.
        cancelled_count: Requests cancelled by their callers.
        in_flight_count: Requests under way, those in the queue included.
        refused_count: Requests refused for want of room in the queue, or of patience.
        unreachable_deadline_count: Requests refused because their deadlines could not be met.
        load_count: Loads ordered.
        eviction_count: Models unloaded to make room.
    """

    request_count: int = 0
    failure_count: int = 0
    retry_count: int = 0
    cancelled_count: int = 0
    in_flight_count: int = 0
    refused_count: int = 0
    unreachable_deadline_count: int = 0
    load_count: int = 0
    eviction_count: int = 0


class Fleet(FleetViews):
    """All backends.

    Args:
        clock: Measures what they take.
        policy: The planner's constants.
        slot_count: Requests that a model is given at a time where its endpoint does not say.
        model_limit: Models that a backend is thought to hold where its endpoint does not say.
        jitter: Returns a number from 0 to 1, to spread what would else happen in step.
        reservations: What other replicas of the balancer hold.
        rules: When a backend goes out and how it comes back.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        policy: Policy | None = None,
        slot_count: int = 1,
        model_limit: int = 3,
        jitter: Callable[[], float] = lambda: 0.5,
        reservations: Reservations | None = None,
        rules: Rules = RULES,
    ) -> None:
        super().__init__(
            clock=clock,
            policy=policy or Policy(),
            reservations=reservations or SoleReplica(),
            rules=rules,
        )
        self._slot_count = slot_count
        self._model_limit = model_limit
        self._jitter = jitter
        self.counters = Counters()
        self.started_at = clock.now()
        self.changed: Callable[[], None] = lambda: None
        """Called when requests that wait may find something new."""
        self._turn = 0
        self._drift = DriftLog()

    # Who belongs to it.

    def add(self, endpoint: Endpoint) -> Backend:
        """Takes in a backend; one that is there already is returned as it is."""
        backend = self.backends.get(endpoint.backend_id)
        if backend is None:
            room = Room(model_limit=endpoint.model_limit or self._model_limit)
            backend = Backend(endpoint=endpoint, room=room)
            self.backends[backend.id] = backend
            self.backends = dict(sorted(self.backends.items()))
            self.changed()
        return backend

    def remove(self, backend_id: str) -> None:
        """Forgets a backend."""
        self.backends.pop(backend_id, None)
        self.estimates.forget_backend(backend_id)
        self.prefixes.forget(backend_id)
        self.changed()

    @property
    def healthy_count(self) -> int:
        """Number of backends that take requests."""
        return sum(takes_requests(backend.standing) for backend in self.backends.values())

    def models(self) -> tuple[FleetModel, ...]:
        """Lists the models of the fleet as last seen, sorted by key."""
        return merge(
            {
                backend.id: Holdings(
                    installed={
                        key: replace(each.installed, name=each.names[key])
                        for key, each in backend.models.items()
                    },
                    loaded_keys=frozenset(
                        key for each in backend.warm_models() for key in each.names
                    ),
                    differing_keys=frozenset(
                        key for key, each in backend.models.items() if each.differs_in_memory
                    ),
                )
                for backend in self.backends.values()
                if backend.models is not None
            }
        )

    def model_names(self) -> list[str]:
        """Returns the names of all models, sorted, for who asks for one that there is not."""
        return sorted({each.model.name for each in self.models()})

    # What happens to requests.

    def model_of(self, backend: Backend, model_key: str) -> ModelState:
        """Returns a model of a backend, or what stands for it where it was never reached."""
        state = (backend.models or {}).get(model_key)
        if state is None:
            installed = InstalledModel(name=model_key, digest="")
            state = ModelState(installed=installed, slot_count=self._slot_count)
        return state

    def occupy(
        self, backend: Backend, state: ModelState, demand: Demand, terms: Terms | None
    ) -> Occupancy:
        """Gives a slot to a request; `vacate` must follow."""
        now = self._clock.monotonic()
        self._turn += 1
        backend.chosen_turn = self._turn
        backend.in_flight_count += 1
        state.used_at = now
        active = sum(len(each.occupancies) for each in backend.states()) + 1
        occupancy = Occupancy(
            backend=backend,
            model=state,
            demand=demand,
            began_at=now,
            active_count=active,
            predicted_first_token_at=now + (terms.prefill if terms else 0.0),
            predicted_end=now + (terms.prefill + terms.decode if terms else 1.0),
            progressed_at=now,
            beside=frozenset(state.occupancies),
            others_count=self._held_by_others(backend, state),
        )
        state.occupancies[occupancy.number] = occupancy
        state.view = None
        self.note_typical(state.placement_key, demand.prompt_token_count, demand.output_token_count)
        return occupancy

    def vacate(self, occupancy: Occupancy) -> None:
        """Takes a request off its slot."""
        if occupancy.model.occupancies.pop(occupancy.number, None) is None:
            return
        occupancy.model.view = None
        if not occupancy.zombie:
            occupancy.backend.in_flight_count -= 1
        self.changed()

    def has_ended_beside(self, occupancy: Occupancy) -> bool:
        """Tells whether a request that had a slot of the same model as another came has ended.

        Args:
            occupancy: The one that came.
        """
        backend, model = occupancy.backend, occupancy.model
        if not occupancy.beside <= model.occupancies.keys():
            return True
        return self._held_by_others(backend, model) < occupancy.others_count

    def _held_by_others(self, backend: Backend, state: ModelState) -> int:
        # Asked for with each request, and of no use where there is but one slot.
        several = state.slot_count > 1
        return self._reservations.held_by_others(backend.id, state.key) if several else 0

    def entomb(self, occupancy: Occupancy, until: float) -> None:
        """Keeps the slot of a request whose caller has left: the backend may not have noticed.

        Args:
            occupancy: The request; `vacate` must follow.
            until: When the backend must have noticed, monotonic seconds.
        """
        occupancy.zombie = True
        occupancy.predicted_end = until
        occupancy.model.view = None
        occupancy.backend.in_flight_count -= 1

    # What becomes known of backends.

    def signal(
        self, backend: Backend, signal: Signal, message: str = "", *, began_at: float | None = None
    ) -> None:
        """Notes what was learned of a backend's health.

        Args:
            backend: The backend.
            signal: What was learned.
            message: What a failure said.
            began_at: When the request that shows it was sent, monotonic seconds.
        """
        before = backend.standing
        standing = after(
            before,
            signal,
            self._clock.monotonic(),
            jitter=2.0 * self._jitter() - 1.0,
            message=message,
            began_at=began_at,
            rules=self.rules,
        )
        backend.standing = standing
        took, takes = takes_requests(before), takes_requests(standing)
        if took and not takes:
            backend.ejection_count += not standing.drained
            _logger.warning("backend is out", extra={"backend": backend.id, "failure": message})
        elif takes and not took:
            _logger.info("backend takes requests", extra={"backend": backend.id})
        if standing.state is not before.state or (
            standing.consecutive_failure_count > before.consecutive_failure_count
        ):
            backend.standing_changed.set()
        if took != takes:
            self.changed()

    def note_report(
        self, backend: Backend, report: ServerReport, asked_at: float = math.inf
    ) -> None:
        """Notes what a check found on a backend that was asked at some instant, monotonic."""
        backend.version = report.version
        if report.installed is not None:
            slots = backend.endpoint.slot_count or self._slot_count
            backend.take_installed(report.installed, slots)
            for state in backend.states():
                self.estimates.note_size(state.placement_key, state.installed.size_bytes)
        if report.loaded is not None:
            self.note_loaded(backend, report.loaded, asked_at)
        if all(each.checked_at is not None for each in self.backends.values()):
            # Before that nobody knows what most of them have.
            self._drift.note(self.models(), self.backends)
        self.changed()

    def note_loaded(
        self, backend: Backend, listed: tuple[LoadedModel, ...], asked_at: float = math.inf
    ) -> None:
        """Notes which models a backend has in memory that was asked at some instant, monotonic."""
        self.note_listed(backend, asked_at)
        for state in backend.take_loaded(listed, self._clock.now(), asked_at):
            self.prefixes.forget(backend.id, state.placement_key)
            if state.occupancies:
                _logger.warning(
                    "model gone while in use",
                    extra={"backend": backend.id, "model": state.installed.name},
                )

    def note_generated(self, occupancy: Occupancy, completion: Completion, seconds: float) -> None:
        """Notes a complete answer, and what it took from request to last byte."""
        now = self._clock.monotonic()
        demand, model, backend = occupancy.demand, occupancy.model, occupancy.backend
        self._note_success(occupancy, seconds)
        if completion.output_token_count == 0 or completion.output_seconds == 0:
            return
        self.estimates.note_generation(
            backend.id,
            model.placement_key,
            concurrency=occupancy.active_count,
            prompt_token_count=completion.prompt_token_count,
            expected_hit_token_count=demand.prefix_hits.get(backend.id, 0),
            prompt_seconds=completion.prompt_seconds,
            output_token_count=completion.output_token_count,
            output_seconds=completion.output_seconds,
            now=now,
        )
        self.lengths.note(
            model.placement_key, demand.kind, demand.tenant, completion.output_token_count, now
        )
        model.view = None

    def note_embedded(
        self, occupancy: Occupancy, *, text_count: int, token_count: int, seconds: float
    ) -> None:
        """Notes a reply with vectors.

        Args:
            occupancy: Whose reply.
            text_count: Texts embedded.
            token_count: Tokens read.
            seconds: What it took from request to last byte, without loading.
        """
        now = self._clock.monotonic()
        backend, model = occupancy.backend, occupancy.model
        self._note_success(occupancy, seconds)
        backend.text_seconds = backend.text_seconds.add(seconds / text_count, now)
        self.estimates.note_texts(
            backend.id,
            model.placement_key,
            token_count=token_count,
            text_count=text_count,
            seconds=seconds,
            now=now,
        )
        model.view = None

    def _note_success(self, occupancy: Occupancy, seconds: float) -> None:
        backend = occupancy.backend
        backend.success_count += 1
        backend.success_seconds += seconds
        self.signal(backend, Signal.REQUEST_SUCCEEDED, began_at=occupancy.began_at)

    def needed_digest(self, model_key: str) -> str | None:
        """Returns the digest that serves where backends have several under a name; else None.

        The one that most backends have, those that are out included, lest answers change with
        every failure; but one that can be had, if there is one.
        """
        counts: Counter[str] = Counter()
        served: set[str] = set()
        for backend in self.backends.values():
            state = (backend.models or {}).get(model_key)
            if state is not None:
                counts[state.installed.digest] += 1
                if takes_requests(backend.standing):
                    served.add(state.installed.digest)
        if len(counts) < 2:
            return None
        return max(sorted(served or counts), key=lambda digest: counts[digest])
