"""What is counted, for GetStats and for Prometheus; every series exists from the start."""

import re
from pathlib import Path

import pytest

import services.cache
from pannier.cache.v1 import invalidation_pb2, semantic_pb2
from services.cache.core.breaker import Phase
from services.cache.core.layers import Layer
from services.cache.core.local_level import Departure, LocalLevel, LocalValue
from services.cache.core.model import Hit, Level, Lookup, Scope, WriteOutcome
from services.cache.core.savings import Prices, Savings
from services.cache.core.semantic.decision import SemanticOutcome
from services.cache.core.semantic.guards import Guard
from services.cache.core.semantic.verdict import Judge, Verdict
from services.cache.core.spans import HitKind
from services.cache.core.tags import TargetKind
from services.cache.metrics import CATALOGUE, MODES
from services.cache.recorder import FlightEvent, Recorder
from services.common.metrics import MetricKind, Metrics

CALLER = {"mode": "rag", "tenant_id": "acme"}
SAVINGS = Savings(100, 50, 2.0)


class Counts:
    """A recorder with all it writes to."""

    def __init__(self, clock, prices: Prices) -> None:
        self.metrics = Metrics(CATALOGUE, version="test")
        self.local = {layer: LocalLevel(1 << 20) for layer in Layer}
        self.recorder = Recorder(self.metrics, self.local, clock, prices=prices)
        self._clock = clock

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def life(self, layer: Layer):
        return self.recorder.tallies[layer].spans(self._clock.monotonic())[-1]

    def look_up(self, *hits: Hit | None, layer=Layer.INFERENCE, **fields) -> None:
        lookup = Lookup(**{"hits": hits, "degraded": False} | fields)
        self.recorder.looked_up(layer, lookup, duration_seconds=0.001, **CALLER)

    def ask(self, outcome: str, **fields) -> None:
        call = {"similarity": None, "duration_seconds": 0.002} | CALLER | fields
        self.recorder.semantic_looked_up(SemanticOutcome(outcome), **call)


@pytest.fixture
def counts(clock) -> Counts:
    prices = Prices(
        per_million_prompt_tokens=1.0, per_million_completion_tokens=4.0, currency="EUR"
    )
    return Counts(clock, prices)


def hit(level: Level = Level.LOCAL) -> Hit:
    return Hit(payload=b"", level=level, created_ms=0, age_seconds=30.0, remaining_seconds=60.0)


def label_sets(metrics: Metrics) -> dict[str, list[dict[str, str]]]:
    return {
        family.name: [sample.labels for sample in family.samples]
        for family in metrics.registry.collect()
    }


def test_counters_exist_before_the_first_call(counts) -> None:
    for layer in ("embedding", "inference", "chunk", "semantic"):
        for result in ("hit", "miss", "error"):
            labels = {"layer": layer, "mode": "unknown", "result": result}
            assert counts.metric("cache_lookups_total", **labels) == 0
        for outcome in ("stored", "dropped", "refused", "too_large", "not_reusable"):
            assert counts.metric("cache_writes_total", layer=layer, outcome=outcome) == 0
        for reason in ("capacity", "expired"):
            assert counts.metric("cache_evictions_total", layer=layer, reason=reason) == 0
    for layer in ("inference", "semantic"):
        for mode in MODES:
            labels = {"layer": layer, "mode": mode, "result": "hit"}
            assert counts.metric("cache_lookups_total", **labels) == 0
    assert counts.metric("cache_false_hit_upper_bound") == 1
    assert counts.metric("cache_redis_breaker_state", phase="normal") == 1


def test_every_counter_has_a_series_from_the_start(counts) -> None:
    series = label_sets(counts.metrics)
    for metric in CATALOGUE:
        if metric.kind is MetricKind.COUNTER:
            assert series[metric.name.removesuffix("_total")], metric.name


def test_no_event_creates_a_series_of_a_counter(counts) -> None:
    counters = {
        metric.name.removesuffix("_total")
        for metric in CATALOGUE
        if metric.kind is MetricKind.COUNTER
    }
    before = {name: sets for name, sets in label_sets(counts.metrics).items() if name in counters}
    recorder = counts.recorder
    for layer in (Layer.INFERENCE, Layer.SEMANTIC):
        counts.look_up(None, layer=layer, rejected_count=1, invalidated_count=1)
        recorder.bypassed(layer, 1, **CALLER)
        recorder.wrote(layer, tuple(WriteOutcome))
    counts.look_up(*map(hit, Level))
    for outcome in ("exact", "similar", "candidate", "miss", "bypassed"):
        counts.ask(outcome)
    recorder.semantic_confirmed("deep", "acme")
    for event in FlightEvent:
        recorder.flight(event)
    recorder.waiting(1)
    for coalesced in (False, True):
        recorder.saved(Layer.INFERENCE, SAVINGS, tenant_id="acme", coalesced=coalesced)
    for guard in Guard:
        recorder.guard_refused(guard)
    for verdict in Verdict:
        for judge in Judge:
            recorder.verified(verdict, judge)
    for kind in TargetKind:
        recorder.invalidated(kind)
    recorder.store_failed()
    after = {name: sets for name, sets in label_sets(counts.metrics).items() if name in counters}
    assert after == before


def test_each_metric_of_the_catalogue_is_used_and_no_other() -> None:
    folder = Path(services.cache.__file__).parent
    sources = [path.read_text() for path in folder.rglob("*.py") if path.name != "metrics.py"]
    used = set(re.findall(r'"(cache_[a-z_]+)"', "".join(sources)))
    assert used == {metric.name for metric in CATALOGUE}


def test_label_values_are_the_names_of_the_protocol() -> None:
    def names(enum) -> list[str]:
        first, *others = enum.keys()
        prefix = first.removesuffix("UNSPECIFIED")
        return [each.removeprefix(prefix).lower() for each in others]

    def values(enum) -> list[str]:
        return [each.value for each in enum]

    assert values(Guard) == names(semantic_pb2.SemanticGuard)
    assert values(Verdict) == names(semantic_pb2.MatchVerdict)
    selectors = {each.name for each in invalidation_pb2.Selector.DESCRIPTOR.fields} - {"tag"}
    assert set(values(TargetKind)) == selectors | {"document", "collection", "custom"}


def test_a_lookup_counts_everywhere(counts) -> None:
    counts.look_up(hit(), hit(Level.SHARED), None, rejected_count=1, invalidated_count=2)
    labels = {"layer": "inference", "mode": "rag"}
    assert counts.metric("cache_lookups_total", result="hit", **labels) == 2
    assert counts.metric("cache_lookups_total", result="miss", **labels) == 1
    for level in ("local", "shared"):
        assert counts.metric("cache_hits_total", layer="inference", level=level) == 1
    assert counts.metric("cache_hit_age_seconds_sum", layer="inference") == 60
    assert counts.metric("cache_rejected_values_total", layer="inference") == 1
    assert counts.metric("cache_invalidated_values_total", layer="inference") == 2
    result = {"layer": "inference", "result": "miss"}
    assert counts.metric("cache_lookup_duration_seconds_count", **result) == 1
    assert counts.life(Layer.INFERENCE).lookup_count == 3
    traffic = counts.recorder.modes["rag"]
    assert traffic.lookups[Layer.INFERENCE] == 3
    assert traffic.hits_of(Layer.INFERENCE) == {HitKind.LOCAL: 1, HitKind.SHARED: 1}
    ((tenant_id, tenant),) = counts.recorder.tenants.top(10)
    assert (tenant_id, tenant.traffic) == ("acme", traffic)


def test_a_miss_without_the_shared_store_is_an_error_to_prometheus(counts) -> None:
    counts.look_up(None, degraded=True)
    labels = {"layer": "inference", "mode": "rag", "result": "error"}
    assert counts.metric("cache_lookups_total", **labels) == 1


def test_unknown_modes_count_together(counts) -> None:
    for mode in ("", "weird", "unknown"):
        counts.recorder.bypassed(Layer.INFERENCE, 1, mode=mode, tenant_id="acme")
    assert counts.metric("cache_bypasses_total", layer="inference", mode="unknown") == 3


def test_bypasses_are_part_of_no_ratio(counts) -> None:
    counts.recorder.bypassed(Layer.EMBEDDING, 5, **CALLER)
    counts.ask("bypassed")
    assert counts.life(Layer.EMBEDDING).lookup_count == 0
    assert counts.life(Layer.EMBEDDING).bypass_count == 5
    assert counts.life(Layer.SEMANTIC).bypass_count == 1
    assert counts.recorder.tenants.top(10) == []


def keep(counts, key: bytes, *, kept_at: float, until: float, size_bytes: int = 900_000) -> None:
    counts.local[Layer.INFERENCE].put(
        key,
        LocalValue(
            payload=b"x" * size_bytes,
            created_ms=0,
            expires_ms=0,
            kept_at=kept_at,
            local_until=until,
            scope=Scope("acme"),
        ),
    )


def test_what_leaves_the_local_level_counts_at_once_with_its_age(counts) -> None:
    keep(counts, b"a", kept_at=0.0, until=60.0)
    keep(counts, b"b", kept_at=20.0, until=80.0)
    keep(counts, b"c", kept_at=90.0, until=150.0)
    labels = {"layer": "inference"}
    for departure in Departure:
        assert counts.metric("cache_evictions_total", reason=departure.value, **labels) == 1
    assert counts.metric("cache_entry_lifetime_seconds_count", **labels) == 2
    # The first was pushed out after 20 s; the second was of use until its time was up, 60 s.
    assert counts.metric("cache_entry_lifetime_seconds_sum", **labels) == 80
    assert counts.life(Layer.INFERENCE).eviction_count == 1


def test_contents_are_shown_as_they_are_when_somebody_looks(counts) -> None:
    labels = {"layer": "inference"}
    assert counts.metric("cache_entries", **labels) == 0
    keep(counts, b"a", kept_at=0.0, until=60.0)
    counts.metrics.refresh()
    assert counts.metric("cache_entries", **labels) == 1
    shown = counts.metric("cache_memory_bytes", **labels)
    assert shown == counts.local[Layer.INFERENCE].size_bytes > 900_000
    counts.local[Layer.INFERENCE].discard(b"a")
    counts.metrics.refresh()
    assert counts.metric("cache_entries", **labels) == 0


def test_the_limit_of_each_level_is_shown(counts) -> None:
    for layer in Layer:
        assert counts.metric("cache_memory_limit_bytes", layer=layer.value) == 1 << 20


def test_savings_count_tokens_time_and_cost(counts) -> None:
    counts.recorder.saved(Layer.INFERENCE, SAVINGS, tenant_id="acme")
    assert counts.metric("cache_saved_tokens_total", kind="prompt") == 100
    assert counts.metric("cache_saved_tokens_total", kind="completion") == 50
    assert counts.metric("cache_saved_seconds_total") == 2.0
    assert counts.metric("cache_saved_cost_total", currency="EUR") == pytest.approx(300e-6)
    assert counts.life(Layer.INFERENCE).saved == SAVINGS
    assert counts.recorder.tenants.of("acme").saved == SAVINGS


def test_savings_of_coalesced_callers_have_a_column_of_their_own(counts) -> None:
    counts.recorder.saved(Layer.INFERENCE, SAVINGS, tenant_id="acme", coalesced=True)
    assert counts.metric("cache_coalesced_tokens_total", kind="prompt") == 100
    assert counts.metric("cache_saved_tokens_total", kind="prompt") == 0
    assert counts.metric("cache_saved_cost_total", currency="EUR") == 0
    span = counts.life(Layer.INFERENCE)
    assert (span.coalesced, span.saved.token_count) == (SAVINGS, 0)


def test_cost_without_a_price_has_no_currency(clock) -> None:
    counts = Counts(clock, Prices(currency="EUR"))
    counts.recorder.saved(Layer.INFERENCE, SAVINGS, tenant_id="acme")
    assert counts.metric("cache_saved_cost_total", currency="none") == 0


def test_a_coalesced_caller_counts_for_its_mode_and_tenant(counts) -> None:
    counts.look_up(None)
    counts.recorder.flight(FlightEvent.COALESCED, **CALLER)
    span = counts.life(Layer.INFERENCE)
    assert (span.hit_ratio, span.effective_hit_ratio) == (0, 1)
    assert counts.recorder.modes["rag"].hits_of(Layer.INFERENCE) == {HitKind.COALESCED: 1}
    assert counts.metric("cache_hits_total", layer="inference", level="coalesced") == 1
    assert counts.metric("cache_lease_total", event="coalesced") == 1


def test_a_remembered_failure_is_no_hit_of_a_mode(counts) -> None:
    counts.look_up(None)
    counts.recorder.flight(FlightEvent.NEGATIVE)
    assert counts.life(Layer.INFERENCE).hit_count(HitKind.NEGATIVE) == 1
    assert counts.recorder.modes["rag"].hits_of(Layer.INFERENCE) == {}


def test_leases_to_refresh_are_leases_too(counts) -> None:
    counts.recorder.flight(FlightEvent.LEASED)
    counts.recorder.flight(FlightEvent.REFRESH_LEASED)
    assert counts.recorder.flights.lease_count == 2
    assert counts.recorder.flights.events[FlightEvent.REFRESH_LEASED] == 1


def test_waiting_and_held_go_up_and_down(counts) -> None:
    recorder = counts.recorder
    for delta in (1, 1, -1):
        recorder.waiting(delta)
        recorder.held(delta)
    assert (recorder.flights.waiting_count, recorder.flights.held_count) == (1, 1)
    assert counts.metric("cache_waiting_callers") == counts.metric("cache_held_leases") == 1
    assert counts.metric("cache_singleflight_waits_total", layer="inference") == 2


def test_waits_have_quantiles(counts) -> None:
    assert counts.recorder.flights.wait_times is None
    for seconds in (0.1, 0.2, 0.3):
        counts.recorder.waited(seconds)
    p50 = (counts.recorder.flights.wait_times or (0,))[0]
    assert p50 == pytest.approx(0.2, rel=0.01)
    assert counts.metric("cache_lease_wait_seconds_sum") == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("outcome", "result", "kind"),
    [
        ("exact", "hit", HitKind.EXACT),
        ("similar", "hit", HitKind.SIMILAR),
        ("candidate", "miss", None),
        ("miss", "miss", None),
    ],
)
def test_a_question_counts_as_what_was_found_for_certain(counts, outcome, result, kind) -> None:
    counts.ask(outcome, similarity=0.96, age_seconds=5.0)
    labels = {"layer": "semantic", "mode": "rag", "result": result}
    assert counts.metric("cache_lookups_total", **labels) == 1
    span = counts.life(Layer.SEMANTIC)
    assert [each for each in HitKind if span.hit_count(each)] == ([kind] if kind else [])
    assert (span.hit_ages is None) == (kind is None)
    assert counts.metric("cache_semantic_similarity_ratio_count") == 1
    assert counts.recorder.modes["rag"].hits_of(Layer.SEMANTIC) == ({kind: 1} if kind else {})


def test_a_degraded_question_is_a_degraded_miss(counts) -> None:
    counts.ask("miss", degraded=True)
    labels = {"layer": "semantic", "mode": "rag", "result": "error"}
    assert counts.metric("cache_lookups_total", **labels) == 1
    assert counts.life(Layer.SEMANTIC).degraded_miss_count == 1


def test_a_confirmed_candidate_becomes_a_hit(counts) -> None:
    counts.ask("candidate", similarity=0.96)
    counts.recorder.semantic_confirmed("rag", "acme")
    span = counts.life(Layer.SEMANTIC)
    assert (span.lookup_count, span.hit_ratio, span.miss_count) == (1, 1, 0)
    assert counts.recorder.modes["rag"].hits_of(Layer.SEMANTIC) == {HitKind.CONFIRMED: 1}
    assert counts.metric("cache_hits_total", layer="semantic", level="confirmed") == 1


def test_verifications_cost_what_they_have_spent(counts) -> None:
    counts.recorder.verified(Verdict.RIGHT, Judge.RECOMPUTATION, spent=SAVINGS)
    counts.recorder.verified(Verdict.WRONG, Judge.EVIDENCE)
    assert counts.recorder.verification == SAVINGS
    assert counts.metric("cache_verifications_total", verdict="right", judge="recomputation") == 1
    assert counts.metric("cache_verifications_total", verdict="wrong", judge="evidence") == 1


def test_verified_is_what_was_given_and_looked_at(counts) -> None:
    for verdict in Verdict:
        for judge in Judge:
            counts.recorder.verified(verdict, judge)
    span = counts.life(Layer.SEMANTIC)
    # By a recomputation, a model and a person; evidence judges what was not given yet.
    assert (span.verified_count, span.wrong_count) == (6, 3)
    assert counts.life(Layer.INFERENCE).verified_count == 0


def test_the_bound_of_false_hits_follows_the_verdicts(counts) -> None:
    counts.recorder.false_hit_bounds(verified_count=400, wrong_count=0)
    assert counts.metric("cache_false_hit_upper_bound") == pytest.approx(0.0095, abs=1e-4)
    assert counts.recorder.semantic.verified_count == 400


def test_the_index_and_its_feed_are_shown(counts) -> None:
    counts.recorder.semantic_size(12, 3, 40_000)
    counts.recorder.semantic_limit(1 << 20)
    assert counts.metric("cache_semantic_memory_limit_bytes") == 1 << 20
    counts.recorder.feed_lag(0.25)
    assert counts.metric("cache_semantic_entries") == 12
    assert counts.metric("cache_semantic_memory_bytes") == 40_000
    assert counts.metric("cache_semantic_partitions") == 3
    assert counts.metric("cache_feed_lag_seconds") == 0.25
    semantic = counts.recorder.semantic
    assert (semantic.entry_count, semantic.partition_count) == (12, 3)
    assert semantic.feed_lag_seconds == 0.25


def test_the_store_is_in_one_phase(counts) -> None:
    counts.recorder.store_phase(Phase.OPEN)
    counts.recorder.store_available(available=False)
    phases = {
        each.value: counts.metric("cache_redis_breaker_state", phase=each.value) for each in Phase
    }
    assert phases == {"normal": 0, "slow": 0, "open": 1, "recovering": 0}
    assert counts.metric("cache_backend_up", backend="redis") == 0
    assert counts.metric("cache_degraded") == 1


def test_writes_dropped_and_failures_count(counts) -> None:
    counts.recorder.wrote(Layer.CHUNK, [WriteOutcome.DROPPED] * 4 + [WriteOutcome.REFUSED])
    counts.recorder.store_failed()
    assert counts.metric("cache_dropped_writes_total", layer="chunk") == 4
    assert counts.recorder.dropped_write_count == 4
    assert counts.metric("cache_backend_failures_total", backend="redis") == 1
