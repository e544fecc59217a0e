"""How an attempt at an Ollama server fails, against bare sockets."""

import asyncio
from contextlib import aclosing
from functools import partial

import pytest

from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import Completion, GenerationRequest, Operation, TextDelta
from tests.kit.balancer import opened_server
from tests.kit.ports import free_port
from tests.kit.sockets import running_socket_server, unanswering_address

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'{"response":"x","done":false}\n'
FINAL = b'{"response":"","done":true,"done_reason":"stop"}\n'
REQUEST = GenerationRequest(operation=Operation.GENERATE, model="m", prompt="p")
opened = partial(opened_server, connect_limit_seconds=0.2)


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


async def generate(server, items=None):
    async with aclosing(server.generate(REQUEST, model_name="m", headers={})) as generation:
        async for item in generation:
            if items is not None:
                items.append(item)


USES = [
    lambda server: server.check(5.0),
    lambda server: server.describe("m"),
    lambda server: server.embed(["a"], model_name="m", headers={}),
    generate,
]


async def failure_of(use):
    with pytest.raises(AttemptFailed) as caught:
        await use
    assert caught.value.message
    return caught.value


@pytest.mark.parametrize("use", USES)
async def test_a_refused_connection_is_a_failure_to_connect(use):
    async with opened(f"http://127.0.0.1:{free_port()}") as server:
        assert (await failure_of(use(server))).kind is FailureKind.CONNECTION


@pytest.mark.parametrize("use", USES)
async def test_a_connection_that_takes_too_long_is_a_failure_to_connect(use):
    with unanswering_address() as url:
        async with opened(url) as server:
            failure = await failure_of(use(server))
    assert failure.kind is FailureKind.CONNECTION
    assert failure.message == "timed out while connecting"


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_lost_before_the_reply_is_a_failure_to_connect(use, reset):
    async def script(connection):
        (connection.reset if reset else connection.close)()

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        assert (await failure_of(use(server))).kind is FailureKind.CONNECTION
    posts = [each for each in backend.requests if each.head.startswith("POST")]
    assert len(posts) == (0 if use is USES[0] else 1)


@pytest.mark.parametrize("use", USES[1:])
async def test_silence_before_the_reply_is_a_timeout(use):
    async def script(connection):
        pass

    async with (
        running_socket_server(script) as backend,
        opened(backend.url, first_token_limit_seconds=0.1) as server,
    ):
        failure = await failure_of(use(server))
        async with asyncio.timeout(5):
            await backend.ended.wait()
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.message == "silent for 0.1 s"


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda connection: None, FailureKind.STALLED),
        (lambda connection: connection.close(), FailureKind.BROKEN_REPLY),
        (lambda connection: connection.reset(), FailureKind.BROKEN_REPLY),
    ],
)
async def test_what_came_before_a_failure_within_the_reply_counts(end, kind):
    seen = asyncio.Event()

    async def script(connection):
        await connection.send(CHUNKED + chunk(TOKEN))
        await seen.wait()
        end(connection)

    async with (
        running_socket_server(script) as backend,
        opened(backend.url, stall_limit_seconds=0.1) as server,
        aclosing(server.generate(REQUEST, model_name="m", headers={})) as generation,
    ):
        assert await anext(generation) == TextDelta("x")
        seen.set()
        assert (await failure_of(anext(generation))).kind is kind


async def test_tokens_may_be_further_apart_than_the_limit_for_the_first():
    async def script(connection):
        await connection.send(CHUNKED + chunk(TOKEN))
        await asyncio.sleep(0.4)
        await connection.send(chunk(FINAL) + b"0\r\n\r\n")

    items = []
    async with (
        running_socket_server(script) as backend,
        opened(backend.url, first_token_limit_seconds=0.2) as server,
    ):
        await generate(server, items)
    assert items[0] == TextDelta("x")
    assert isinstance(items[-1], Completion)


async def test_the_connection_of_a_finished_generation_serves_the_next():
    async def script(connection):
        await connection.send(CHUNKED + chunk(TOKEN))
        await connection.send(chunk(FINAL))
        await asyncio.sleep(0.05)
        await connection.send(b"0\r\n\r\n")

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        for _ in range(5):
            await generate(server)
    assert backend.connection_count == 1


async def test_a_reply_that_does_not_end_after_its_last_line_is_not_waited_for():
    async def script(connection):
        await connection.send(CHUNKED + chunk(FINAL))

    items = []
    async with (
        running_socket_server(script) as backend,
        opened(backend.url, stall_limit_seconds=60.0) as server,
        asyncio.timeout(5),
    ):
        await generate(server, items)
        await backend.ended.wait()
    assert isinstance(items[-1], Completion)


async def test_closing_a_generation_closes_its_connection():
    async def script(connection):
        await connection.send(CHUNKED + chunk(TOKEN))

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        generation = server.generate(REQUEST, model_name="m", headers={})
        await anext(generation)
        assert not backend.ended.is_set()
        await generation.aclose()
        async with asyncio.timeout(5):
            await backend.ended.wait()


async def test_cookies_are_not_kept_and_replies_asked_for_uncompressed():
    reply = b'{"capabilities":[]}'
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: %d\r\n\r\n" % len(reply)

    async def script(connection):
        await connection.send(head + reply)

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        for _ in range(2):
            await server.describe("m")
    for request in backend.requests:
        assert "cookie" not in request.head.lower()
        assert "accept-encoding: identity\r\n" in request.head.lower()
