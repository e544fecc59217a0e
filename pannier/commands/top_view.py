"""A frame of `pannier top`: lines that fit a terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from pannier.balancer.v1 import balancer_service_pb2 as balancer_pb
from pannier.cache.v1 import statistics_pb2 as cache_pb
from pannier.commands.columns import Column, crop, fit_columns, fit_parts
from pannier.commands.fields import show_duration, show_enum
from pannier.commands.formatting import clean, format_bytes, format_ratio, format_seconds, shorten
from pannier.commands.money import format_cost
from pannier.commands.top_state import SERVICES, Seen, TopState
from pannier.rag.v1 import rag_service_pb2 as rag_pb

__all__ = ["SORTS", "FrameOptions", "frame_lines", "styled"]

_LEAST_BACKENDS = 2
# The queue, the heading of the backends, one of them and how many more there are.
_LEAST_FLEET_LINES = 4
_MODEL_CHARACTERS = 40

Parts = Sequence[tuple[str, int]]

SORTS: dict[str, Callable[[balancer_pb.BackendStats], Any]] = {
    "name": lambda each: each.backend_id,
    "load": lambda each: (-each.load_score_seconds, each.backend_id),
    "in flight": lambda each: (-each.in_flight_count, each.backend_id),
    "failures": lambda each: (-each.failure_count, each.backend_id),
}
"""Orders of backends by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOptions:
    """How a frame is to look.

    Attributes:
        width: Characters of a line.
        height: Lines there are; 0 for as many as it takes.
        sort: Order of backends, one of `SORTS`.
        paused: Whether it stands still.
        now: Monotonic seconds.
        clock: The time of day, seconds since the epoch.
        keys: Whether there is a keyboard.
    """

    width: int
    height: int = 0
    sort: str = "name"
    paused: bool = False
    now: float
    clock: float
    keys: bool = False


def frame_lines(state: TopState, options: FrameOptions) -> list[str]:
    """Composes a frame."""
    seen = state.services
    lines = [_header(options), *(_status(name, seen[name], options) for name in SERVICES)]
    answers: list[str] = []
    layers: list[str] = []
    if seen["rag"].stats is not None:
        answers += _rag_lines(seen["rag"], state, options)
    if seen["cache"].stats is not None:
        layers += _cache_lines(seen["cache"].stats, options)
    fleet = seen["balancer"]
    needed = _LEAST_FLEET_LINES if fleet.stats is not None else 0
    # Where there is little room, the caches go first: their share of answers is above.
    for block in (layers, answers):
        if options.height and len(lines) + len(answers) + len(layers) + needed > options.height:
            block.clear()
    lines += [*answers, *layers]
    if fleet.stats is not None:
        lines += _fleet_lines(fleet, options, room=options.height - len(lines))
    lines = [crop(clean(each).replace("\n", " "), options.width) for each in lines]
    return lines[: options.height] if options.height else lines


def styled(lines: list[str]) -> Text:
    """Colours a frame for a terminal."""
    text = Text("\n".join(lines), no_wrap=True, overflow="crop")
    for pattern, style in (
        (r"(?m)^pannier top.*$", "bold"),
        (r"(?m)^(mode|layer|backend) .*$", "bold"),
        (r"\baway\b.*$", "red"),
        (r"\b(unreachable|ejected|hung|unavailable|unhealthy)\b", "red"),
        (r"\b(draining|returning|slow|recovering|not known yet)\b", "yellow"),
        (r"PAUSED", "reverse"),
    ):
        text.highlight_regex(pattern, style)
    return text


def _header(options: FrameOptions) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(options.clock))
    keys = f"  q quit, p pause, s sort: {options.sort}" if options.keys else ""
    return f"pannier top  {at}{'  PAUSED' if options.paused else ''}{keys}"


def _status(name: str, seen: Seen, options: FrameOptions) -> str:
    if seen.away_since is not None:
        since = format_seconds(options.now - seen.away_since)
        return f"{name:9}away for {since}: {shorten(seen.problem, options.width)}"
    if seen.stats is None:
        return f"{name:9}not heard of yet"
    started = seen.stats.start_time.ToNanoseconds() / 1e9
    up = format_seconds(max(0.0, options.clock - started))
    describe = {"rag": _describe_rag, "cache": _describe_cache, "balancer": _describe_fleet}[name]
    parts = [(f"up {up}", 4), *describe(seen)]
    return f"{name:9}{fit_parts(parts, width=options.width - 9)}"


def _describe_rag(seen: Seen) -> Parts:
    growth, stats = seen.growth, seen.stats
    asked = growth.increase("query")

    def share(name: str) -> str:
        return format_ratio(growth.increase(name) / asked) if asked else "-"

    return (
        (f", {_rate(growth.per_second('query'))} answers/s", 0),
        (f", {stats.in_flight_count} under way", 3),
        (f"; errors {share('failure')}", 0),
        (f", cached {share('cached')}", 2),
        (f", degraded {share('degraded')}", 1),
    )


def _describe_cache(seen: Seen) -> Parts:
    store, flight = seen.stats.store, seen.stats.flight
    waiting = f", {flight.waiting_count} callers wait" if flight.waiting_count else ""
    return (
        (f", store {show_enum(cache_pb.StoreState, store.state)}", 0),
        (f", {store.failure_count} failures", 1),
        (f", {store.outage_count} outages", 3),
        (waiting, 2),
    )


def _describe_fleet(seen: Seen) -> Parts:
    fleet = seen.stats.fleet
    return (
        (f", {_rate(seen.growth.per_second('request'))} requests/s", 1),
        (f", {fleet.in_flight_count} under way", 3),
        (f"; {fleet.healthy_backend_count} of {fleet.backend_count} healthy", 0),
        (f", {_rate(seen.growth.per_second('failure'))} failures/s", 2),
    )


def _rag_lines(seen: Seen, state: TopState, options: FrameOptions) -> Iterator[str]:
    modes, growth = list(seen.stats.modes), seen.growth
    usage = state.usage
    if usage is not None and usage.currency:
        cost = format_cost(usage.total.cost_nanos, usage.currency)
        saved = format_cost(usage.total.saved_cost_nanos, usage.currency)
        yield f"cost     {cost} within a day, {saved} saved by the cache"
    if not modes:
        return

    def rates(name: str) -> list[str]:
        return [_rate(growth.per_second(f"{name}/{each.mode}")) for each in modes]

    def times(name: str) -> list[str]:
        return [show_duration(each, f"answer_time_{name}") for each in modes]

    yield from fit_columns(
        (
            Column("mode", 0, [show_enum(rag_pb.QueryMode, each.mode) for each in modes], "left"),
            Column("answers", 5, [str(each.query_count) for each in modes]),
            Column("/s", 1, rates("query")),
            Column("p50", 2, times("p50")),
            Column("p95", 0, times("p95")),
            Column("p99", 2, times("p99")),
            Column("failed", 3, [str(each.failure_count) for each in modes]),
            Column("cached", 4, [str(each.cached_count) for each in modes]),
            Column("degraded", 4, [str(each.degraded_count) for each in modes]),
            Column(
                "quality",
                6,
                [f"{x.mean_quality:.2f}" if x.HasField("mean_quality") else "-" for x in modes],
            ),
            Column("tokens", 7, [str(each.usage.completion_token_count) for each in modes]),
        ),
        width=options.width,
    )


def _cache_lines(stats: cache_pb.GetStatsResponse, options: FrameOptions) -> Iterator[str]:
    savings = stats.savings
    if savings.currency:
        yield f"savings  {savings.net_cost:.4f} {savings.currency} net since the start"
    layers = list(stats.layers)
    if not layers:
        return

    def ratios(seconds: int) -> list[str]:
        return [_hit_ratio(each, seconds) for each in layers]

    yield from fit_columns(
        (
            Column("layer", 0, [show_enum(cache_pb.Layer, each.layer) for each in layers], "left"),
            Column("hits 1m", 0, ratios(60)),
            Column("5m", 2, ratios(300)),
            Column("1h", 4, ratios(3600)),
            Column("all", 3, ratios(0)),
            Column("lookups", 5, [str(each.lookup_count) for each in layers]),
            Column("entries", 1, [str(each.local_entry_count) for each in layers]),
            Column("size", 1, [format_bytes(each.local_size_bytes) for each in layers]),
            Column("limit", 4, [format_bytes(each.local_limit_bytes) for each in layers]),
            Column("pushed out", 6, [str(each.local_eviction_count) for each in layers]),
            Column("p99", 5, [show_duration(each, "lookup_time_p99") for each in layers]),
        ),
        width=options.width,
    )


def _hit_ratio(layer: cache_pb.LayerStats, seconds: int) -> str:
    """Writes the hit ratio of a window, or of all time for 0; `-` where nothing was looked up."""
    for window in layer.windows:
        length = window.window.ToSeconds() if window.HasField("window") else 0
        if length == seconds and window.lookup_count:
            return format_ratio(window.hit_ratio)
    return "-"


def _fleet_lines(seen: Seen, options: FrameOptions, *, room: int) -> Iterator[str]:
    stats = seen.stats
    queues = [
        f"{show_enum(balancer_pb.Priority, each.priority)} {each.waiting_count}/{each.limit}"
        + (f" (longest {show_duration(each, 'longest_wait')})" if each.waiting_count else "")
        for each in stats.fleet.queues
    ]
    yield f"queue    {', '.join(queues) or 'none'}"
    backends = sorted(stats.backends, key=SORTS[options.sort])
    if not backends:
        return
    # The queue, the heading and perhaps the line that says what is left out.
    fitting = len(backends) if not options.height else max(_LEAST_BACKENDS, room - 2)
    left_out = max(0, len(backends) - fitting)
    if left_out:
        left_out += 1
    shown = backends[: len(backends) - left_out]
    yield from fit_columns(_backend_columns(shown, seen, options), width=options.width)
    if left_out:
        yield f"… and {left_out} more"


def _backend_columns(
    backends: list[balancer_pb.BackendStats], seen: Seen, options: FrameOptions
) -> tuple[Column, ...]:
    rates = [seen.growth.per_second(f"request/{each.backend_id}") for each in backends]
    return (
        Column("backend", 0, [each.backend_id for each in backends], "left"),
        Column("state", 0, [_state(each) for each in backends], "left"),
        Column("load", 1, [f"{each.load_score_seconds:.2f} s" for each in backends]),
        Column("busy", 1, [str(each.in_flight_count) for each in backends]),
        Column("/s", 3, [_rate(each) for each in rates]),
        Column("failed", 4, [str(each.failure_count) for each in backends]),
        Column("first token", 5, [show_duration(each, "first_token_time") for each in backends]),
        Column("tokens/s", 2, [_token_rate(each) for each in backends]),
        Column("checked", 2, [_age(each, options.clock) for each in backends]),
        Column("models", 6, [_models(each) for each in backends], "left"),
    )


def _state(backend: balancer_pb.BackendStats) -> str:
    if backend.state == balancer_pb.BACKEND_STATE_UNSPECIFIED:
        return "healthy" if backend.healthy else "not known yet"
    return show_enum(balancer_pb.BackendState, backend.state)


def _token_rate(backend: balancer_pb.BackendStats) -> str:
    """Writes the rate of one answer alone, as learned of the fastest model in memory."""
    rate = max((each.decode_tokens_per_second for each in backend.models), default=0.0)
    return f"{rate:.0f}" if rate else "-"


def _models(backend: balancer_pb.BackendStats) -> str:
    names = ", ".join(each.model.removesuffix(":latest") for each in backend.models)
    return shorten(names, _MODEL_CHARACTERS) or "-"


def _age(backend: balancer_pb.BackendStats, clock: float) -> str:
    if not backend.HasField("check_time"):
        return "never"
    return f"{max(0.0, clock - backend.check_time.ToNanoseconds() / 1e9):.0f} s"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
