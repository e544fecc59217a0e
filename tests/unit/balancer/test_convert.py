import math

import numpy as np
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.balancer import convert
from services.balancer.core.requests import (
    Completed,
    Completion,
    EmbeddingResult,
    FinishReason,
    Message,
    Role,
    Sampling,
    Started,
    TextDelta,
)
from services.balancer.core.selection import Reason
from services.common.errors import InvalidRequest

USER = generation_pb2.CHAT_ROLE_USER
Options = generation_pb2.SamplingOptions


def fields_refused(read, message):
    with pytest.raises(InvalidRequest) as caught:
        read(message)
    return [violation.field for violation in caught.value.violations]


def test_all_faults_of_a_generation_are_named_at_once():
    message = pb.GenerateRequest(
        system="s" * 100_001,
        sampling=Options(
            temperature=2.1,
            top_p=0.0,
            top_k=0,
            max_output_token_count=0,
            context_token_count=255,
            stop_sequences=["", *"123456789"],
        ),
    )
    assert fields_refused(convert.generation_request, message) == [
        "model",
        "prompt",
        "system",
        "sampling.temperature",
        "sampling.top_p",
        "sampling.top_k",
        "sampling.max_output_token_count",
        "sampling.context_token_count",
        "sampling.stop_sequences",
        "sampling.stop_sequences[0]",
    ]


@pytest.mark.parametrize("number", [math.nan, math.inf, -0.1, 2.1])
def test_a_temperature_out_of_range_is_refused(number):
    message = pb.GenerateRequest(model="m", prompt="p", sampling=Options(temperature=number))
    assert fields_refused(convert.generation_request, message) == ["sampling.temperature"]


@pytest.mark.parametrize("number", [math.nan, math.inf, 0.0, 1.1])
def test_a_top_p_out_of_range_is_refused(number):
    message = pb.GenerateRequest(model="m", prompt="p", sampling=Options(top_p=number))
    assert fields_refused(convert.generation_request, message) == ["sampling.top_p"]


def test_limits_themselves_are_allowed_and_zero_is_told_from_absent():
    message = pb.GenerateRequest(
        model="m",
        prompt="p" * 1_000_000,
        system="s" * 100_000,
        sampling=Options(temperature=0, top_p=1, top_k=1, context_token_count=256, seed=0),
    )
    request = convert.generation_request(message)
    assert request.sampling == Sampling(
        temperature=0.0, top_p=1.0, top_k=1, context_token_count=256, seed=0
    )


def test_a_prompt_beyond_the_limit_is_refused():
    message = pb.GenerateRequest(model="m", prompt="p" * 1_000_001)
    assert fields_refused(convert.generation_request, message) == ["prompt"]


def test_messages_without_speaker_or_content_are_refused_each():
    message = pb.ChatRequest(
        model="not a name",
        messages=[{"content": "a"}, {"role": USER}, {"role": 99, "content": "c"}],
    )
    assert fields_refused(convert.chat_request, message) == [
        "model",
        "messages[0].role",
        "messages[1].content",
        "messages[2].role",
    ]


def test_a_conversation_has_1_to_256_messages_of_a_million_characters():
    one = {"role": USER, "content": "a"}
    assert fields_refused(convert.chat_request, pb.ChatRequest(model="m")) == ["messages"]
    many = pb.ChatRequest(model="m", messages=[one] * 257)
    assert fields_refused(convert.chat_request, many) == ["messages"]
    long = pb.ChatRequest(model="m", messages=[{"role": USER, "content": "a" * 500_001}] * 2)
    assert fields_refused(convert.chat_request, long) == ["messages"]
    request = convert.chat_request(pb.ChatRequest(model="m", messages=[one] * 256))
    assert request.messages == (Message(role=Role.USER, content="a"),) * 256


def test_texts_are_1_to_512_and_none_is_empty():
    assert fields_refused(convert.embedding_request, pb.EmbedRequest(model="m")) == ["texts"]
    message = pb.EmbedRequest(model="m", texts=["a", "", "x" * 100_001])
    assert fields_refused(convert.embedding_request, message) == ["texts[1]", "texts[2]"]
    message = pb.EmbedRequest(model="m", texts=["a"] * 513)
    assert fields_refused(convert.embedding_request, message) == ["texts"]
    assert convert.embedding_request(pb.EmbedRequest(model="m", texts=["ab"])).texts == ("ab",)


def test_page_size_is_filled_in_and_cut_but_not_negative():
    assert convert.page_size(pb.ListModelsRequest()) == 100
    assert convert.page_size(pb.ListModelsRequest(page_size=5)) == 5
    assert convert.page_size(pb.ListModelsRequest(page_size=5000)) == 1000
    assert fields_refused(convert.page_size, pb.ListModelsRequest(page_size=-1)) == ["page_size"]


def test_events_become_the_one_field_that_is_theirs():
    started = Started(
        model="m:latest",
        model_digest="d",
        backend_id="b",
        attempt_count=2,
        reason=Reason.ROUND_ROBIN_FALLBACK,
    )
    message = convert.fill_event(pb.GenerateResponse(), started)
    assert message.started.routing_reason == pb.ROUTING_REASON_ROUND_ROBIN_FALLBACK
    assert message.started.attempt_count == 2
    assert convert.fill_event(pb.ChatResponse(), TextDelta("ä")).text_delta == "ä"
    completion = Completion(
        finish_reason=FinishReason.LENGTH,
        prompt_token_count=3,
        output_token_count=4,
        load_seconds=0.5,
        prompt_seconds=0.25,
        output_seconds=1.5,
    )
    completed = Completed(completion=completion, total_seconds=2.5, first_token_seconds=1.0)
    message = convert.fill_event(pb.ChatResponse(), completed)
    assert message.WhichOneof("event") == "completed"
    assert message.completed.finish_reason == generation_pb2.FINISH_REASON_LENGTH
    assert message.completed.timings.total.ToMilliseconds() == 2500
    assert message.completed.timings.generation.ToMilliseconds() == 1500
    assert message.completed.usage.completion_token_count == 4


def test_every_reason_has_its_counterpart():
    for reason in Reason:
        started = Started(model="", model_digest="", backend_id="", attempt_count=1, reason=reason)
        message = convert.fill_event(pb.ChatResponse(), started)
        name = pb.RoutingReason.Name(message.started.routing_reason)
        assert name == f"ROUTING_REASON_{reason.name}"


def test_vectors_travel_as_little_endian_float32():
    result = EmbeddingResult(
        vectors=np.asarray([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32),
        model="m:latest",
        model_digest="d",
        backend_id="b",
        attempt_count=1,
        prompt_token_count=7,
    )
    message = convert.embed_response(result)
    assert [vector.dimension for vector in message.vectors] == [2, 2]
    assert np.frombuffer(message.vectors[0].float32_le, "<f4").tolist() == pytest.approx([0.6, 0.8])
    assert message.usage.prompt_token_count == 7
