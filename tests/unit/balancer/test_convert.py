"""Requests become ours whole, and every fault in them is named."""

import dataclasses

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.balancer import convert
from services.balancer.core.demand import Priority
from services.balancer.core.requests import (
    GenerationRequest,
    Message,
    Operation,
    OutputFormat,
    Role,
    Routing,
    Sampling,
    Thinking,
    ToolCall,
    ToolDefinition,
)
from services.common.errors import InvalidRequest

USER = generation_pb2.CHAT_ROLE_USER
ASSISTANT = generation_pb2.CHAT_ROLE_ASSISTANT
TOOL = generation_pb2.CHAT_ROLE_TOOL
Options = generation_pb2.SamplingOptions
PNG = b"\x89PNG\r\n\x1a\n..."
JPEG = b"\xff\xd8\xff..."
ROUTING = pb.RoutingOptions(
    priority=pb.PRIORITY_BATCH,
    model_digest="AB" * 32,
    resume=pb.RESUME_MODE_ONCE,
    maximum_wait=Duration(seconds=1, nanos=500_000_000),
)


def fields_refused(read, message):
    with pytest.raises(InvalidRequest) as caught:
        read(message)
    return [violation.field for violation in caught.value.violations]


def test_all_of_a_generation_becomes_ours():
    message = pb.GenerateRequest(
        model="m",
        prompt="p",
        sampling=Options(
            temperature=0,
            top_p=1,
            top_k=1,
            seed=0,
            max_output_token_count=1,
            context_token_count=256,
            stop_sequences=["s"],
            min_p=0,
            repeat_penalty=0,
            repeat_last_token_count=0,
            presence_penalty=0,
            frequency_penalty=0,
        ),
        suffix="after",
        raw=True,
        images=[PNG, JPEG],
        thinking=generation_pb2.THINKING_LEVEL_MAX,
        top_logprob_count=0,
        routing=ROUTING,
    )
    assert convert.generation_request(message) == GenerationRequest(
        operation=Operation.GENERATE,
        model="m",
        prompt="p",
        sampling=Sampling(
            temperature=0.0,
            top_p=1.0,
            top_k=1,
            seed=0,
            max_output_token_count=1,
            context_token_count=256,
            stop_sequences=("s",),
            min_p=0.0,
            repeat_penalty=0.0,
            repeat_last_token_count=0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
        ),
        suffix="after",
        raw=True,
        images=(PNG, JPEG),
        thinking=Thinking.MAX,
        top_logprob_count=0,
        routing=Routing(
            priority=Priority.BATCH,
            model_digest="ab" * 32,
            resume=True,
            maximum_wait_seconds=1.5,
        ),
    )


def test_all_of_a_conversation_becomes_ours():
    message = pb.ChatRequest(
        model="m",
        messages=[
            {"role": USER, "images": [PNG]},
            {
                "role": ASSISTANT,
                "thinking": "hm",
                "tool_calls": [{"id": "c", "name": "t", "arguments_json": '{"a": 1}'}],
            },
            {"role": TOOL, "content": "12", "tool_name": "t", "tool_call_id": "c"},
        ],
        tools=[{"name": "t", "description": "d", "parameters_json_schema": "{}"}],
        format={"json_schema": '{"type": "object"}'},
        thinking=generation_pb2.THINKING_LEVEL_OFF,
        top_logprob_count=20,
    )
    assert convert.chat_request(message) == GenerationRequest(
        operation=Operation.CHAT,
        model="m",
        messages=(
            Message(role=Role.USER, content="", images=(PNG,)),
            Message(
                role=Role.ASSISTANT,
                content="",
                thinking="hm",
                tool_calls=(ToolCall(id="c", name="t", arguments_json='{"a": 1}'),),
            ),
            Message(role=Role.TOOL, content="12", tool_name="t", tool_call_id="c"),
        ),
        tools=(ToolDefinition(name="t", description="d", parameters_json_schema="{}"),),
        output_format=OutputFormat('{"type": "object"}'),
        thinking=Thinking.OFF,
        top_logprob_count=20,
    )


def test_what_is_not_said_is_left_open():
    request = convert.generation_request(pb.GenerateRequest(model="m", prompt="p"))
    assert request == GenerationRequest(operation=Operation.GENERATE, model="m", prompt="p")
    request = convert.chat_request(
        pb.ChatRequest(model="m", messages=[{"role": USER, "content": "a"}], format={"json": True})
    )
    assert request.output_format == OutputFormat()
    assert request.routing == Routing(priority=Priority.INTERACTIVE)


def test_every_level_of_thinking_has_its_counterpart():
    levels = generation_pb2.ThinkingLevel.DESCRIPTOR.values_by_name
    for name, value in levels.items():
        message = pb.GenerateRequest(model="m", prompt="p", thinking=value.number)
        level = convert.generation_request(message).thinking.name
        assert name == f"THINKING_LEVEL_{level.replace('DEFAULT', 'UNSPECIFIED')}"


def test_all_of_a_request_for_vectors_becomes_ours():
    message = pb.EmbedRequest(model="m", texts=["a", "b"], dimension=3, routing=ROUTING)
    request = convert.embedding_request(message)
    assert (request.texts, request.dimension) == (("a", "b"), 3)
    assert request.routing.priority is Priority.BATCH
    assert convert.embedding_request(pb.EmbedRequest(model="m", texts=["a"])).dimension is None


def test_all_faults_of_a_generation_are_named_at_once():
    message = pb.GenerateRequest(
        system="s" * 100_001,
        sampling=Options(temperature=2.1, stop_sequences=[""]),
        suffix="s" * 1_000_001,
        raw=True,
        images=[b"GIF89a"],
        format={},
        thinking=99,
        top_logprob_count=21,
        routing=pb.RoutingOptions(
            priority=99, model_digest="x", resume=99, maximum_wait=Duration()
        ),
    )
    assert fields_refused(convert.generation_request, message) == [
        "model",
        "prompt",
        "system",
        "suffix",
        "system",
        "images[0]",
        "sampling.temperature",
        "sampling.stop_sequences[0]",
        "format",
        "thinking",
        "top_logprob_count",
        "routing.priority",
        "routing.model_digest",
        "routing.resume",
        "routing.maximum_wait",
    ]


def test_all_faults_of_a_conversation_are_named_at_once():
    message = pb.ChatRequest(
        model="not a name",
        messages=[
            {"content": "a"},
            {"role": USER},
            {"role": 99, "content": "c"},
            {"role": USER, "content": "d", "thinking": "t", "tool_name": "n"},
        ],
        tools=[{"parameters_json_schema": "[]"}],
        format={"json_schema": "{"},
        routing=pb.RoutingOptions(resume=pb.RESUME_MODE_ONCE),
    )
    assert fields_refused(convert.chat_request, message) == [
        "model",
        "messages[0].role",
        "messages[1].content",
        "messages[2].role",
        "messages[3].thinking",
        "messages[3].tool_name",
        "tools[0].name",
        "tools[0].parameters_json_schema",
        "format.json_schema",
        "routing.resume",
    ]


def test_all_faults_of_a_request_for_vectors_are_named_at_once():
    message = pb.EmbedRequest(texts=[""], dimension=0, routing=pb.RoutingOptions(priority=99))
    assert fields_refused(convert.embedding_request, message) == [
        "model",
        "texts[0]",
        "dimension",
        "routing.priority",
    ]


@pytest.mark.parametrize(
    "structure",
    [
        {"tools": [{"name": "t", "parameters_json_schema": "{}"}]},
        {"format": {"json": True}},
        {"format": {"json_schema": "{}"}},
    ],
)
def test_an_answer_with_a_structure_cannot_be_resumed(structure):
    said = [{"role": USER, "content": "a"}]
    once = pb.RoutingOptions(resume=pb.RESUME_MODE_ONCE)
    message = pb.ChatRequest(model="m", messages=said, routing=once, **structure)
    assert fields_refused(convert.chat_request, message) == ["routing.resume"]
    never = pb.RoutingOptions(resume=pb.RESUME_MODE_NEVER)
    convert.chat_request(pb.ChatRequest(model="m", messages=said, routing=never, **structure))
    if "format" in structure:
        message = pb.GenerateRequest(model="m", prompt="p", routing=once, **structure)
        assert fields_refused(convert.generation_request, message) == ["routing.resume"]


def test_page_size_is_filled_in_and_cut_but_not_negative():
    assert convert.page_size(pb.ListModelsRequest()) == 100
    assert convert.page_size(pb.ListModelsRequest(page_size=5)) == 5
    assert convert.page_size(pb.ListModelsRequest(page_size=5000)) == 1000
    assert fields_refused(convert.page_size, pb.ListModelsRequest(page_size=-1)) == ["page_size"]


def test_every_sampling_option_has_its_counterpart():
    ours = {field.name for field in dataclasses.fields(Sampling)}
    assert ours == {field.name for field in Options.DESCRIPTOR.fields}
