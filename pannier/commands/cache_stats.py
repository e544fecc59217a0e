"""What the cache has counted, as lines and tables.

No rate stands for several layers together, and none without the counts it is made of.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pannier.cache.v1 import cache_service_pb2_grpc
from pannier.cache.v1 import statistics_pb2 as pb
from pannier.commands.durations import duration
from pannier.commands.fields import show_duration, show_enum
from pannier.commands.formatting import format_bytes, format_ratio, format_seconds
from pannier.commands.stats_view import Grid, StatsView

__all__ = ["CACHE_VIEW"]

_HOUR_SECONDS = 3_600
_DAY_SECONDS = 86_400


def _lines(stats: pb.GetStatsResponse) -> Iterator[str]:
    yield _store_line(stats.store)
    if stats.flight.lease_count or stats.flight.waiting_count:
        yield from _flight_lines(stats.flight)
    yield from _savings_lines(stats.savings)
    was_used = any(each.layer == pb.LAYER_SEMANTIC and each.lookup_count for each in stats.layers)
    if was_used or stats.semantic.thresholds:
        yield from _semantic_lines(stats.semantic)
        yield from _false_hit_lines(stats.layers)


def _notices(stats: pb.GetStatsResponse) -> Iterator[str]:
    if stats.degraded:
        yield f"The shared store is away: {stats.store.last_failure}"
    elif stats.store.state == pb.STORE_STATE_SLOW:
        yield "The shared store is slow: it is read, but nothing is written to it."


def _grids(stats: pb.GetStatsResponse) -> Iterator[Grid]:
    yield _windows(stats)
    yield _contents(stats)
    yield _modes(stats)
    yield _tenants(stats)


def _store_line(store: pb.StoreStats) -> str:
    topology = f" ({store.topology})" if store.topology else ""
    return (
        f"shared store{topology}: {show_enum(pb.StoreState, store.state)}, "
        f"{store.failure_count} failures, {store.outage_count} outages, "
        f"{store.dropped_write_count} writes dropped"
    )


def _flight_lines(flight: pb.FlightStats) -> Iterator[str]:
    yield (
        f"single-flight: {flight.lease_count} leases ({flight.refresh_count} to refresh), "
        f"{flight.held_count} held; {flight.filled_count} filled, {flight.released_count} given "
        f"back, {flight.rejected_count} answers refused"
    )
    yield (
        f"callers: {flight.coalesced_count} got another's answer, {flight.wait_ended_count} waited "
        f"in vain, {flight.waiting_count} wait; waits p50 {show_duration(flight.wait_time, 'p50')},"
        f" p99 {show_duration(flight.wait_time, 'p99')}"
    )


def _savings_lines(savings: pb.Savings) -> Iterator[str]:
    if savings.usage.completion_token_count or savings.usage.prompt_token_count:
        yield (
            f"saved by hits: {_tokens(savings.usage)}, {_signed(savings.gross_time)} of generation"
            f" (net {_signed(savings.net_time)}){_cost(savings)}"
        )
    if savings.coalesced_usage.completion_token_count or savings.coalesced_usage.prompt_token_count:
        yield f"saved by waiting for another's answer: {_tokens(savings.coalesced_usage)}"


def _semantic_lines(semantic: pb.SemanticStats) -> Iterator[str]:
    verdict = "proven" if semantic.proven else "unproven"
    bounds = (
        f"{format_ratio(semantic.false_hit_ratio_lower_bound)} to "
        f"{format_ratio(semantic.false_hit_ratio_upper_bound)}"
    )
    yield (
        f"semantic: {semantic.wrong_count} of {semantic.verified_count} verified answers were "
        f"wrong, {bounds} at 95 %; budget {format_ratio(semantic.error_budget_ratio)}: {verdict}"
    )
    lag = f", {show_duration(semantic, 'feed_lag')} behind" if semantic.HasField("feed_lag") else ""
    thresholds = "".join(
        f", {each.namespace or 'the nameless namespace'} {each.threshold:g}"
        for each in semantic.thresholds
    )
    yield (
        f"semantic index: {semantic.entry_count} questions in {semantic.partition_count} "
        f"partitions, {format_bytes(semantic.size_bytes)}{lag}; threshold "
        f"{semantic.threshold:g}{thresholds}"
    )
    if semantic.rejections:
        refused = ", ".join(f"{each.guard} {each.count}" for each in semantic.rejections)
        yield f"refused by guards: {refused}"


def _false_hit_lines(layers: Iterable[pb.LayerStats]) -> Iterator[str]:
    windows = [window for layer in layers for window in layer.windows]
    # Older servers say nothing of it.
    shown = [window for window in windows if window.HasField("false_hits")]
    if any(window.false_hits.verified_count for window in shown):
        found = ", ".join(f"{_span(window)} {_false_hits(window.false_hits)}" for window in shown)
        yield f"false hits found here: {found}"


def _false_hits(found: pb.FalseHits) -> str:
    return (
        f"{found.wrong_count} of {found.verified_count} "
        f"({format_ratio(found.ratio_lower_bound)} to {format_ratio(found.ratio_upper_bound)})"
    )


def _windows(stats: pb.GetStatsResponse) -> Grid:
    return Grid(
        (
            *("layer", "span", ">lookups", ">hit ratio", ">effective", ">by tokens", "hits"),
            *(">bypassed", ">degraded", ">p50", ">p95", ">p99", ">age p50"),
        ),
        [
            (
                show_enum(pb.Layer, layer.layer),
                _span(window),
                str(window.lookup_count),
                format_ratio(window.hit_ratio),
                format_ratio(window.effective_hit_ratio),
                format_ratio(window.token_hit_ratio),
                _hits(window),
                str(window.bypass_count),
                str(window.degraded_miss_count),
                show_duration(window.lookup_time, "p50"),
                show_duration(window.lookup_time, "p95"),
                show_duration(window.lookup_time, "p99"),
                show_duration(window.hit_age, "p50"),
            )
            for layer in stats.layers
            for window in layer.windows
            if window.lookup_count or not window.HasField("window")
        ],
    )


def _contents(stats: pb.GetStatsResponse) -> Grid:
    return Grid(
        (
            *("layer", ">entries", ">size", ">limit", ">pushed out", ">stored", ">not stored"),
            *(">rejected", ">kept"),
        ),
        [
            (
                show_enum(pb.Layer, each.layer),
                str(each.local_entry_count),
                format_bytes(each.local_size_bytes),
                format_bytes(each.local_limit_bytes),
                str(each.local_eviction_count),
                str(each.stored_count),
                str(each.dropped_store_count),
                str(each.rejected_value_count),
                _kept(each.ttl.ToSeconds()),
            )
            for each in stats.layers
        ],
    )


def _modes(stats: pb.GetStatsResponse) -> Grid:
    return Grid(
        ("mode", "layer", ">lookups", "hits"),
        [
            (
                each.mode,
                show_enum(pb.Layer, each.layer),
                str(each.lookup_count),
                _hits(each),
            )
            for each in stats.modes
        ],
    )


def _tenants(stats: pb.GetStatsResponse) -> Grid:
    return Grid(
        ("tenant", "layer", ">lookups", "hits", ">saved tokens"),
        [
            (
                tenant.tenant_id or "(others)",
                show_enum(pb.Layer, each.layer),
                str(each.lookup_count),
                _hits(each),
                "" if index else _tokens(tenant.saved_usage, unit=""),
            )
            for tenant in stats.tenants
            for index, each in enumerate(tenant.layers)
        ],
    )


def _hits(stats: pb.WindowStats | pb.ModeStats) -> str:
    return ", ".join(f"{each.count} {each.kind}" for each in stats.hits) or "-"


def _kept(seconds: int) -> str:
    days, rest = divmod(seconds, _DAY_SECONDS)
    return f"{seconds / _HOUR_SECONDS:g} h" if rest else f"{days} d"


def _span(window: pb.WindowStats) -> str:
    if not window.HasField("window"):
        return "since start"
    return f"{window.window.ToSeconds() // 60} min"


def _tokens(usage: Any, unit: str = " tokens") -> str:
    return f"{usage.prompt_token_count} + {usage.completion_token_count}{unit}"


def _signed(time: Any) -> str:
    seconds = time.ToNanoseconds() / 1e9
    return f"-{format_seconds(-seconds)}" if seconds < 0 else format_seconds(seconds)


def _cost(savings: pb.Savings) -> str:
    if not savings.currency:
        return ""
    return f", {savings.gross_cost:.2f} {savings.currency} (net {savings.net_cost:.2f})"


CACHE_VIEW = StatsView(
    service="cache",
    make_stub=cache_service_pb2_grpc.CacheServiceStub,
    request=pb.GetStatsRequest(),
    make_watch_request=lambda seconds: pb.WatchStatsRequest(interval=duration(seconds)),
    lines=_lines,
    notices=_notices,
    grids=_grids,
    activity=lambda stats: sum(each.lookup_count for each in stats.layers),
    activity_name="lookups",
)
"""What the cache has counted."""
