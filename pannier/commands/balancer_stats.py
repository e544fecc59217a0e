"""What the balancer has counted, as lines and tables."""

from collections.abc import Iterator

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc
from pannier.commands.durations import duration
from pannier.commands.fields import show_duration, show_enum, show_until
from pannier.commands.formatting import format_ratio
from pannier.commands.stats_view import Grid, StatsView

__all__ = ["BALANCER_VIEW"]


def _lines(stats: pb.GetStatsResponse) -> tuple[str, ...]:
    fleet = stats.fleet
    replicas = f" · {fleet.replica_count} replicas" if fleet.replica_count > 1 else ""
    return (
        f"{fleet.healthy_backend_count} of {fleet.backend_count} backends healthy · "
        f"{fleet.request_count} requests, {fleet.failure_count} failed, "
        f"{fleet.retry_count} retried, {fleet.cancelled_count} cancelled, "
        f"{fleet.in_flight_count} under way",
        f"{fleet.refused_count} refused for lack of room, "
        f"{fleet.unreachable_deadline_count} for deadlines out of reach · "
        f"{fleet.model_load_count} model loads, {fleet.eviction_count} evictions · "
        f"{format_ratio(fleet.retry_budget_ratio)} of the retry budget left{replicas}",
    )


def _notices(stats: pb.GetStatsResponse) -> Iterator[str]:
    fleet = stats.fleet
    if fleet.round_robin_fallback:
        yield "No backend is healthy: requests go round in turn."
    if fleet.slots_divided:
        yield (
            "The store that the replicas share is out of reach: each keeps to its share of the "
            "slots."
        )


def _grids(stats: pb.GetStatsResponse) -> Iterator[Grid]:
    yield _queues(stats)
    yield _backends(stats)
    yield _models(stats)


def _queues(stats: pb.GetStatsResponse) -> Grid:
    return Grid(
        ("queue", ">waiting", ">limit", ">longest wait"),
        [
            (
                show_enum(pb.Priority, each.priority),
                str(each.waiting_count),
                str(each.limit),
                show_duration(each, "longest_wait"),
            )
            for each in stats.fleet.queues
        ],
    )


def _backends(stats: pb.GetStatsResponse) -> Grid:
    return Grid(
        (
            *("backend", "state", ">load score", ">requests", ">failed", ">under way", ">average"),
            *(">first token", ">per text", ">ejections", ">stalls"),
        ),
        [
            (
                each.backend_id,
                _state(each),
                f"{each.load_score_seconds:.3f} s",
                str(each.request_count),
                str(each.failure_count),
                str(each.in_flight_count),
                show_duration(each, "average_response_time"),
                show_duration(each, "first_token_time"),
                show_duration(each, "embedding_time"),
                str(each.ejection_count),
                str(each.stall_count),
            )
            for each in stats.backends
        ],
    )


def _state(backend: pb.BackendStats) -> str:
    if backend.state == pb.BACKEND_STATE_UNSPECIFIED:
        return "healthy" if backend.healthy else "not known yet"
    return show_enum(pb.BackendState, backend.state)


def _models(stats: pb.GetStatsResponse) -> Grid:
    return Grid(
        (
            *("backend", "model in memory", "state", ">in flight", ">zombies"),
            *(">read tokens/s", ">write tokens/s", ">context", ">load takes", "unloads"),
        ),
        [
            (
                backend.backend_id,
                each.model,
                show_enum(pb.ModelResidency, each.residency),
                f"{each.in_flight_count} of {each.slot_count}",
                str(each.zombie_count),
                _number(each.prefill_tokens_per_second),
                _number(each.decode_tokens_per_second),
                _number(each.context_token_count),
                show_duration(each, "predicted_load"),
                "pinned" if each.pinned else show_until(each, "expire_time"),
            )
            for backend in stats.backends
            for each in backend.models
        ],
    )


def _number(value: float) -> str:
    """Writes a figure of which 0 says that it is not known."""
    return f"{value:.0f}" if value else "-"


BALANCER_VIEW = StatsView(
    service="balancer",
    make_stub=balancer_service_pb2_grpc.BalancerServiceStub,
    request=pb.GetStatsRequest(),
    make_watch_request=lambda seconds: pb.WatchStatsRequest(interval=duration(seconds)),
    lines=_lines,
    notices=_notices,
    grids=_grids,
    activity=lambda stats: stats.fleet.request_count,
    activity_name="requests",
)
"""What the balancer has counted."""
