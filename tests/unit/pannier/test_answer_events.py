"""What is shown of an answer while it comes, and where it breaks off."""

import io

import grpc
import pytest
from rich.console import Console

from pannier.client import TraceContext
from pannier.commands.answer_events import Answer, describe_stages, read_answer
from pannier.commands.output import Output
from pannier.rag.v1 import rag_service_pb2 as pb


def progress(stage, state=pb.PROGRESS_STATE_STARTED):
    return pb.StreamQueryResponse(progress=pb.QueryProgress(stage=stage, state=state))


def text(value):
    return pb.StreamQueryResponse(text_delta=value)


def failed(partial=""):
    return pb.StreamQueryResponse(
        failed=pb.QueryFailed(
            reason="STREAM_INTERRUPTED", message="It broke off.", partial_answer=partial
        )
    )


async def shown(*events, terminal=False):
    """Reads events; returns the answer, what was shown as result, and what beside it."""

    async def stream():
        for event in events:
            yield event

    results, beside = io.StringIO(), io.StringIO()
    output = Output(
        Console(file=results, width=100),
        Console(file=beside, width=100, force_terminal=terminal, color_system=None),
    )
    answer = Answer(TraceContext.new())
    await read_answer(stream(), answer, output, started=0.0)
    return answer, results.getvalue(), beside.getvalue()


async def test_the_text_is_all_that_is_shown_where_nobody_watches():
    events = [progress("generate"), text("Be"), text("cause."), progress("verify")]
    answer, results, beside = await shown(
        *events, pb.StreamQueryResponse(completed=pb.QueryResponse(answer="Because."))
    )
    assert (results, beside) == ("Because.\n", "")
    assert (answer.text, answer.completed.answer) == ("Because.", "Because.")
    assert answer.total_seconds >= answer.first_text_seconds


async def test_on_a_terminal_a_line_says_what_is_waited_for():
    _, results, beside = await shown(progress("embed_question"), text("x"), terminal=True)
    assert results == "x\n"
    assert "embedding the question" in beside


async def test_a_heartbeat_says_for_how_long():
    beat = pb.StreamQueryResponse(heartbeat=pb.QueryHeartbeat())
    _, _, beside = await shown(progress("generate"), beat, terminal=True)
    assert "waiting for the model for " in beside


async def test_an_answer_that_breaks_off_is_shown_as_far_as_it_got():
    answer, results, beside = await shown(text("Be"), failed("Be"))
    assert results == "Be\n"
    assert "broke off after 2 characters" in beside
    assert answer.failed.reason == "STREAM_INTERRUPTED"


async def test_the_partial_text_is_shown_where_its_events_were_lost():
    answer, results, _ = await shown(failed("Be"))
    assert (results, answer.text) == ("Be\n", "Be")


async def test_a_failure_without_text_shows_none():
    assert (await shown(failed()))[1:] == ("", "")


def test_stages_are_described_in_words_each_once():
    assert describe_stages(["query_lookup", "semantic_lookup", "fuse"]) == "asking the cache, fuse"
    assert describe_stages(["some_new_stage"]) == "some new stage"


@pytest.mark.parametrize("partial", ["Up to", ""])
def test_a_failure_is_told_after_the_partial_text(services, refuse, partial):
    def answer(_request, context):
        if partial:
            yield text(partial)
        yield failed(partial)
        refuse(context, grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED", "It broke off.")

    services.answers["StreamQuery"] = answer
    result = services.run("ask", "How much?")
    assert result.exit_code == 1
    assert result.stdout == (f"{partial}\n" if partial else "")
    assert "STREAM_INTERRUPTED (rag.pannier): It broke off." in result.stderr
