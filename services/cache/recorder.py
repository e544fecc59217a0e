"""Counts what happens, for GetStats and for Prometheus alike.

Everything here is synchronous and takes microseconds; lookups, which are to be fast, are counted
after their answers.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from services.cache.core.breaker import Phase
from services.cache.core.flight_tally import FlightEvent, FlightTally
from services.cache.core.intervals import wilson
from services.cache.core.layers import Layer
from services.cache.core.local_level import Departure, LocalLevel
from services.cache.core.model import Level, Lookup, Result, WriteOutcome
from services.cache.core.savings import NOTHING, Prices, Savings
from services.cache.core.semantic.decision import SemanticOutcome
from services.cache.core.semantic.guards import Guard
from services.cache.core.semantic.verdict import Finding, Judge, Verdict, finding_of
from services.cache.core.semantic_tally import SemanticTally
from services.cache.core.spans import HitKind
from services.cache.core.tags import TargetKind
from services.cache.core.tallies import LayerTally
from services.cache.core.traffic import TenantTraffic, Traffic
from services.cache.metrics import BACKEND, MODES
from services.cache.series import create_series, show_phase
from services.common.afterwards import done_after_answer
from services.common.clock import Clock
from services.common.metrics import Metrics

__all__ = ["FlightEvent", "Recorder"]

_UNKNOWN_MODE = "unknown"
_NO_CURRENCY = "none"
_LEVEL_KINDS = tuple((level, HitKind(level.value)) for level in Level)
_NO_PRICES = Prices()

_SEMANTIC_HITS = {
    SemanticOutcome.EXACT: HitKind.EXACT,
    SemanticOutcome.SIMILAR: HitKind.SIMILAR,
}
_FLIGHT_HITS = {
    FlightEvent.COALESCED: HitKind.COALESCED,
    FlightEvent.NEGATIVE: HitKind.NEGATIVE,
}


class Recorder:
    """The counts of the process.

    Args:
        metrics: Receives the service's catalogue.
        local: The local level of each layer.
        clock: Says in which window of time an event counts.
        prices: What tokens cost.

    Attributes:
        tallies: Counts of each layer.
        flights: Counts of single-flight.
        semantic: What is known of semantic matches.
        modes: Lookups by mode.
        tenants: Lookups by tenant.
        verification: What verification has cost.
        dropped_write_count: Values not written since the shared store was away or slow.
    """

    def __init__(
        self,
        metrics: Metrics,
        local: Mapping[Layer, LocalLevel],
        clock: Clock,
        *,
        prices: Prices = _NO_PRICES,
    ) -> None:
        self._metrics = metrics
        self._local = local
        self._clock = clock
        self.prices = prices
        self._currency = prices.known_currency or _NO_CURRENCY
        started_at = clock.monotonic()
        self.tallies: Mapping[Layer, LayerTally] = {
            layer: LayerTally(started_at) for layer in Layer
        }
        self.flights = FlightTally()
        self.semantic = SemanticTally()
        self.modes: Mapping[str, Traffic] = {mode: Traffic() for mode in MODES}
        self.tenants = TenantTraffic()
        self.verification = NOTHING
        self.dropped_write_count = 0
        create_series(metrics, local, currency=self._currency)
        for layer, level in local.items():
            level.on_departure(partial(self._left, layer))
        self._show_local()
        metrics.before_scrape(self._show_local)

    @done_after_answer
    def looked_up(
        self,
        layer: Layer,
        lookup: Lookup,
        *,
        mode: str,
        tenant_id: str,
        duration_seconds: float,
    ) -> None:
        """Counts a lookup call.

        Args:
            layer: Layer asked.
            lookup: What it came to.
            mode: What the caller calls the kind of its request.
            tenant_id: Who asked.
            duration_seconds: How long it took, without any wait for another caller's answer.
        """
        self.tallies[layer].add_lookup(lookup, duration_seconds, self._clock.monotonic())
        missing_count = lookup.hits.count(None)
        hits = [hit for hit in lookup.hits if hit is not None]
        levels = [hit.level for hit in hits]
        found = {kind: count for level, kind in _LEVEL_KINDS if (count := levels.count(level))}
        known_mode = self._count_traffic(layer, mode, tenant_id, len(lookup.hits), found)
        if hits:
            self._count("cache_lookups_total", len(hits), layer, known_mode, Result.HIT.value)
        if missing_count:
            absence = Result.ERROR if lookup.degraded else Result.MISS
            self._count("cache_lookups_total", missing_count, layer, known_mode, absence.value)
        for kind, count in found.items():
            self._count("cache_hits_total", count, layer, kind.value)
        for hit in hits:
            self._metrics.observe("cache_hit_age_seconds", hit.age_seconds, layer.value)
        if lookup.rejected_count:
            self._count("cache_rejected_values_total", lookup.rejected_count, layer)
        if lookup.invalidated_count:
            self._count("cache_invalidated_values_total", lookup.invalidated_count, layer)
        self._metrics.observe(
            "cache_lookup_duration_seconds", duration_seconds, layer.value, lookup.result.value
        )

    def rejected(self, layer: Layer, count: int) -> None:
        """Counts values found that failed their check, outside of `looked_up`."""
        self.tallies[layer].add_rejected(count, self._clock.monotonic())
        self._count("cache_rejected_values_total", count, layer)

    def bypassed(self, layer: Layer, count: int, *, mode: str, tenant_id: str) -> None:  # noqa: ARG002 - who bypasses the cache is no part of its traffic
        """Counts items not looked for."""
        self.tallies[layer].add_bypasses(count, self._clock.monotonic())
        self._count("cache_bypasses_total", count, layer, _known_mode(mode))

    def wrote(self, layer: Layer, outcomes: Sequence[WriteOutcome]) -> None:
        """Counts values handed over."""
        self.tallies[layer].add_writes(outcomes, self._clock.monotonic())
        for outcome in set(outcomes):
            self._count("cache_writes_total", outcomes.count(outcome), layer, outcome.value)
        if dropped_count := outcomes.count(WriteOutcome.DROPPED):
            self.dropped_write_count += dropped_count
            self._count("cache_dropped_writes_total", dropped_count, layer)

    @done_after_answer
    def saved(
        self, layer: Layer, savings: Savings, *, tenant_id: str, coalesced: bool = False
    ) -> None:
        """Counts what a hit has saved, or a caller who waited for another one's answer."""
        now = self._clock.monotonic()
        self.tallies[layer].add_savings(savings, now, coalesced=coalesced)
        name = "cache_coalesced_tokens_total" if coalesced else "cache_saved_tokens_total"
        self._metrics.count(name, "prompt", amount=savings.prompt_token_count)
        self._metrics.count(name, "completion", amount=savings.completion_token_count)
        if coalesced:
            return
        self.tenants.of(tenant_id).saved += savings
        self._metrics.count("cache_saved_seconds_total", amount=savings.seconds)
        cost = self.prices.cost(savings)
        self._metrics.count("cache_saved_cost_total", self._currency, amount=cost)

    def generated(self, layer: Layer, savings: Savings) -> None:
        """Counts what a value that was stored has cost."""
        self.tallies[layer].add_generated(savings, self._clock.monotonic())

    def flight(self, event: FlightEvent, *, mode: str = "", tenant_id: str = "") -> None:
        """Counts an event of single-flight.

        Args:
            event: What happened.
            mode: For COALESCED: what the lookup was counted under.
            tenant_id: For COALESCED: who has got the answer.
        """
        self.flights.events[event] += 1
        self._metrics.count("cache_lease_total", event.value)
        kind = _FLIGHT_HITS.get(event)
        if kind is not None:
            self.tallies[Layer.INFERENCE].add_hit(kind, self._clock.monotonic())
            self._count("cache_hits_total", 1, Layer.INFERENCE, kind.value)
        if kind is HitKind.COALESCED:
            self._count_traffic(Layer.INFERENCE, mode, tenant_id, 0, {kind: 1})

    def waited(self, seconds: float) -> None:
        """Counts how long a caller has waited for another one's answer."""
        self.flights.add_wait(seconds)
        self._metrics.observe("cache_lease_wait_seconds", seconds)

    def waiting(self, delta: int) -> None:
        """Notes that callers begin to wait, or end."""
        self.flights.waiting_count += delta
        self._metrics.set_gauge("cache_waiting_callers", self.flights.waiting_count)
        if delta > 0:
            self._count("cache_singleflight_waits_total", delta, Layer.INFERENCE)

    def held(self, delta: int) -> None:
        """Notes that leases begin to be held through this replica, or end."""
        self.flights.held_count += delta
        self._metrics.set_gauge("cache_held_leases", self.flights.held_count)

    @done_after_answer
    def semantic_looked_up(
        self,
        outcome: SemanticOutcome,
        *,
        similarity: float | None,
        mode: str,
        tenant_id: str,
        duration_seconds: float,
        age_seconds: float | None = None,
        degraded: bool = False,
    ) -> None:
        """Counts a lookup of a question.

        Args:
            outcome: What it came to.
            similarity: Of the most similar question; None where none was compared.
            mode: What the caller calls the kind of its request.
            tenant_id: Who asked.
            duration_seconds: How long it took.
            age_seconds: On a hit, time since the answer was stored.
            degraded: Whether the shared store could not be asked.
        """
        if outcome is SemanticOutcome.BYPASSED:
            self.bypassed(Layer.SEMANTIC, 1, mode=mode, tenant_id=tenant_id)
            return
        kind = _SEMANTIC_HITS.get(outcome)
        self.tallies[Layer.SEMANTIC].add_semantic_lookup(
            kind,
            duration_seconds,
            self._clock.monotonic(),
            age_seconds=age_seconds,
            degraded=degraded,
        )
        found = {} if kind is None else {kind: 1}
        known_mode = self._count_traffic(Layer.SEMANTIC, mode, tenant_id, 1, found)
        absence = Result.ERROR if degraded else Result.MISS
        result = (absence if kind is None else Result.HIT).value
        self._count("cache_lookups_total", 1, Layer.SEMANTIC, known_mode, result)
        self._metrics.observe(
            "cache_lookup_duration_seconds", duration_seconds, Layer.SEMANTIC.value, result
        )
        if similarity is not None:
            self._metrics.observe("cache_semantic_similarity_ratio", similarity)
        if kind is not None:
            self._count("cache_hits_total", 1, Layer.SEMANTIC, kind.value)
            if age_seconds is not None:
                self._metrics.observe("cache_hit_age_seconds", age_seconds, Layer.SEMANTIC.value)

    def semantic_confirmed(self, mode: str, tenant_id: str) -> None:
        """Counts a candidate whose answer was given: a hit that was counted as a miss before."""
        self.tallies[Layer.SEMANTIC].add_hit(HitKind.CONFIRMED, self._clock.monotonic())
        self._count_traffic(Layer.SEMANTIC, mode, tenant_id, 0, {HitKind.CONFIRMED: 1})
        self._count("cache_hits_total", 1, Layer.SEMANTIC, HitKind.CONFIRMED.value)

    def guard_refused(self, guard: Guard) -> None:
        """Counts a similar question that a guard refused."""
        self.semantic.rejections[guard.value] += 1
        self._metrics.count("cache_guard_rejections_total", guard.value)

    def verified(self, verdict: Verdict, judge: Judge, *, spent: Savings = NOTHING) -> None:
        """Counts a verdict on a match of similar questions.

        Args:
            verdict: Whether it was right.
            judge: Who says so.
            spent: What it has cost to find out.
        """
        self.verification += spent
        self._metrics.count("cache_verifications_total", verdict.value, judge.value)
        finding = finding_of(verdict, judge)
        if finding in (Finding.RIGHT, Finding.WRONG):
            self.tallies[Layer.SEMANTIC].add_verdict(
                was_right=finding is Finding.RIGHT, now=self._clock.monotonic()
            )

    def false_hit_bounds(self, *, verified_count: int, wrong_count: int) -> None:
        """Notes how many answers to similar questions were verified, and how many were wrong.

        Args:
            verified_count: Answers given that were verified, all that this replica knows of.
            wrong_count: Those of them that were wrong.
        """
        self.semantic.verified_count = verified_count
        self.semantic.wrong_count = wrong_count
        _, upper = wilson(wrong_count, verified_count)
        self._metrics.set_gauge("cache_false_hit_upper_bound", upper)

    def feed_lag(self, seconds: float) -> None:
        """Notes how long after another replica's change this one has learned of it."""
        self.semantic.feed_lag_seconds = seconds
        self._metrics.set_gauge("cache_feed_lag_seconds", seconds)

    def semantic_size(self, entries: int, partitions: int, size_bytes: int) -> None:
        """Notes how much the index of questions holds."""
        self.semantic.entry_count = entries
        self.semantic.partition_count = partitions
        self.semantic.size_bytes = size_bytes
        self._metrics.set_gauge("cache_semantic_entries", entries)
        self._metrics.set_gauge("cache_semantic_partitions", partitions)
        self._metrics.set_gauge("cache_semantic_memory_bytes", size_bytes)

    def semantic_limit(self, size_bytes: int) -> None:
        """Notes how much the index of questions may hold."""
        self._metrics.set_gauge("cache_semantic_memory_limit_bytes", size_bytes)

    def store_failed(self) -> None:
        """Counts a failed call to the shared store."""
        self._metrics.count("cache_backend_failures_total", BACKEND)

    def store_available(self, *, available: bool) -> None:
        """Shows whether the shared store is in use."""
        self._metrics.set_gauge("cache_backend_up", int(available), BACKEND)
        self._metrics.set_gauge("cache_degraded", int(not available))

    def store_phase(self, phase: Phase) -> None:
        """Shows how far the shared store is used."""
        show_phase(self._metrics, phase)

    def invalidated(self, kind: TargetKind) -> None:
        """Counts that entries were made unreadable, by what they had in common."""
        self._metrics.count("cache_invalidations_total", kind.value)

    def _count(self, name: str, amount: int, layer: Layer, *labels: str) -> None:
        self._metrics.count(name, layer.value, *labels, amount=amount)

    def _count_traffic(
        self,
        layer: Layer,
        mode: str,
        tenant_id: str,
        lookup_count: int,
        hits: Mapping[HitKind, int],
    ) -> str:
        known_mode = _known_mode(mode)
        self.modes[known_mode].add(layer, lookup_count, hits)
        self.tenants.of(tenant_id).traffic.add(layer, lookup_count, hits)
        return known_mode

    def _left(self, layer: Layer, departure: Departure, lifetime_seconds: float) -> None:
        """Counts an item that has left the local level."""
        if departure is Departure.CAPACITY:
            self.tallies[layer].add_evictions(1, self._clock.monotonic())
        self._count("cache_evictions_total", 1, layer, departure.value)
        self._metrics.observe("cache_entry_lifetime_seconds", lifetime_seconds, layer.value)

    def _show_local(self) -> None:
        for layer, level in self._local.items():
            self._metrics.set_gauge("cache_entries", level.entry_count, layer.value)
            self._metrics.set_gauge("cache_memory_bytes", level.size_bytes, layer.value)


def _known_mode(mode: str) -> str:
    return mode if mode in MODES else _UNKNOWN_MODE
