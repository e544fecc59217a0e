"""What the planner is shown of the fleet, and what is predicted of what runs there."""

import math
from dataclasses import dataclass, field, replace

from services.balancer.backend import Backend, ModelState, Occupancy
from services.balancer.core.decay import DecayedMean
from services.balancer.core.estimates import Estimates
from services.balancer.core.lengths import OutputLengths
from services.balancer.core.prefixes import PrefixMemory
from services.balancer.core.shares import Reservations
from services.balancer.core.snapshot import (
    BackendView,
    ModelView,
    Policy,
    Residency,
    Snapshot,
)
from services.balancer.core.standing import (
    Rules,
    State,
    allowed_out,
    failure_ratio,
    surcharge_seconds,
    takes_requests,
)
from services.common.clock import Clock

__all__ = ["FleetViews"]

# Answers of one model slow each other down; more than this many are taken for this many.
_LEARNED_CONCURRENCY = 4
_LATE_RATIO = 0.2
_CANARY_SECONDS = 0.5
_TYPICAL_PROMPT_TOKENS = 256.0
_TYPICAL_OUTPUT_TOKENS = 130.0


@dataclass(slots=True)
class _Typical:
    """The average request, for load scores."""

    placement_key: str = ""
    prompt_tokens: DecayedMean = field(default_factory=DecayedMean)
    output_tokens: DecayedMean = field(default_factory=DecayedMean)


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """A load by another replica.

    Attributes:
        model_key: Of what.
        began_at: When it was first seen, monotonic seconds.
        until: When it is predicted to end.
        ended_at: When it was seen no more; what is in memory then has not been listed yet.
    """

    model_key: str
    began_at: float
    until: float
    ended_at: float = math.inf

    def ready_at(self, now: float) -> float:
        """Says when the model may be there; one that is late will be later still."""
        if self.ended_at <= now:
            return now
        return max(self.until, now + _LATE_RATIO * (now - self.began_at))


class FleetViews:
    """The backends with what was learned of them, as the planner is to see them.

    Args:
        clock: The time.
        policy: The planner's constants.
        reservations: What other replicas of the balancer hold.
        rules: When a backend goes out and how it comes back.
    """

    def __init__(
        self, *, clock: Clock, policy: Policy, reservations: Reservations, rules: Rules
    ) -> None:
        self._clock = clock
        self._reservations = reservations
        self.policy = policy
        self.rules = rules
        self.backends: dict[str, Backend] = {}
        self.estimates = Estimates()
        self.lengths = OutputLengths()
        self.prefixes = PrefixMemory()
        self.interactive_at: dict[str, float] = {}
        """When interactive work last came for a model, by model key; set by whoever queues it."""
        self.yielding: frozenset[tuple[str, str]] = frozenset()
        """What the last full plan leaves to fall idle; set by whoever plans."""
        self._typical = _Typical()
        self._elsewhere: dict[str, _Elsewhere] = {}
        self._unload_seconds = DecayedMean()
        self._prior_unload_seconds = policy.unload_seconds

    def snapshot(self) -> Snapshot:
        """Returns the fleet as it is now."""
        now = self._clock.monotonic()
        kept_in = self._kept_in(now)
        return Snapshot(
            now=now,
            backends=tuple(
                self._view(backend, now, kept_in=backend.id in kept_in)
                for backend in self.backends.values()
            ),
            policy=self.policy,
            interactive_at=dict(self.interactive_at),
            yielding=self.yielding,
        )

    def _kept_in(self, now: float) -> frozenset[str]:
        """Chooses who is used although it is out, so that at most half of the backends are not.

        What makes most of a fleet fail is seldom the fault of each of them. Those that cannot be
        connected to stay out; where none is left, requests go round in turn anyway.
        """
        out = [
            each
            for each in self.backends.values()
            if not takes_requests(each.standing) and not each.standing.drained
        ]
        excess = len(out) - allowed_out(len(self.backends))
        if excess <= 0 or len(out) == len(self.backends):
            return frozenset()
        doubtful = [each for each in out if each.standing.health is State.EJECTED]
        doubtful = [each for each in doubtful if not each.standing.down]
        doubtful.sort(key=lambda each: (failure_ratio(each.standing, now), each.id))
        return frozenset(each.id for each in doubtful[:excess])

    def _view(self, backend: Backend, now: float, *, kept_in: bool) -> BackendView:
        standing, states = backend.standing, backend.models
        loading_key, loading_until = backend.loading_key, backend.loading_until
        elsewhere = self._elsewhere.get(backend.id)
        if loading_key is None and elsewhere is not None:
            loading_key, loading_until = elsewhere.model_key, elsewhere.ready_at(now)
        stamp = (
            standing,
            states,
            backend.room,
            kept_in,
            loading_key,
            loading_until,
            backend.chosen_turn,
        )
        unchanged = backend.view is not None and backend.view_stamp == stamp
        if unchanged and all(each.view is not None for each in (states or {}).values()):
            assert backend.view is not None  # noqa: S101 - as said above
            return backend.view
        models: dict[str, ModelView] | None = None
        if states is not None:
            models = {
                key: state.view or self._model_view(backend, state, now)
                for key, state in states.items()
            }
        backend.view_stamp = stamp
        backend.view = BackendView(
            id=backend.id,
            models=models,
            takes_requests=kept_in or takes_requests(standing),
            drained=standing.drained,
            loading_key=loading_key,
            loading_until=loading_until,
            room=backend.room,
            surcharge_seconds=surcharge_seconds(standing, now, self.rules),
            failure_ratio=failure_ratio(standing, now),
            chosen_turn=backend.chosen_turn,
        )
        return backend.view

    def _model_view(self, backend: Backend, state: ModelState, now: float) -> ModelView:
        estimates, key = self.estimates, state.placement_key
        description = state.installed.description
        only_embeds = state.installed.only_embeds
        residency, ready_at = state.residency, state.ready_at
        busy = [each.predicted_end for each in state.occupancies.values()]
        if state.canary_until > now:
            # It may take longer, but nobody is to be refused for that.
            busy.append(min(state.canary_until, now + _CANARY_SECONDS))
        elsewhere = self._elsewhere.get(backend.id)
        if (
            elsewhere is not None
            and elsewhere.model_key == state.key
            and residency is Residency.INSTALLED
        ):
            # Whoever loads it holds its slots until then.
            residency, ready_at = Residency.LOADING, elsewhere.ready_at(now)
        elif self._reservations.shared:
            busy += self._busy_elsewhere(backend, state, now)
        state.view = ModelView(
            digest=state.installed.digest,
            capabilities=description.capabilities,
            residency=residency,
            slot_count=state.slot_count,
            busy_until=tuple(busy),
            ready_at=ready_at,
            context_token_count=state.context_token_count,
            maximum_context_token_count=state.maximum_context_token_count,
            size_bytes=state.size_bytes,
            pinned=state.pinned,
            used_at=state.used_at,
            loaded_at=state.load_ended_at,
            load_seconds=estimates.load_seconds(backend.id, key, state.size_bytes, now),
            prefill_rate=estimates.prefill_rate(backend.id, key, now),
            decode_rates=tuple(
                estimates.decode_rate(backend.id, key, concurrency, now)
                for concurrency in range(1, 2 if only_embeds else _LEARNED_CONCURRENCY + 1)
            ),
            overhead_seconds=estimates.text_overhead_seconds(backend.id, key, now),
            load_barred_until=state.load_barred_until,
        )
        return state.view

    def _busy_elsewhere(self, backend: Backend, state: ModelState, now: float) -> list[float]:
        """Says of the slots that other replicas hold when they may be free: nobody knows."""
        usable = self._reservations.usable_slots(backend.id, state.key, state.slot_count)
        others = max(0, state.slot_count - max(usable, 0))
        if not others:
            return []
        return [now + self._typical_service(backend, state.placement_key, 1, now)] * others

    def note_others(self) -> list[Backend]:
        """Notes what other replicas do.

        Returns:
            Where one of them has begun or ended a load, so that other models are in memory there.
        """
        self.forget_views()
        now = self._clock.monotonic()
        changed = []
        for backend in self.backends.values():
            key = self._reservations.is_loading_elsewhere(backend.id)
            known = self._elsewhere.get(backend.id)
            if known is not None and known.ended_at <= now:
                known = None
            if key is not None and (known is None or known.model_key != key):
                until = now + self._load_seconds(backend, key, now)
                self._elsewhere[backend.id] = _Elsewhere(key, now, until)
            elif key is None and known is not None:
                self._elsewhere[backend.id] = replace(known, ended_at=now)
            else:
                continue
            changed.append(backend)
        return changed

    def note_listed(self, backend: Backend, asked_at: float) -> None:
        """Notes that it is known what is in a backend's memory as of some instant, monotonic."""
        elsewhere = self._elsewhere.get(backend.id)
        if elsewhere is not None and asked_at > elsewhere.ended_at:
            del self._elsewhere[backend.id]
            self.forget_views()

    def _load_seconds(self, backend: Backend, model_key: str, now: float) -> float:
        state = (backend.models or {}).get(model_key)
        if state is None:
            return 0.0
        return self.estimates.load_seconds(backend.id, state.placement_key, state.size_bytes, now)

    def forget_views(self) -> None:
        """Has the planner be shown everything anew."""
        for backend in self.backends.values():
            backend.view = None
            for state in backend.states():
                state.view = None

    def refresh(self) -> None:
        """Brings predictions up to date: time passes for what runs, and what is learned fades."""
        now = self._clock.monotonic()
        for backend in self.backends.values():
            backend.view = None
            for state in backend.states():
                state.view = None
                if state.residency is Residency.LOADING:
                    # Late already: the longer it has taken, the longer it will.
                    late = now + _LATE_RATIO * (now - state.load_began_at)
                    state.ready_at = max(state.ready_at, late)
                    backend.loading_until = max(backend.loading_until, state.ready_at)
                for occupancy in state.occupancies.values():
                    self._predict_end(occupancy, now)

    def _predict_end(self, occupancy: Occupancy, now: float) -> None:
        demand, model = occupancy.demand, occupancy.model
        if occupancy.zombie:
            return
        if occupancy.first_token_at is None:
            # Who is late will be later still, the longer the later; were it expected any moment,
            # all would wait for a slot that hangs.
            if now > occupancy.predicted_first_token_at:
                late = now + (now - occupancy.began_at)
                occupancy.predicted_end = max(occupancy.predicted_end, late)
            return
        left = self.lengths.remaining(
            model.placement_key,
            demand.kind,
            demand.tenant,
            produced=occupancy.produced_count,
            cap=demand.output_limit,
            now=now,
        )
        rate = self.estimates.decode_rate(
            occupancy.backend.id, model.placement_key, occupancy.active_count, now
        )
        silent_seconds = now - occupancy.progressed_at
        occupancy.predicted_end = now + max(left / rate, silent_seconds)

    def load_scores(self) -> dict[str, float]:
        """Returns the load score of each backend: the seconds until it would be done with one more.

        One more is the average request of this fleet: without it all idle backends would look
        alike, fast ones and slow ones.
        """
        now = self._clock.monotonic()
        return {backend.id: self._load_score(backend, now) for backend in self.backends.values()}

    def load_score_without(self, occupancy: Occupancy) -> float:
        """Returns what the score of a backend was before a request was given its slot."""
        return self._load_score(occupancy.backend, self._clock.monotonic(), occupancy)

    def _load_score(
        self, backend: Backend, now: float, apart_from: Occupancy | None = None
    ) -> float:
        slots = backlog = 0.0
        in_flight_count = backend.in_flight_count - (apart_from is not None)
        for state in backend.states():
            others = [each for each in state.occupancies.values() if each is not apart_from]
            if others:
                slots += state.slot_count
                backlog += sum(max(0.0, each.predicted_end - now) for each in others)
        active = min(in_flight_count + 1, _LEARNED_CONCURRENCY)
        service = self._typical_service(backend, self._typical.placement_key, active, now)
        ratio = min(failure_ratio(backend.standing, now), 0.95)
        return (backlog / max(slots, 1.0) + service) / (1.0 - ratio)

    def _typical_service(
        self, backend: Backend, placement_key: str, active_count: int, now: float
    ) -> float:
        typical, estimates = self._typical, self.estimates
        prompt = typical.prompt_tokens.estimate(_TYPICAL_PROMPT_TOKENS, now)
        output = typical.output_tokens.estimate(_TYPICAL_OUTPUT_TOKENS, now)
        seconds = prompt / estimates.prefill_rate(backend.id, placement_key, now)
        return seconds + output / estimates.decode_rate(
            backend.id, placement_key, active_count, now
        )

    def note_unloaded(self, seconds: float) -> None:
        """Takes in how long a model took to go, for the planner to reckon with."""
        now = self._clock.monotonic()
        self._unload_seconds = self._unload_seconds.add(seconds, now)
        learned = self._unload_seconds.estimate(self._prior_unload_seconds, now)
        self.policy = replace(self.policy, unload_seconds=learned)

    def note_typical(self, placement_key: str, prompt_tokens: float, output_tokens: float) -> None:
        """Takes in what is asked for, for the average request."""
        now, typical = self._clock.monotonic(), self._typical
        typical.placement_key = placement_key
        typical.prompt_tokens = typical.prompt_tokens.add(prompt_tokens, now)
        typical.output_tokens = typical.output_tokens.add(output_tokens, now)
