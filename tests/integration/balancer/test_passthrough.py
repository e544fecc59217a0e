"""Everything in a request reaches the server, and everything in its answer comes back."""

import json
from base64 import b64decode, b64encode

import numpy as np
import orjson
import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.standin.core.profile import ModelSpec
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, running_standins

USER = generation_pb2.CHAT_ROLE_USER
ASSISTANT = generation_pb2.CHAT_ROLE_ASSISTANT
TOOL = generation_pb2.CHAT_ROLE_TOOL
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
JPEG = b"\xff\xd8\xff" + bytes(range(256))
SCHEMA = '{"type":"object","properties":{"z":{"type":"integer"},"a":{"type":"string"}}}'
SAMPLING = generation_pb2.SamplingOptions(
    temperature=0.5,
    top_p=0.75,
    top_k=7,
    seed=-1,
    max_output_token_count=9,
    stop_sequences=["x"],
    min_p=0.125,
    repeat_penalty=1.5,
    repeat_last_token_count=-1,
    presence_penalty=-0.5,
    frequency_penalty=0.5,
)
OPTIONS = {
    "temperature": 0.5,
    "top_p": 0.75,
    "top_k": 7,
    "seed": -1,
    "num_predict": 9,
    "stop": ["x"],
    "min_p": 0.125,
    "repeat_penalty": 1.5,
    "repeat_last_n": -1,
    "presence_penalty": -0.5,
    "frequency_penalty": 0.5,
}
FINAL = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 5}


def line(**values):
    return (
        orjson.dumps({"model": "m:latest", "created_at": "2026-11-21T00:00:00Z"} | values) + b"\n"
    )


def said(done=False, **message):
    final = FINAL if done else {"done": False}
    return line(message={"role": "assistant", "content": ""} | message, **final)


@pytest.fixture
async def server(scripted):
    """A backend with one model, in its memory."""
    server = await scripted()
    server.has("m:latest")
    loaded = {
        "name": "m:latest",
        "digest": "1" * 64,
        "size": 7,
        "context_length": 4096,
        "expires_at": "2319-01-01T00:00:00Z",
    }
    server.replies["/api/ps"] = lambda request: web.json_response({"models": [loaded]})
    return server


@pytest.fixture
async def balancer(run_balancer, server):
    return await run_balancer(server.url, maximum_request_bytes=32 * 1024 * 1024)


def only_body(server):
    """Returns the one body that asked for work, without what is the balancer's own."""
    (body,) = [
        body
        for body in server.bodies
        if body.get("messages") or body.get("prompt") or body.get("input")
    ]
    body.pop("keep_alive", None)
    options = body.pop("options", {})
    options.pop("num_ctx", None)
    return body | ({"options": options} if options else {})


async def deltas(call):
    """Returns what came between start and end."""
    started, *events, completed = [event async for event in call]
    assert started.WhichOneof("event") == "started"
    assert completed.WhichOneof("event") == "completed"
    return events


async def test_a_prompt_reaches_the_server_with_everything_beside_it(server, balancer):
    server.stream("/api/generate", line(response="a", **FINAL))
    await deltas(
        balancer.stub.Generate(
            pb.GenerateRequest(
                model="m",
                prompt="p",
                system="s",
                sampling=SAMPLING,
                suffix="after",
                images=[PNG, JPEG],
                format={"json": True},
                thinking=generation_pb2.THINKING_LEVEL_LOW,
                top_logprob_count=2,
            )
        )
    )
    assert only_body(server) == {
        "model": "m:latest",
        "stream": True,
        "prompt": "p",
        "system": "s",
        "suffix": "after",
        "images": [b64encode(PNG).decode(), b64encode(JPEG).decode()],
        "format": "json",
        "think": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "options": OPTIONS,
    }


async def test_the_context_window_is_the_balancers_and_never_the_callers(server, balancer):
    server.stream("/api/chat", said(done=True, content="a"))
    request = pb.ChatRequest(model="m", messages=[{"role": USER, "content": "a"}])
    request.sampling.context_token_count = 512
    await deltas(balancer.stub.Chat(request))
    # As the server has it loaded: anything else would load the model anew.
    (body,) = [body for body in server.bodies if body.get("messages")]
    assert body["options"] == {"num_ctx": 4096}
    assert body["keep_alive"]


async def test_a_raw_prompt_is_raw(server, balancer):
    server.stream("/api/generate", line(response="a", **FINAL))
    await deltas(balancer.stub.Generate(pb.GenerateRequest(model="m", prompt="p", raw=True)))
    assert only_body(server)["raw"] is True


async def test_a_conversation_reaches_the_server_with_everything_in_it(server, balancer):
    server.stream("/api/chat", said(done=True, content="a"))
    arguments = '{"z":123456789012345678901234567890,"a":1.5}'
    await deltas(
        balancer.stub.Chat(
            pb.ChatRequest(
                model="m",
                messages=[
                    {"role": generation_pb2.CHAT_ROLE_SYSTEM, "content": "be brief"},
                    {"role": USER, "content": "look", "images": [PNG]},
                    {
                        "role": ASSISTANT,
                        "thinking": "hm",
                        "tool_calls": [{"id": "c1", "name": "t", "arguments_json": arguments}],
                    },
                    {"role": TOOL, "content": "12", "tool_name": "t", "tool_call_id": "c1"},
                ],
                sampling=SAMPLING,
                tools=[{"name": "t", "description": "d", "parameters_json_schema": SCHEMA}],
                format={"json_schema": SCHEMA},
                thinking=generation_pb2.THINKING_LEVEL_OFF,
                top_logprob_count=0,
            )
        )
    )
    body = only_body(server)
    call = body["messages"][2]["tool_calls"][0]
    assert json.dumps(call["function"]["arguments"], separators=(",", ":")) == arguments
    assert list(body["format"]["properties"]) == ["z", "a"]
    schema = json.loads(SCHEMA)
    assert body == {
        "model": "m:latest",
        "stream": True,
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "look", "images": [b64encode(PNG).decode()]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [
                    {
                        "id": "c1",
                        "function": {"index": 0, "name": "t", "arguments": json.loads(arguments)},
                    }
                ],
            },
            {"role": "tool", "content": "12", "tool_name": "t", "tool_call_id": "c1"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "t", "description": "d", "parameters": schema},
            }
        ],
        "format": schema,
        "think": False,
        "logprobs": True,
        "top_logprobs": 0,
        "options": OPTIONS,
    }


async def test_megabytes_of_images_arrive_as_they_were(server, balancer):
    server.stream("/api/chat", said(done=True, content="a"))
    image = PNG + np.random.default_rng(1).bytes(8 * 1024 * 1024)
    message = {"role": USER, "content": "look", "images": [image, JPEG]}
    await deltas(balancer.stub.Chat(pb.ChatRequest(model="m", messages=[message])))
    sent = only_body(server)["messages"][0]["images"]
    assert [b64decode(each) for each in sent] == [image, JPEG]


async def test_thoughts_text_tool_calls_and_probabilities_come_back(server, balancer):
    arguments = '{"z":123456789012345678901234567890,"a":1.10}'
    call = b'{"id":"c1","function":{"index":0,"name":"t","arguments":%b}}' % arguments.encode()
    probable = {
        "token": "ä",
        "logprob": -0.5,
        "bytes": list("ä".encode()),
        "top_logprobs": [{"token": "o", "logprob": -1.5, "bytes": [111]}],
    }
    server.stream(
        "/api/chat",
        said(thinking="let me "),
        said(thinking="see"),
        said(content="h") + said(content="ä"),
        line(message={"role": "assistant", "content": "!"}, logprobs=[probable], done=False),
        b'{"message":{"role":"assistant","content":"","tool_calls":[%b]},"done":false}\n' % call,
        said(done=True),
    )
    message = {"role": USER, "content": "weather?"}
    events = await deltas(balancer.stub.Chat(pb.ChatRequest(model="m", messages=[message])))
    assert "".join(event.thinking_delta for event in events) == "let me see"
    assert "".join(event.text_delta for event in events) == "hä!"
    assert [call for event in events for call in event.tool_calls.calls] == [
        generation_pb2.ToolCall(id="c1", name="t", arguments_json=arguments)
    ]
    expected = generation_pb2.TokenLogprob(token="ä", logprob=-0.5, token_bytes="ä".encode())
    expected.top.add(token="o", logprob=-1.5, token_bytes=b"o")
    assert [token for event in events for token in event.logprobs.tokens] == [expected]


async def test_thoughts_of_a_continued_prompt_come_back(server, balancer):
    server.stream(
        "/api/generate",
        line(response="", thinking="hm", done=False),
        line(response="a", logprobs=[{"token": "a", "logprob": -1.0}], done=False),
        line(response="", **FINAL),
    )
    events = await deltas(balancer.stub.Generate(pb.GenerateRequest(model="m", prompt="p")))
    assert "".join(event.thinking_delta for event in events) == "hm"
    assert "".join(event.text_delta for event in events) == "a"
    assert [token.token for event in events for token in event.logprobs.tokens] == ["a"]


async def test_a_first_token_that_is_no_text_starts_the_answer(server, balancer):
    server.stream("/api/chat", said(thinking="hm"), said(done=True))
    message = {"role": USER, "content": "a"}
    events = await deltas(balancer.stub.Chat(pb.ChatRequest(model="m", messages=[message])))
    assert [event.WhichOneof("event") for event in events] == ["thinking_delta"]


async def test_an_answer_that_ends_with_tool_calls_still_has_to_say_that_it_is_done(
    server, balancer
):
    call = {"function": {"name": "t", "arguments": {}}}
    server.stream("/api/chat", said(tool_calls=[call]))
    message = {"role": USER, "content": "a"}

    async def chat():
        async for _ in balancer.stub.Chat(pb.ChatRequest(model="m", messages=[message])):
            pass

    assert (await error_of(chat())).error_reason == "STREAM_INTERRUPTED"


async def test_the_length_of_vectors_reaches_the_server(server, balancer):
    vectors = {"embeddings": [[0.6, 0.8], [1.0, 0.0]], "prompt_eval_count": 2}
    server.replies["/api/embed"] = lambda request: web.json_response(vectors)
    request = pb.EmbedRequest(model="m", texts=["a", "b"], dimension=2)
    response = await balancer.stub.Embed(request)
    assert only_body(server) == {
        "model": "m:latest",
        "input": ["a", "b"],
        "truncate": True,
        "dimensions": 2,
    }
    assert [vector.dimension for vector in response.vectors] == [2, 2]


async def test_a_request_that_breaks_rules_is_refused_before_any_server_sees_it(server, balancer):
    request = pb.ChatRequest(
        model="m",
        messages=[{"role": USER, "images": [b"GIF89a"]}],
        tools=[{"name": "t", "parameters_json_schema": "{}"}],
        routing=pb.RoutingOptions(resume=pb.RESUME_MODE_ONCE),
    )

    async def chat():
        async for _ in balancer.stub.Chat(request):
            pass

    error = await error_of(chat())
    assert error.error_reason == "INVALID_FIELD"
    assert [each.field for each in error.violations] == ["messages[0].images[0]", "routing.resume"]
    assert server.bodies == []


async def test_what_a_model_cannot_do_is_told_to_the_caller(server, balancer):
    text = '"m" does not support thinking'
    server.replies["/api/chat"] = lambda request: web.json_response({"error": text}, status=400)
    request = pb.ChatRequest(
        model="m",
        messages=[{"role": USER, "content": "a"}],
        thinking=generation_pb2.THINKING_LEVEL_ON,
    )

    async def chat():
        async for _ in balancer.stub.Chat(request):
            pass

    error = await error_of(chat())
    assert error.error_reason == "BACKEND_REJECTED_REQUEST"
    assert text in error.message


CAPABLE = ModelSpec(name="capable", capabilities=("thinking", "tools", "vision", "insert"))


@pytest.fixture
async def capable(run_balancer):
    """A balancer in front of a server with a model that can do everything."""
    async with running_standins(1, models=(CAPABLE,)) as (standin,):
        yield await run_balancer(standin.url)


def ask(prompt, **fields):
    message = {"role": USER, "content": prompt}
    return pb.ChatRequest(**({"model": "capable", "messages": [message]} | fields))


async def test_a_model_thinks_and_tells_how_sure_it_is(capable):
    events = await deltas(
        capable.stub.Chat(
            ask(
                "<<thinking=5>> <<tokens=7>>",
                thinking=generation_pb2.THINKING_LEVEL_ON,
                top_logprob_count=3,
            )
        )
    )
    text = "".join(event.text_delta for event in events)
    assert len(text) == 7 * 4
    assert len("".join(event.thinking_delta for event in events)) == 5 * 4
    tokens = [token for event in events for token in event.logprobs.tokens]
    assert "".join(token.token for token in tokens).endswith(text)
    assert all(token.token_bytes == token.token.encode() for token in tokens)
    assert {len(token.top) for token in tokens} == {3}


async def test_a_model_that_is_told_not_to_think_does_not(capable):
    request = ask("<<thinking=5>> <<tokens=7>>", thinking=generation_pb2.THINKING_LEVEL_OFF)
    events = await deltas(capable.stub.Chat(request))
    assert {event.WhichOneof("event") for event in events} == {"text_delta"}


async def test_a_tool_is_called_and_its_result_taken(capable):
    tools = [{"name": "weather", "description": "d", "parameters_json_schema": SCHEMA}]
    prompt = '<<tool=weather {"z": 1, "a": "Oslo"}>>'
    events = await deltas(capable.stub.Chat(ask(prompt, tools=tools)))
    (call,) = [call for event in events for call in event.tool_calls.calls]
    assert (call.name, call.arguments_json) == ("weather", '{"z":1,"a":"Oslo"}')
    messages = [
        {"role": USER, "content": "a"},
        {"role": ASSISTANT, "tool_calls": [call]},
        {"role": TOOL, "content": "<<tokens=2>>", "tool_name": "weather", "tool_call_id": call.id},
    ]
    events = await deltas(capable.stub.Chat(ask("", messages=messages, tools=tools)))
    assert "".join(event.text_delta for event in events)


async def test_an_answer_has_the_form_asked_for(capable):
    schema = SCHEMA[:-1] + ',"required":["z","a"]}'
    events = await deltas(capable.stub.Chat(ask("a", format={"json_schema": schema})))
    answer = json.loads("".join(event.text_delta for event in events))
    assert [*answer] == ["z", "a"]
    events = await deltas(capable.stub.Chat(ask("a", format={"json": True})))
    json.loads("".join(event.text_delta for event in events))


async def test_a_prompt_is_filled_in_and_a_picture_looked_at(capable):
    request = pb.GenerateRequest(model="capable", prompt="<<tokens=3>>", suffix="after")
    assert await deltas(capable.stub.Generate(request))
    request = pb.GenerateRequest(model="capable", prompt="<<tokens=3>>", images=[PNG])
    assert await deltas(capable.stub.Generate(request))


async def test_a_model_that_knows_no_tools_refuses_them(capable):
    tools = [{"name": "t", "parameters_json_schema": "{}"}]

    async def chat():
        async for _ in capable.stub.Chat(ask("a", model=CHAT_MODEL, tools=tools)):
            pass

    error = await error_of(chat())
    assert error.error_reason == "BACKEND_REJECTED_REQUEST"
    assert "does not support tools" in error.message
