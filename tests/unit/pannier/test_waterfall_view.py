"""What is shown of a trace."""

import io

from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from pannier.commands.output import Output
from pannier.commands.spans import Span
from pannier.commands.traces import FetchedTrace
from pannier.commands.waterfall_view import show_waterfall
from pannier.rag.v1 import rag_service_pb2 as pb


def span(span_id, name, start, end, parent_id="call"):
    return Span(
        span_id=span_id,
        parent_id=parent_id,
        service="rag",
        name=name,
        start_nanoseconds=start,
        end_nanoseconds=end,
        attributes={},
    )


TRACE = FetchedTrace(
    (
        span("call", "StreamQuery", 0, 100, ""),
        span("a", "rag.vector_search", 0, 60),
        span("b", "rag.vector_search", 10, 30),
        span("c", "rag.keyword_search", 0, 20),
    ),
    (),
)
PROFILE = pb.Profile(
    stages=[
        pb.ProfileStage(name="vector_search", on_critical_path=True),
        pb.ProfileStage(name="keyword_search"),
        pb.ProfileStage(name="vector_search"),
        pb.ProfileStage(name="generate", on_critical_path=True),
    ],
    total=Duration(nanos=100_000_000),
    critical_path=Duration(nanos=60_000_000),
    parallel_saving=Duration(nanos=40_000_000),
    bottlenecks=["vector_search"],
    advice=["Ask for fewer candidates."],
)


def shown(*arguments):
    results = io.StringIO()
    output = Output(Console(file=results, width=160), Console(file=io.StringIO()))
    show_waterfall(output, *arguments)
    return results.getvalue()


def test_the_stages_on_the_critical_path_are_marked():
    marked = [line.split()[1] for line in shown(TRACE, PROFILE).splitlines() if "◆ " in line[20:]]
    assert marked == ["rag.vector_search"]


def test_the_critical_path_and_what_to_do_about_it_are_told():
    lines = shown(TRACE, PROFILE).splitlines()
    assert lines[-2].startswith("◆ critical path 60")
    assert "saved 40" in lines[-2]
    assert lines[-2].endswith("most of it vector_search")
    assert lines[-1] == "advice: Ask for fewer candidates."


def test_without_a_profile_nothing_is_marked():
    assert "◆" not in shown(TRACE)
