"""Everything a request says reaches the body, and nothing else does."""

from base64 import b64decode, b64encode
from dataclasses import replace

import orjson
import pytest

from services.balancer.adapters import wire_requests
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

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
GENERATE = GenerationRequest(operation=Operation.GENERATE, model="m", prompt="p")
CHAT = GenerationRequest(
    operation=Operation.CHAT, model="m", messages=(Message(role=Role.USER, content="hi"),)
)


def raw_body(request, **arguments):
    arguments = {"keep_alive": None, "context_token_count": None} | arguments
    return wire_requests.generation_body(request, "m:latest", **arguments)


def body(request, **arguments):
    return orjson.loads(raw_body(request, **arguments))


def test_what_is_not_set_is_not_sent():
    assert body(GENERATE) == {"model": "m:latest", "stream": True, "prompt": "p"}
    assert body(CHAT) == {
        "model": "m:latest",
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_sampling_becomes_options():
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=4,
        min_p=0.0,
        seed=-1,
        max_output_token_count=9,
        stop_sequences=("x", "y"),
        repeat_penalty=0.0,
        repeat_last_token_count=0,
        presence_penalty=0.0,
        frequency_penalty=-2.0,
    )
    assert body(replace(GENERATE, sampling=sampling))["options"] == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 4,
        "min_p": 0.0,
        "seed": -1,
        "num_predict": 9,
        "stop": ["x", "y"],
        "repeat_penalty": 0.0,
        "repeat_last_n": 0,
        "presence_penalty": 0.0,
        "frequency_penalty": -2.0,
    }


@pytest.mark.parametrize("request_", [GENERATE, CHAT])
def test_the_context_window_is_the_balancers_and_never_the_callers(request_):
    request_ = replace(request_, sampling=Sampling(context_token_count=512))
    assert "options" not in body(request_)
    assert body(request_, context_token_count=8192)["options"] == {"num_ctx": 8192}


@pytest.mark.parametrize("keep_alive", ["30m", 600, -1, 0])
def test_the_balancer_says_how_long_a_model_stays(keep_alive):
    assert body(GENERATE, keep_alive=keep_alive)["keep_alive"] == keep_alive
    assert body(CHAT, keep_alive=keep_alive)["keep_alive"] == keep_alive


def test_what_a_prompt_has_beside_it_is_sent_with_it():
    request = replace(GENERATE, system="s", suffix="after", images=(PNG, b"\xff\xd8\xff"))
    sent = body(request)
    assert (sent["system"], sent["suffix"]) == ("s", "after")
    assert [b64decode(image) for image in sent["images"]] == [PNG, b"\xff\xd8\xff"]
    assert body(replace(GENERATE, raw=True))["raw"] is True


@pytest.mark.parametrize("size", [1, 2, 3, 196_607, 196_608, 196_609, 400_000])
def test_images_of_any_size_arrive_as_they_were(size):
    image = bytes(index % 251 for index in range(size))
    (sent,) = body(replace(GENERATE, images=(image,)))["images"]
    assert sent == b64encode(image).decode()


def test_a_conversation_keeps_everything_that_was_said_in_it():
    call = ToolCall(id="call_1", name="weather", arguments_json='{"city":"Oslo"}')
    messages = (
        Message(role=Role.SYSTEM, content="be brief"),
        Message(role=Role.USER, content="", images=(PNG,)),
        Message(role=Role.ASSISTANT, content="", thinking="hm", tool_calls=(call, call)),
        Message(role=Role.TOOL, content="12", tool_name="weather", tool_call_id="call_1"),
    )
    function = {"name": "weather", "arguments": {"city": "Oslo"}}
    assert body(replace(CHAT, messages=messages))["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "", "images": [b64encode(PNG).decode()]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "call_1", "function": {"index": 0} | function},
                {"id": "call_1", "function": {"index": 1} | function},
            ],
        },
        {"role": "tool", "content": "12", "tool_name": "weather", "tool_call_id": "call_1"},
    ]


def test_json_of_the_caller_goes_out_as_it_came():
    text = '{ "z": 123456789012345678901234567890, "a": 1.10, "ä": "\\u00fc" }'
    tool = ToolDefinition(name="t", description="d", parameters_json_schema=text)
    call = ToolCall(name="t", arguments_json=text)
    said = Message(role=Role.ASSISTANT, content="", tool_calls=(call,))
    sent = raw_body(
        replace(CHAT, messages=(said,), tools=(tool,), output_format=OutputFormat(text))
    )
    assert sent.count(text.encode()) == 3


def test_tools_are_functions():
    tool = ToolDefinition(name="t", parameters_json_schema='{"type":"object"}')
    assert body(replace(CHAT, tools=(tool, replace(tool, description="d"))))["tools"] == [
        {"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}},
        {
            "type": "function",
            "function": {"name": "t", "description": "d", "parameters": {"type": "object"}},
        },
    ]


@pytest.mark.parametrize("request_", [GENERATE, CHAT])
def test_a_format_is_json_or_a_schema(request_):
    assert body(replace(request_, output_format=OutputFormat()))["format"] == "json"
    schema = replace(request_, output_format=OutputFormat('{"type":"array"}'))
    assert body(schema)["format"] == {"type": "array"}


@pytest.mark.parametrize("request_", [GENERATE, CHAT])
def test_thinking_is_as_ollama_has_it(request_):
    sent = {level: body(replace(request_, thinking=level)).get("think") for level in Thinking}
    assert sent == {
        Thinking.DEFAULT: None,
        Thinking.OFF: False,
        Thinking.ON: True,
        Thinking.LOW: "low",
        Thinking.MEDIUM: "medium",
        Thinking.HIGH: "high",
        Thinking.MAX: "max",
    }


@pytest.mark.parametrize("request_", [GENERATE, CHAT])
def test_probabilities_may_be_asked_for_without_alternatives(request_):
    assert "logprobs" not in body(request_)
    sent = body(replace(request_, top_logprob_count=0))
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 0)
    sent = body(replace(request_, top_logprob_count=20))
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 20)


def test_how_a_request_is_treated_is_no_business_of_the_server():
    routing = Routing(model_digest="1" * 64, resume=True, maximum_wait_seconds=3.0)
    assert body(replace(CHAT, routing=routing)) == body(CHAT)


def test_a_chat_goes_on_from_the_beginning_of_its_answer():
    sent = body(CHAT, continuation="Once upon")
    assert sent["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Once upon"},
    ]


def test_a_beginning_that_the_caller_gave_stays_one_message():
    begun = (*CHAT.messages, Message(role=Role.ASSISTANT, content="Once "))
    sent = body(replace(CHAT, messages=begun), continuation="upon")
    assert sent["messages"][1:] == [{"role": "assistant", "content": "Once upon"}]


def test_a_raw_prompt_goes_on_from_the_beginning_of_its_answer():
    assert body(replace(GENERATE, raw=True), continuation=" q")["prompt"] == "p q"


def test_the_size_of_images_is_that_of_all_of_them():
    assert wire_requests.image_bytes(CHAT) == 0
    assert wire_requests.image_bytes(replace(GENERATE, images=(b"12", b"3"))) == 3
    message = Message(role=Role.USER, content="", images=(b"1234",))
    assert wire_requests.image_bytes(replace(CHAT, messages=(message, message))) == 8


def test_texts_are_embedded_whole_or_cut_and_for_as_long_as_the_balancer_says():
    def sent(**arguments):
        arguments = {"keep_alive": None, "dimension": None} | arguments
        return orjson.loads(wire_requests.embedding_body(["a", "b"], "m", **arguments))

    plain = {"model": "m", "input": ["a", "b"], "truncate": True}
    assert sent() == plain
    assert sent(dimension=3, keep_alive=-1) == plain | {"dimensions": 3, "keep_alive": -1}
