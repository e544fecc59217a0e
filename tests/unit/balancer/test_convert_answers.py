import numpy as np
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.balancer.convert_answers import duration, embed_response, fill_event
from services.balancer.core.plan import Reason
from services.balancer.core.requests import (
    Completed,
    Completion,
    EmbeddingResult,
    FinishReason,
    LogprobsDelta,
    Resumed,
    Started,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    ToolCallsDelta,
)

BOTH = pytest.mark.parametrize("kind", [pb.GenerateResponse, pb.ChatResponse])


def started(**values):
    fields = {"model": "", "model_digest": "", "backend_id": "", "attempt_count": 1}
    return Started(**(fields | {"reason": Reason.ONLY_CANDIDATE} | values))


@BOTH
def test_the_start_tells_who_serves_and_why(kind):
    event = started(
        model="m:latest",
        model_digest="d",
        backend_id="b",
        attempt_count=2,
        reason=Reason.ROUND_ROBIN_FALLBACK,
        decision_id="17",
        queue_seconds=0.25,
        predicted_first_token_seconds=1.5,
        context_token_count=8192,
    )
    assert fill_event(kind(), event) == kind(
        started=pb.GenerationStarted(
            model="m:latest",
            model_digest="d",
            backend_id="b",
            attempt_count=2,
            routing_reason=pb.ROUTING_REASON_ROUND_ROBIN_FALLBACK,
            decision_id="17",
            queue_wait=duration(0.25),
            predicted_first_token=duration(1.5),
            context_token_count=8192,
        )
    )


def test_every_reason_has_its_counterpart():
    for reason in Reason:
        message = fill_event(pb.ChatResponse(), started(reason=reason))
        name = pb.RoutingReason.Name(message.started.routing_reason)
        assert name == f"ROUTING_REASON_{reason.name}"


@BOTH
def test_deltas_become_the_one_field_that_is_theirs(kind):
    assert fill_event(kind(), TextDelta("ä")) == kind(text_delta="ä")
    assert fill_event(kind(), ThinkingDelta("hm")) == kind(thinking_delta="hm")
    top = TokenLogprob(token="ä", logprob=-2.0, token_bytes=b"\xc3\xa4")
    token = TokenLogprob(token="\ufffd", logprob=-0.5, token_bytes=b"\xc3", top=(top,))
    message = generation_pb2.TokenLogprob(token="\ufffd", logprob=-0.5, token_bytes=b"\xc3")
    message.top.add(token="ä", logprob=-2.0, token_bytes=b"\xc3\xa4")
    assert fill_event(kind(), LogprobsDelta((token, token))) == kind(
        logprobs=pb.TokenLogprobs(tokens=[message, message])
    )


def test_tool_calls_are_told_in_order():
    calls = (
        ToolCall(id="1", name="a", arguments_json='{"n":1.10}'),
        ToolCall(name="b", arguments_json="{}"),
    )
    message = fill_event(pb.ChatResponse(), ToolCallsDelta(calls))
    assert [(each.id, each.name, each.arguments_json) for each in message.tool_calls.calls] == [
        ("1", "a", '{"n":1.10}'),
        ("", "b", "{}"),
    ]


@BOTH
def test_a_seam_is_told(kind):
    event = Resumed(backend_id="b", emitted_character_count=7, cause="gone")
    assert fill_event(kind(), event) == kind(
        resumed=pb.GenerationResumed(backend_id="b", emitted_character_count=7, cause="gone")
    )


@BOTH
def test_the_end_tells_what_was_used_and_where_the_time_went(kind):
    completion = Completion(
        finish_reason=FinishReason.LENGTH,
        prompt_token_count=3,
        output_token_count=4,
        load_seconds=0.5,
        prompt_seconds=0.25,
        output_seconds=1.5,
    )
    event = Completed(
        completion=completion, total_seconds=2.5, first_token_seconds=1.0, queue_seconds=0.125
    )
    completed = fill_event(kind(), event).completed
    assert completed.finish_reason == generation_pb2.FINISH_REASON_LENGTH
    assert completed.usage == generation_pb2.TokenUsage(
        prompt_token_count=3, completion_token_count=4
    )
    assert completed.timings == generation_pb2.GenerationTimings(
        total=duration(2.5),
        first_token=duration(1.0),
        model_load=duration(0.5),
        prompt_evaluation=duration(0.25),
        generation=duration(1.5),
        queue_wait=duration(0.125),
    )


def test_vectors_travel_as_little_endian_float32():
    result = EmbeddingResult(
        vectors=np.asarray([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32),
        model="m:latest",
        model_digest="d",
        backend_id="b",
        attempt_count=1,
        prompt_token_count=7,
        backend_ids=("a", "b"),
        duplicate_text_count=3,
        decision_ids=("f-1", "f-2"),
    )
    message = embed_response(result)
    assert message.decision_ids == ["f-1", "f-2"]
    assert [vector.dimension for vector in message.vectors] == [2, 2]
    assert np.frombuffer(message.vectors[0].float32_le, "<f4").tolist() == pytest.approx([0.6, 0.8])
    assert message.usage.prompt_token_count == 7
    assert (list(message.backend_ids), message.duplicate_text_count) == (["a", "b"], 3)
