"""What has been counted, as messages; and what callers ask for when they want to know."""

from collections.abc import Iterator, Mapping, Sequence

from pannier.cache.v1 import statistics_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.cache.convert import duration, timestamp
from services.cache.core.breaker import Phase
from services.cache.core.flight_tally import FlightEvent, FlightTally
from services.cache.core.intervals import wilson
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.savings import Savings, SavingsReport
from services.cache.core.semantic_tally import SemanticTally
from services.cache.core.spans import HitKind, Span
from services.cache.core.traffic import TenantTally, Traffic
from services.cache.shared_level import StoreCondition
from services.common.validation import Violations

__all__ = [
    "flight_stats",
    "layer_stats",
    "mode_stats",
    "savings_message",
    "semantic_stats",
    "store_stats",
    "tenant_limit",
    "tenant_stats",
    "watch_interval_seconds",
]

_DEFAULT_TENANT_LIMIT = 10
_MAXIMUM_TENANT_LIMIT = 50
_DEFAULT_INTERVAL_SECONDS = 1.0
_INTERVAL_RANGE_SECONDS = (0.1, 60.0)

_LAYERS = {
    Layer.EMBEDDING: pb.LAYER_EMBEDDING,
    Layer.INFERENCE: pb.LAYER_INFERENCE,
    Layer.CHUNK: pb.LAYER_CHUNK,
    Layer.SEMANTIC: pb.LAYER_SEMANTIC,
}
_STATES = {
    Phase.NORMAL: pb.STORE_STATE_AVAILABLE,
    Phase.SLOW: pb.STORE_STATE_SLOW,
    Phase.OPEN: pb.STORE_STATE_UNAVAILABLE,
    Phase.RECOVERING: pb.STORE_STATE_RECOVERING,
}


def tenant_limit(request: pb.GetStatsRequest | pb.WatchStatsRequest) -> int:
    """Reads how many tenants to list.

    Raises:
        InvalidRequest: They are too many, or the interval of a watch is out of range.
    """
    limit = request.tenant_limit if request.HasField("tenant_limit") else _DEFAULT_TENANT_LIMIT
    violations = Violations()
    violations.check_range("tenant_limit", limit, 0, _MAXIMUM_TENANT_LIMIT)
    if isinstance(request, pb.WatchStatsRequest):
        low, high = _INTERVAL_RANGE_SECONDS
        violations.require(
            low <= watch_interval_seconds(request) <= high,
            "interval",
            f"Must be from {low * 1e3:g} ms to {high:g} s.",
        )
    violations.raise_found()
    return limit


def watch_interval_seconds(request: pb.WatchStatsRequest) -> float:
    """Reads the time between two reports."""
    if not request.HasField("interval"):
        return _DEFAULT_INTERVAL_SECONDS
    return request.interval.seconds + request.interval.nanos * 1e-9


def layer_stats(layer: Layer, spans: Sequence[Span], local: LocalLevel) -> pb.LayerStats:
    """Reports on one layer.

    Args:
        layer: The layer.
        spans: What happened to it, all time last.
        local: Its local level.
    """
    life = spans[-1]
    stats = pb.LayerStats(
        layer=_LAYERS[layer],
        lookup_count=life.lookup_count,
        local_hit_count=life.hit_count(HitKind.LOCAL),
        shared_hit_count=life.hit_count(HitKind.SHARED),
        miss_count=life.miss_count,
        degraded_miss_count=life.degraded_miss_count,
        hit_ratio=life.hit_ratio,
        stored_count=life.stored_count,
        dropped_store_count=life.dropped_store_count,
        local_entry_count=local.entry_count,
        local_size_bytes=local.size_bytes,
        local_limit_bytes=local.limit_bytes,
        local_eviction_count=local.eviction_count,
        ttl=duration(LAYER_RULES[layer].default_ttl_seconds),
        rejected_value_count=life.rejected_value_count,
        saved_usage=_usage(life.saved),
        saved_time=duration(life.saved.seconds),
        windows=[_window_stats(layer, each) for each in spans],
    )
    times = stats.windows[-1].lookup_time
    if times.HasField("p50"):
        stats.lookup_time_p50.CopyFrom(times.p50)
        stats.lookup_time_p99.CopyFrom(times.p99)
    return stats


def store_stats(
    condition: StoreCondition, topology: str, dropped_write_count: int
) -> pb.StoreStats:
    """Reports on the shared store.

    Args:
        condition: How it has been.
        topology: Its shape: "single", "sentinel" or "cluster".
        dropped_write_count: Values not written since it was away or slow.
    """
    stats = pb.StoreStats(
        state=_STATES[condition.phase],
        failure_count=condition.failure_count,
        outage_count=condition.outage_count,
        last_failure=condition.last_failure,
        topology=topology,
        dropped_write_count=dropped_write_count,
    )
    if condition.changed_at is not None:
        stats.state_change_time.CopyFrom(timestamp(condition.changed_at))
    return stats


def semantic_stats(
    tally: SemanticTally,
    *,
    threshold: float,
    error_budget_ratio: float,
    thresholds: Mapping[str, float],
) -> pb.SemanticStats:
    """Reports on the semantic layer's judgement of itself.

    Args:
        tally: What it knows.
        threshold: Least similarity that counts where nothing else is set.
        error_budget_ratio: Share of wrong answers it may have.
        thresholds: Those set at run time, by namespace.
    """
    lower, upper = wilson(tally.wrong_count, tally.verified_count)
    stats = pb.SemanticStats(
        threshold=threshold,
        error_budget_ratio=error_budget_ratio,
        verified_count=tally.verified_count,
        wrong_count=tally.wrong_count,
        false_hit_ratio=tally.wrong_count / max(1, tally.verified_count),
        false_hit_ratio_lower_bound=lower,
        false_hit_ratio_upper_bound=upper,
        proven=upper <= error_budget_ratio,
        rejections=[
            pb.GuardCount(guard=guard, count=count)
            for guard, count in tally.rejections.most_common()
        ],
        entry_count=tally.entry_count,
        partition_count=tally.partition_count,
        size_bytes=tally.size_bytes,
        thresholds=[
            pb.NamespaceThreshold(namespace=namespace, threshold=each)
            for namespace, each in sorted(thresholds.items())
        ],
    )
    if tally.feed_lag_seconds is not None:
        stats.feed_lag.CopyFrom(duration(tally.feed_lag_seconds))
    return stats


def flight_stats(tally: FlightTally) -> pb.FlightStats:
    """Reports on single-flight."""
    events = tally.events
    return pb.FlightStats(
        lease_count=tally.lease_count,
        filled_count=events[FlightEvent.FILLED],
        released_count=events[FlightEvent.RELEASED],
        rejected_count=events[FlightEvent.REJECTED],
        refresh_count=events[FlightEvent.REFRESH_LEASED],
        coalesced_count=events[FlightEvent.COALESCED],
        wait_ended_count=events[FlightEvent.WAIT_ENDED],
        waiting_count=tally.waiting_count,
        held_count=tally.held_count,
        wait_time=_quantiles(tally.wait_times),
    )


def mode_stats(mode: str, traffic: Traffic) -> Iterator[pb.ModeStats]:
    """Reports on each layer that was looked up under a mode, or for a tenant where it is empty."""
    for layer in Layer:
        if traffic.lookups[layer]:
            hits = traffic.hits_of(layer)
            yield pb.ModeStats(
                mode=mode,
                layer=_LAYERS[layer],
                lookup_count=traffic.lookups[layer],
                hit_count=sum(hits.values()),
                hits=_outcome_counts(hits),
            )


def tenant_stats(tenant_id: str, tally: TenantTally) -> pb.TenantStats:
    """Reports on a tenant."""
    return pb.TenantStats(
        tenant_id=tenant_id,
        layers=mode_stats("", tally.traffic),
        saved_usage=_usage(tally.saved),
    )


def savings_message(report: SavingsReport) -> pb.Savings:
    """Reports on what was saved."""
    return pb.Savings(
        usage=_usage(report.by_hits),
        coalesced_usage=_usage(report.by_coalescing),
        gross_time=duration(report.by_hits.seconds),
        net_time=duration(report.net_seconds),
        gross_cost=report.gross_cost,
        net_cost=report.net_cost,
        currency=report.prices.known_currency,
    )


def _window_stats(layer: Layer, span: Span) -> pb.WindowStats:
    hits = {kind: span.hit_count(kind) for kind in HitKind}
    return pb.WindowStats(
        window=None if span.seconds is None else duration(span.seconds),
        lookup_count=span.lookup_count,
        bypass_count=span.bypass_count,
        hits=_outcome_counts(hits),
        hit_ratio=span.hit_ratio,
        effective_hit_ratio=span.effective_hit_ratio,
        token_hit_ratio=span.token_hit_ratio,
        degraded_miss_count=span.degraded_miss_count,
        rejected_value_count=span.rejected_value_count,
        invalidated_value_count=span.invalidated_value_count,
        eviction_count=span.eviction_count,
        lookup_time=_quantiles(span.lookup_times),
        hit_age=_quantiles(span.hit_ages),
        saved_usage=_usage(span.saved),
        saved_time=duration(span.saved.seconds),
        false_hits=_false_hits(span) if layer is Layer.SEMANTIC else None,
    )


def _outcome_counts(hits: Mapping[HitKind, int]) -> list[pb.OutcomeCount]:
    return [pb.OutcomeCount(kind=kind.value, count=count) for kind, count in hits.items() if count]


def _false_hits(span: Span) -> pb.FalseHits:
    lower, upper = wilson(span.wrong_count, span.verified_count)
    return pb.FalseHits(
        verified_count=span.verified_count,
        wrong_count=span.wrong_count,
        ratio=span.wrong_count / max(1, span.verified_count),
        ratio_lower_bound=lower,
        ratio_upper_bound=upper,
    )


def _quantiles(seconds: tuple[float, ...] | None) -> pb.Quantiles | None:
    if seconds is None:
        return None
    p50, p90, p95, p99 = map(duration, seconds)
    return pb.Quantiles(p50=p50, p90=p90, p95=p95, p99=p99)


def _usage(savings: Savings) -> generation_pb2.TokenUsage:
    return generation_pb2.TokenUsage(
        prompt_token_count=savings.prompt_token_count,
        completion_token_count=savings.completion_token_count,
    )
