"""`pannier ask` against a service whose answers are written down here."""

import json
import signal
from typing import Any

import grpc
import pytest

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import quality_pb2, tool_pb2
from pannier.rag.v1 import rag_service_pb2 as pb


def completed(**fields: Any) -> pb.QueryResponse:
    citation = pb.Citation(
        marker=1,
        document_id="guide.md",
        title="Guide",
        char_start=10,
        char_end=40,
        quote="Llamas carry\nup to 30 kg.",
    )
    defaults: dict[str, Any] = {
        "answer": "Up to 30 kg [1].",
        "citations": [citation],
        "origin": pb.ANSWER_ORIGIN_GENERATED,
        "model": "llama3.2:latest",
        "backend_id": "127.0.0.1:11501",
        "usage": generation_pb2.TokenUsage(prompt_token_count=120, completion_token_count=9),
    }
    return pb.QueryResponse(**(defaults | fields))


def events(*texts: str, last: pb.QueryResponse | None = None) -> list[pb.StreamQueryResponse]:
    stream = [pb.StreamQueryResponse(started=pb.QueryStarted(mode=pb.QUERY_MODE_RAG))]
    stream += [pb.StreamQueryResponse(text_delta=text) for text in texts]
    return [*stream, pb.StreamQueryResponse(completed=last or completed())]


@pytest.fixture
def asked(services):
    """The requests that arrived; each is answered with a short answer."""
    requests: list[pb.QueryRequest] = []

    def answer(request, _context):
        requests.append(request.query)
        yield from events("Up to ", "30 kg [1].")

    services.answers["StreamQuery"] = answer
    return requests


def test_an_answer_is_shown_with_its_citations_and_where_it_came_from(services, asked):
    result = services.run("ask", "How much?", "-c", "animals")
    assert result.exit_code == 0
    assert result.stdout.startswith("Up to 30 kg [1].\n")
    assert "Guide  guide.md       10-40  Llamas carry up to 30 kg." in result.stdout
    footer = result.stdout.splitlines()[-1]
    assert footer.startswith("generated · llama3.2:latest · on 127.0.0.1:11501 · 120 + 9 tokens")
    assert " · first text " in footer
    assert " · total " in footer


def test_the_request_says_what_the_options_say(services, asked):
    services.run("ask", "How much?", "-c", "animals", "--model", "m", "--no-cache")
    assert asked == [
        pb.QueryRequest(
            collection="animals",
            query="How much?",
            model="m",
            mode=pb.QUERY_MODE_RAG,
            cache_policy=pb.CACHE_POLICY_BYPASS,
        )
    ]


def test_all_that_can_be_asked_for_is_asked_for(services, asked, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    services.run(
        *("ask", "How much?", "-c", "animals", "--mode", "deep", "--policy", "knowledge"),
        *("--web", "never", "--json-schema", f"@{schema}", "--tag", "guide"),
    )
    (request,) = asked
    assert request.mode == pb.QUERY_MODE_DEEP
    assert request.answer_policy == pb.ANSWER_POLICY_ALLOW_MODEL_KNOWLEDGE
    assert request.web == pb.WEB_POLICY_NEVER
    assert request.output_format.json_schema == '{"type": "object"}'
    assert request.retrieval.filter.any_tags == ["guide"]


def test_a_schema_that_cannot_be_read_is_said(services, asked):
    result = services.run("ask", "How much?", "--json-schema", "@/nowhere/at/all")
    assert result.exit_code != 0
    assert "cannot be read" in result.stderr
    assert not asked


def test_quality_and_the_support_of_each_sentence_are_shown(services):
    last = completed(
        answer="Up to 30 kg [1]. They weigh 400 kg.",
        sentences=[
            quality_pb2.SentenceSupport(
                answer_char_start=0,
                answer_char_end=16,
                status=quality_pb2.SUPPORT_STATUS_SUPPORTED,
                support_ratio=0.9,
                marker=1,
                citation_added=True,
            ),
            quality_pb2.SentenceSupport(
                answer_char_start=17,
                answer_char_end=35,
                status=quality_pb2.SUPPORT_STATUS_NUMBER_MISMATCH,
                support_ratio=0.3,
                unfounded=["400 kg"],
            ),
        ],
        quality=quality_pb2.AnswerQuality(score=0.71, groundedness=0.5),
    )
    services.answers["StreamQuery"] = lambda _request, _context: iter(events("x", last=last))
    result = services.run("ask", "How much?")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "supported 0.90 [1]+ Up to 30 kg [1]." in lines
    assert "wrong number 0.30 They weigh 400 kg. (not in the sources: 400 kg)" in lines
    assert any(line.startswith("quality 0.71 (") and "grounded 50%" in line for line in lines)


def test_the_tools_that_a_model_has_asked_for_are_shown(services):
    last = completed(
        tool_executions=[
            tool_pb2.ToolExecution(
                name="calculator",
                arguments_json='{"expression": "1 + 1"}',
                outcome=tool_pb2.TOOL_OUTCOME_SUCCESS,
                summary="2",
                step=1,
            ),
            tool_pb2.ToolExecution(name="new", outcome=99, step=2),
        ]
    )
    services.answers["StreamQuery"] = lambda _request, _context: iter(events("x", last=last))
    result = services.run("ask", "How much?", "--mode", "agent")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert any(
        line.startswith('1 calculator {"expression": "1 + 1"} success') and line.endswith(" 2")
        for line in lines
    )
    assert any(line.startswith("2 new") and "99" in line for line in lines)


def test_a_refusal_is_said_plainly(services):
    last = completed(answer="Nothing.", citations=[], origin=pb.ANSWER_ORIGIN_REFUSED)
    services.answers["StreamQuery"] = lambda _request, _context: iter(events("Nothing.", last=last))
    result = services.run("ask", "How much?")
    assert "refused" in result.stderr
    assert "refused" in result.stdout.splitlines()[-1]


def test_the_direct_mode_names_no_collection(services, asked):
    services.run("ask", "Hello", "--mode", "direct")
    assert (asked[0].mode, asked[0].collection) == (pb.QUERY_MODE_DIRECT, "")


def test_every_call_has_a_tenant_a_sampled_trace_and_a_deadline(services, asked):
    services.run("ask", "How much?", "--tenant", "acme", "--timeout", "7000")
    assert services.metadata["x-pannier-tenant-id"] == "acme"
    assert str(services.metadata["traceparent"]).endswith("-01")
    # gRPC rounds what it sends up by as much as 1 %, and some of it passes on the way.
    assert services.deadlines == [pytest.approx(7000, rel=0.02)]


def test_json_is_one_document_with_numbers(services, asked):
    result = services.run("ask", "How much?", "--json")
    document = json.loads(result.stdout)
    assert document["answer"] == "Up to 30 kg [1]."
    assert document["usage"]["completion_token_count"] == 9
    assert document["citations"][0]["char_end"] == 40
    assert document["total_seconds"] >= document["first_text_seconds"] > 0
    assert len(document["trace_id"]) == 32


def test_degradations_and_warnings_are_said_plainly(services):
    last = completed(
        origin=pb.ANSWER_ORIGIN_EXTRACTIVE,
        model="",
        backend_id="",
        degradations=[
            pb.Degradation(
                reason=pb.DEGRADATION_REASON_MODEL_UNAVAILABLE, stage="generate", detail="no model"
            )
        ],
        warnings=["marker [7] names no passage"],
    )
    services.answers["StreamQuery"] = lambda _request, _context: iter(events("x", last=last))
    result = services.run("ask", "How much?")
    assert "degraded: model unavailable: generate: no model" in result.stderr
    assert "warning: marker [7] names no passage" in result.stderr
    assert "extractive" in result.stdout.splitlines()[-1]


def test_an_answer_cannot_steer_the_terminal(services):
    stream = events("\x1b[2Jgone", last=completed(citations=[]))
    services.answers["StreamQuery"] = lambda _request, _context: iter(stream)
    result = services.run("ask", "How much?")
    assert "\x1b" not in result.stdout
    assert "gone" in result.stdout


def test_a_stream_that_ends_without_its_end_is_a_failure(services):
    stream = [pb.StreamQueryResponse(text_delta="Up")]
    services.answers["StreamQuery"] = lambda _request, _context: iter(stream)
    result = services.run("ask", "How much?")
    assert result.exit_code == 1
    assert "ended before it was complete" in result.stderr


def test_a_refused_call_says_why_and_what_to_do(services, refuse):
    services.answers["StreamQuery"] = lambda _request, context: refuse(
        context, grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", "There is no 'animals'."
    )
    result = services.run("ask", "How much?", "-c", "animals")
    assert result.exit_code == 1
    assert "COLLECTION_NOT_FOUND (rag.pannier): There is no 'animals'." in result.stderr
    assert "`pannier collections`" in result.stderr
    assert result.stdout == ""


def test_a_service_that_is_away_is_named_with_what_to_do(services):
    services.address = "127.0.0.1:1"
    result = services.run("ask", "How much?")
    assert result.exit_code == 2
    assert result.stderr == ("rag is not reachable at 127.0.0.1:1; start it with `pannier up`\n")


def test_an_unknown_mode_is_refused_before_any_call(services):
    result = services.run("ask", "How much?", "--mode", "guess")
    assert result.exit_code == 2
    assert services.deadlines == []


def test_ctrl_c_cancels_the_call_and_leaves_no_traceback(services):
    def hang(_request, context):
        context.add_callback(services.cancelled.set)
        yield pb.StreamQueryResponse(text_delta="Well")
        services.cancelled.wait(20)

    services.answers["StreamQuery"] = hang
    with services.start("ask", "How much?") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(4) == "Well"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == "interrupted\n"
    assert services.cancelled.wait(10)
