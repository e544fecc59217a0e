"""What has been counted, as messages."""

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import statistics_pb2 as pb
from services.cache.core.breaker import Phase
from services.cache.core.flight_tally import FlightEvent, FlightTally
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.model import Hit, Level, Lookup, WriteOutcome
from services.cache.core.savings import NOTHING, Prices, Savings, SavingsReport
from services.cache.core.semantic_tally import SemanticTally
from services.cache.core.spans import HitKind
from services.cache.core.tallies import LayerTally
from services.cache.core.traffic import TenantTally, Traffic
from services.cache.shared_level import StoreCondition
from services.cache.statistics_convert import (
    flight_stats,
    layer_stats,
    mode_stats,
    savings_message,
    semantic_stats,
    store_stats,
    tenant_limit,
    tenant_stats,
    watch_interval_seconds,
)
from services.common.errors import InvalidRequest

LOCAL = LocalLevel(8_000)


def hit(level: Level) -> Hit:
    return Hit(payload=b"", level=level, created_ms=0, age_seconds=30.0, remaining_seconds=60.0)


def semantic(tally: SemanticTally, **fields) -> pb.SemanticStats:
    policy = {"threshold": 0.95, "error_budget_ratio": 0.01, "thresholds": {}}
    return semantic_stats(tally, **(policy | fields))


def test_every_layer_and_phase_has_its_enum_value() -> None:
    spans = LayerTally(0.0).spans(0.0)
    for layer in Layer:
        shown = layer_stats(layer, spans, LOCAL).layer
        assert pb.Layer.Name(shown) == f"LAYER_{layer.name}"
    states = {phase: store_stats(StoreCondition(phase=phase), "single", 0).state for phase in Phase}
    assert pb.STORE_STATE_UNSPECIFIED not in states.values()
    assert len(set(states.values())) == len(Phase)


def test_a_layer_without_lookups_has_windows_but_no_times() -> None:
    stats = layer_stats(Layer.EMBEDDING, LayerTally(0.0).spans(0.0), LOCAL)
    lengths = [each.window.ToSeconds() for each in stats.windows[:3]]
    assert lengths == [60, 300, 3600]
    assert not stats.windows[3].HasField("window")
    assert not stats.HasField("lookup_time_p50")
    assert not any(each.HasField("lookup_time") for each in stats.windows)
    assert not any(each.hits for each in stats.windows)
    assert (stats.local_entry_count, stats.local_size_bytes, stats.local_limit_bytes) == (
        *(0, 0, 8_000),
    )
    assert stats.ttl.ToSeconds() == 604_800


def test_a_layer_shows_all_time_and_its_windows() -> None:
    tally = LayerTally(0.0)
    tally.add_lookup(
        Lookup(
            hits=(hit(Level.LOCAL), hit(Level.SHARED), None, None),
            degraded=True,
            rejected_count=1,
            invalidated_count=2,
        ),
        0.002,
        0.0,
    )
    tally.add_writes((WriteOutcome.STORED, WriteOutcome.DROPPED), 0.0)
    tally.add_bypasses(7, 0.0)
    tally.add_evictions(5, 0.0)
    tally.add_generated(Savings(20, 20, 1.0), 0.0)
    tally.add_savings(Savings(30, 10, 1.5), 0.0)
    stats = layer_stats(Layer.INFERENCE, tally.spans(100.0), LOCAL)
    assert (stats.lookup_count, stats.local_hit_count, stats.shared_hit_count) == (4, 1, 1)
    assert (stats.miss_count, stats.degraded_miss_count, stats.rejected_value_count) == (2, 2, 1)
    assert (stats.stored_count, stats.dropped_store_count) == (1, 1)
    assert stats.hit_ratio == 0.5
    assert stats.saved_time.ToMilliseconds() == 1500
    assert stats.lookup_time_p99.ToNanoseconds() / 1e9 == pytest.approx(0.002, rel=0.01)
    minute, five_minutes, _, life = stats.windows
    assert (minute.lookup_count, minute.bypass_count) == (0, 0)
    assert five_minutes.lookup_count == life.lookup_count == 4
    assert [(each.kind, each.count) for each in life.hits] == [("local", 1), ("shared", 1)]
    assert (life.bypass_count, life.eviction_count, life.invalidated_value_count) == (7, 5, 2)
    assert (life.degraded_miss_count, life.rejected_value_count) == (2, 1)
    assert (life.hit_ratio, life.effective_hit_ratio, life.token_hit_ratio) == (0.5, 0.5, 0.5)
    assert (life.saved_usage.prompt_token_count, life.saved_usage.completion_token_count) == (
        *(30, 10),
    )
    assert life.hit_age.p50.ToNanoseconds() / 1e9 == pytest.approx(30, rel=0.01)


def test_false_hits_are_those_of_the_window_with_their_bounds() -> None:
    tally = LayerTally(0.0)
    tally.add_verdict(was_right=False, now=0.0)
    for _ in range(9):
        tally.add_verdict(was_right=True, now=200.0)
    minute, five_minutes, hour, life = layer_stats(
        Layer.SEMANTIC, tally.spans(400.0), LOCAL
    ).windows
    assert minute.false_hits == pb.FalseHits(ratio_upper_bound=1)
    assert (five_minutes.false_hits.verified_count, five_minutes.false_hits.wrong_count) == (9, 0)
    assert five_minutes.false_hits.ratio_upper_bound == pytest.approx(0.2992, abs=1e-4)
    assert hour.false_hits == life.false_hits
    assert (life.false_hits.verified_count, life.false_hits.wrong_count) == (10, 1)
    assert life.false_hits.ratio == 0.1
    assert life.false_hits.ratio_lower_bound == pytest.approx(0.0179, abs=1e-4)
    assert life.false_hits.ratio_upper_bound == pytest.approx(0.4042, abs=1e-4)


def test_only_the_semantic_layer_has_false_hits() -> None:
    for layer in Layer:
        for window in layer_stats(layer, LayerTally(0.0).spans(0.0), LOCAL).windows:
            assert window.HasField("false_hits") == (layer is Layer.SEMANTIC)


def test_the_store_shows_its_topology_and_what_it_did_not_take() -> None:
    condition = StoreCondition(
        available=False,
        phase=Phase.OPEN,
        failure_count=7,
        outage_count=2,
        changed_at=1_700_000_000.5,
        last_failure="timed out",
    )
    stats = store_stats(condition, "cluster", 3)
    assert stats.state == pb.STORE_STATE_UNAVAILABLE
    assert (stats.failure_count, stats.outage_count, stats.dropped_write_count) == (7, 2, 3)
    assert (stats.topology, stats.last_failure) == ("cluster", "timed out")
    assert stats.state_change_time.ToMilliseconds() == 1_700_000_000_500
    assert not store_stats(StoreCondition(), "single", 0).HasField("state_change_time")


@pytest.mark.parametrize(
    ("verified", "wrong", "proven"),
    [(0, 0, False), (300, 0, False), (381, 0, True), (1000, 9, False)],
)
def test_the_budget_is_proven_once_its_upper_bound_is_within(verified, wrong, proven) -> None:
    stats = semantic(SemanticTally(verified_count=verified, wrong_count=wrong))
    assert stats.proven is proven
    assert stats.false_hit_ratio == (wrong / verified if verified else 0)
    assert stats.false_hit_ratio_lower_bound <= stats.false_hit_ratio
    assert stats.false_hit_ratio <= stats.false_hit_ratio_upper_bound


def test_nothing_verified_bounds_nothing() -> None:
    stats = semantic(SemanticTally())
    assert (stats.false_hit_ratio_lower_bound, stats.false_hit_ratio_upper_bound) == (0, 1)
    assert not stats.HasField("feed_lag")


def test_the_semantic_layer_lists_guards_by_frequency_and_namespaces_by_name() -> None:
    tally = SemanticTally(
        entry_count=12, partition_count=3, size_bytes=40_000, feed_lag_seconds=0.25
    )
    tally.rejections.update({"dates": 1, "numbers": 5})
    stats = semantic(tally, thresholds={"z": 0.99, "a": 0.97})
    assert [(each.guard, each.count) for each in stats.rejections] == [("numbers", 5), ("dates", 1)]
    assert [each.namespace for each in stats.thresholds] == ["a", "z"]
    assert (stats.entry_count, stats.partition_count, stats.size_bytes) == (12, 3, 40_000)
    assert stats.feed_lag.ToMilliseconds() == 250


def test_single_flight_counts_leases_and_waits() -> None:
    tally = FlightTally()
    for number, event in enumerate(FlightEvent, start=1):
        tally.events[event] = number
    tally.waiting_count, tally.held_count = 20, 30
    assert not flight_stats(tally).HasField("wait_time")
    tally.add_wait(0.5)
    stats = flight_stats(tally)
    assert (stats.lease_count, stats.refresh_count) == (1 + 2, 2)
    assert (stats.filled_count, stats.released_count, stats.rejected_count) == (3, 4, 5)
    assert (stats.coalesced_count, stats.wait_ended_count) == (7, 8)
    assert (stats.waiting_count, stats.held_count) == (20, 30)
    assert stats.wait_time.p50.ToNanoseconds() / 1e9 == pytest.approx(0.5, rel=0.01)


def test_modes_and_tenants_show_each_layer_that_was_looked_up() -> None:
    traffic = Traffic()
    traffic.add(Layer.INFERENCE, 4, {HitKind.COALESCED: 1, HitKind.LOCAL: 2})
    traffic.add(Layer.SEMANTIC, 2)
    modes = list(mode_stats("deep", traffic))
    assert [(each.layer, each.lookup_count, each.hit_count) for each in modes] == [
        (pb.LAYER_INFERENCE, 4, 3),
        (pb.LAYER_SEMANTIC, 2, 0),
    ]
    assert [[(hit.kind, hit.count) for hit in each.hits] for each in modes] == [
        [("local", 2), ("coalesced", 1)],
        [],
    ]
    assert {each.mode for each in modes} == {"deep"}
    tenant = tenant_stats("acme", TenantTally(traffic, Savings(5, 6, 1.0)))
    assert [each.lookup_count for each in tenant.layers] == [4, 2]
    assert (tenant.tenant_id, tenant.saved_usage.completion_token_count) == ("acme", 6)


def test_savings_are_shown_gross_and_net() -> None:
    report = SavingsReport(
        by_hits=Savings(1_000_000, 0, 5.0),
        by_coalescing=Savings(3, 4, 1.0),
        lookup_seconds=8.0,
        verification=Savings(250_000, 0, 1.0),
        prices=Prices(per_million_prompt_tokens=2.0, currency="EUR"),
    )
    stats = savings_message(report)
    assert (stats.gross_time.ToSeconds(), stats.net_time.ToSeconds()) == (5, -3)
    assert (stats.gross_cost, stats.net_cost, stats.currency) == (2.0, 1.5, "EUR")
    assert stats.coalesced_usage.completion_token_count == 4


def test_without_prices_there_is_no_currency() -> None:
    report = SavingsReport(
        by_hits=Savings(9, 9, 1.0),
        by_coalescing=NOTHING,
        lookup_seconds=0.0,
        verification=NOTHING,
        prices=Prices(currency="EUR"),
    )
    stats = savings_message(report)
    assert (stats.gross_cost, stats.currency) == (0.0, "")


def test_ten_tenants_and_a_second_are_the_defaults() -> None:
    assert tenant_limit(pb.GetStatsRequest()) == 10
    assert tenant_limit(pb.GetStatsRequest(tenant_limit=0)) == 0
    assert watch_interval_seconds(pb.WatchStatsRequest()) == 1.0


@pytest.mark.parametrize("interval", [Duration(nanos=100_000_000), Duration(seconds=60)])
def test_intervals_at_the_limits_are_taken(interval) -> None:
    request = pb.WatchStatsRequest(interval=interval, tenant_limit=50)
    assert tenant_limit(request) == 50
    assert watch_interval_seconds(request) == interval.ToNanoseconds() / 1e9


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.GetStatsRequest(tenant_limit=51), ["tenant_limit"]),
        (pb.GetStatsRequest(tenant_limit=-1), ["tenant_limit"]),
        (pb.WatchStatsRequest(interval=Duration(nanos=99_999_999)), ["interval"]),
        (
            pb.WatchStatsRequest(interval=Duration(seconds=60, nanos=1), tenant_limit=99),
            ["tenant_limit", "interval"],
        ),
    ],
)
def test_what_is_out_of_range_is_refused_all_at_once(request_, fields) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tenant_limit(request_)
    assert [each.field for each in caught.value.violations] == fields
