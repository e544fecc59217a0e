"""`pannier ask` against a service whose answers are written down here."""

import json
import signal
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.common.v1 import generation_pb2
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


def test_retrieve_shows_passages_with_ranks(services):
    passage = pb.Passage(
        marker=1,
        document_id="guide.md",
        text="Llamas carry up to 30 kg.",
        char_start=10,
        char_end=35,
        score=pb.PassageScore(fused_score=0.9, vector_rank=2),
    )
    profile = pb.Profile(total=Duration(nanos=5_000_000))
    response = pb.RetrieveResponse(passages=[passage], profile=profile)
    services.answers["Retrieve"] = lambda _request, _context: response
    result = services.run("retrieve", "How much?", "-k", "3")
    assert "1  0.900        2      -  guide.md       10-35  Llamas carry" in result.stdout
    assert "1 passages in 5.00 ms" in result.stdout


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
