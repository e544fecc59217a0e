"""What rag has counted, as lines and tables."""

from collections.abc import Iterator

from pannier.commands.fields import show_duration, show_enum
from pannier.commands.stats_view import Grid, StatsView
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1 import rag_service_pb2_grpc

__all__ = ["RAG_VIEW"]


def _lines(stats: pb.GetStatsResponse) -> Iterator[str]:
    done = stats.ingest
    yield (
        f"documents: {done.created_count} created, {done.updated_count} updated, "
        f"{done.unchanged_count} unchanged, {done.failed_count} failed; {done.chunk_count} chunks; "
        f"{stats.in_flight_count} answers under way, {stats.resumable_count} resumable"
    )


def _grids(stats: pb.GetStatsResponse) -> Iterator[Grid]:
    yield Grid(
        (
            *("mode", ">answers", ">failed", ">left", ">degraded", ">cached", ">tokens"),
            *(">p50", ">p95", ">p99", ">quality"),
        ),
        [
            (
                show_enum(pb.QueryMode, each.mode),
                str(each.query_count),
                str(each.failure_count),
                str(each.cancelled_count),
                str(each.degraded_count),
                str(each.cached_count),
                f"{each.usage.prompt_token_count} + {each.usage.completion_token_count}",
                show_duration(each, "answer_time_p50"),
                show_duration(each, "answer_time_p95"),
                show_duration(each, "answer_time_p99"),
                f"{each.mean_quality:.2f}" if each.HasField("mean_quality") else "-",
            )
            for each in stats.modes
        ],
    )
    yield Grid(
        ("stage", ">runs", ">failed", ">p50", ">p95", ">p99"),
        [
            (
                each.name,
                str(each.run_count),
                str(each.failure_count),
                show_duration(each, "duration_p50"),
                show_duration(each, "duration_p95"),
                show_duration(each, "duration_p99"),
            )
            for each in stats.stages
        ],
    )
    if stats.degradations:
        yield Grid(
            ("degradation", ">times"),
            [
                (show_enum(pb.DegradationReason, each.reason), str(each.count))
                for each in stats.degradations
            ],
        )
    if stats.tools:
        yield Grid(
            ("tool", ">calls", ">succeeded", ">p50", ">p95"),
            [
                (
                    each.name,
                    str(each.execution_count),
                    f"{each.success_ratio:.1%}" if each.HasField("success_ratio") else "-",
                    show_duration(each, "duration_p50"),
                    show_duration(each, "duration_p95"),
                )
                for each in stats.tools
            ],
        )


RAG_VIEW = StatsView(
    service="rag",
    make_stub=rag_service_pb2_grpc.RagServiceStub,
    request=pb.GetStatsRequest(),
    lines=_lines,
    notices=lambda _: (),
    grids=_grids,
)
"""What rag has counted."""
