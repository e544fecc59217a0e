"""Loading, trying, unloading and downloading models: with stand-ins, and with bare sockets."""

import asyncio
import time
from contextlib import aclosing
from functools import partial

import numpy as np
import orjson
import pytest

from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import GenerationRequest, Operation, PullProgress
from tests.kit.balancer import opened_server
from tests.kit.sockets import running_socket_server
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, running_standins

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'{"response":"x","done":false}\n'
REQUEST = GenerationRequest(operation=Operation.GENERATE, model="m", prompt="p")
opened = partial(opened_server, connect_limit_seconds=1.0)


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(data):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


@pytest.fixture
async def server():
    async with running_standins(1, load_seconds=0.2) as (standin,), opened(standin.url) as server:
        yield server


def load(server, model, **arguments):
    arguments = {
        "embedding": model == EMBEDDING_MODEL,
        "keep_alive": 600,
        "context_token_count": None,
        "limit_seconds": 5.0,
    } | arguments
    return server.load(model, **arguments)


@pytest.mark.parametrize("model", [CHAT_MODEL, EMBEDDING_MODEL])
async def test_a_model_is_loaded_once_and_leaves_again(server, model):
    assert await server.loaded(5.0) == ()
    before = time.time()
    assert await load(server, model) >= 0.2
    (loaded,) = await server.loaded(5.0)
    assert (loaded.name, len(loaded.digest)) == (model, 64)
    assert loaded.size_bytes > 0
    assert before + 590 < loaded.expires_at < time.time() + 610
    assert await load(server, model) < 0.15
    await server.unload(model)
    assert await server.loaded(5.0) == ()


async def test_a_model_is_loaded_with_the_window_asked_for(server):
    await load(server, CHAT_MODEL, context_token_count=1024)
    (loaded,) = await server.loaded(5.0)
    assert loaded.context_token_count == 1024


async def test_a_probe_neither_loads_anew_nor_shortens_the_stay(server):
    await load(server, CHAT_MODEL, context_token_count=1024)
    await server.probe(CHAT_MODEL, False, 5.0, context_token_count=1024)
    (loaded,) = await server.loaded(5.0)
    assert loaded.context_token_count == 1024
    assert loaded.expires_at > time.time() + 590


async def test_an_embedding_model_is_tried_by_embedding(server):
    await load(server, EMBEDDING_MODEL)
    await server.probe(EMBEDDING_MODEL, True, 5.0)
    with pytest.raises(AttemptFailed) as caught:
        await server.probe(EMBEDDING_MODEL, False, 5.0)
    assert caught.value.kind is FailureKind.REJECTED


async def test_vectors_of_a_given_length_are_of_unit_length_too(server):
    reply = await server.embed(["a b", "c"], model_name=EMBEDDING_MODEL, headers={}, dimension=64)
    assert reply.vectors.shape == (2, 64)
    assert np.linalg.norm(reply.vectors, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)


USES = [
    lambda server: load(server, CHAT_MODEL, limit_seconds=0.1),
    lambda server: server.unload("m", limit_seconds=0.1),
    lambda server: server.probe("m", False, 0.1),
    lambda server: server.probe("m", True, 0.1),
    lambda server: server.loaded(0.1),
    lambda server: server.embed(["a"], model_name="m", headers={}, limit_seconds=0.1),
]


@pytest.mark.parametrize("use", USES)
async def test_each_has_its_own_limit_and_ends_what_exceeds_it(use):
    async def script(connection):
        pass

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        with pytest.raises(AttemptFailed) as caught:
            await use(server)
        async with asyncio.timeout(5):
            await backend.ended.wait()
    assert caught.value.kind is FailureKind.TIMEOUT


@pytest.mark.parametrize("use", [USES[1], USES[2]])
async def test_a_reply_that_is_not_done_is_a_failure(use):
    async def script(connection):
        await connection.send(whole(b'{"done":false}'))

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        with pytest.raises(AttemptFailed) as caught:
            await use(server)
    assert caught.value.kind is FailureKind.BROKEN_REPLY


async def test_limits_of_one_generation_come_before_the_usual_ones():
    async def script(connection):
        if len(backend.requests) == 2:
            await connection.send(CHUNKED + chunk(TOKEN))

    async def generate(**limits):
        generation = server.generate(REQUEST, model_name="m", headers={}, **limits)
        async with aclosing(generation):
            async for _ in generation:
                pass

    async def failure_of(**limits):
        with pytest.raises(AttemptFailed) as caught:
            await generate(**limits)
        return caught.value

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        failure = await failure_of(first_token_limit_seconds=0.1)
        assert (failure.kind, failure.message) == (FailureKind.TIMEOUT, "silent for 0.1 s")
        failure = await failure_of(stall_limit_seconds=0.2)
        assert (failure.kind, failure.message) == (FailureKind.STALLED, "silent for 0.2 s")


async def test_what_the_balancer_decides_goes_into_the_body():
    async def script(connection):
        await connection.send(whole(b'{"response":"","done":true}\n'))

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        generation = server.generate(
            REQUEST, model_name="m", headers={}, keep_alive="30m", context_token_count=8192
        )
        async for _ in generation:
            pass
    body = orjson.loads(backend.requests[0].body)
    assert (body["keep_alive"], body["options"]) == ("30m", {"num_ctx": 8192})


async def pulled(*parts, then=lambda connection: None):
    """Returns the steps of a download, and the failure it ended with."""

    async def script(connection):
        await connection.send(CHUNKED)
        for part in parts:
            await connection.send(chunk(part))
        then(connection)

    steps = []
    async with (
        running_socket_server(script) as backend,
        opened(backend.url, first_token_limit_seconds=0.2) as server,
        aclosing(server.pull("m")) as pull,
    ):
        try:
            async for step in pull:
                steps.append(step)
        except AttemptFailed as failure:
            return steps, failure
        finally:
            assert orjson.loads(backend.requests[0].body) == {"model": "m", "stream": True}
    return steps, None


async def test_a_download_is_told_up_to_its_success():
    steps, failure = await pulled(
        b'{"status":"pulling manifest"}\n{"status":"pulling a","digest":"sha256:a","tot',
        b'al":70,"completed":7}\n{"status":"success"}\n{"status":"more"}\n',
    )
    assert steps == [
        PullProgress(status="pulling manifest"),
        PullProgress(status="pulling a", digest="sha256:a", completed_bytes=7, total_bytes=70),
        PullProgress(status="success"),
    ]
    assert failure is None


@pytest.mark.parametrize(
    ("last", "then", "kind"),
    [
        (b'{"error":"file does not exist"}\n', lambda connection: None, FailureKind.SERVER_ERROR),
        (b'{"status":"a"}\n', lambda connection: connection.close(), FailureKind.BROKEN_REPLY),
        (b'{"status":"a"}\n', lambda connection: None, FailureKind.STALLED),
    ],
)
async def test_a_download_without_success_is_a_failure(last, then, kind):
    steps, failure = await pulled(b'{"status":"pulling manifest"}\n', last, then=then)
    assert steps[0] == PullProgress(status="pulling manifest")
    assert failure.kind is kind


async def test_a_download_that_ends_in_order_without_success_is_a_failure():
    async def script(connection):
        await connection.send(whole(b'{"status":"verifying"}\n'))

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        with pytest.raises(AttemptFailed, match="without success"):
            async for _ in server.pull("m"):
                pass


async def test_closing_a_download_ends_it():
    async def script(connection):
        await connection.send(CHUNKED + chunk(b'{"status":"a"}\n'))

    async with running_socket_server(script) as backend, opened(backend.url) as server:
        pull = server.pull("m")
        await anext(pull)
        await pull.aclose()
        async with asyncio.timeout(5):
            await backend.ended.wait()
