"""The clients: what counts as the first text, and what as a failure."""

import pytest
from aiohttp import web

from tests.bench.balancer.drivers.fifo import CentralFifo
from tests.bench.balancer.drivers.ollama import OllamaClient
from tests.bench.balancer.drivers.openai import OpenAIClient
from tests.bench.balancer.drivers.port import Failed, Progress
from tests.bench.balancer.traces import Request

CHAT = Request(index=0, at_seconds=0.0, kind="chat", model="m", prompt_tokens=10, output_tokens=2)
EMPTY = b'{"message":{"content":""},"done":false}\n'
WORD = b'{"message":{"content":"a"},"done":false}\n'
DONE = b'{"message":{"content":""},"done":true,"eval_count":2}\n'
CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
END = b"data: [DONE]\n\n"


class Answering:
    """A server that answers each request with the pieces that it is given, one after the other."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.status = 200
        self.json: object = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        if self.json is not None:
            return web.json_response(self.json)
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
        return response


@pytest.fixture
async def server():
    answering = Answering()
    app = web.Application()
    app.router.add_post("/{path:.*}", answering.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answering.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield answering
    await runner.cleanup()


async def chat(client_class, server, *pieces: bytes) -> Progress:
    server.pieces = list(pieces)
    progress = Progress()
    async with client_class(server.url) as client:
        await client.chat(CHAT, "", "hello", progress)
    return progress


async def test_an_answer_that_is_done_is_complete(server):
    progress = await chat(OllamaClient, server, EMPTY, WORD, WORD, DONE)
    assert progress.first_at is not None
    assert progress.token_count == 2


async def test_empty_text_is_no_first_text(server):
    assert (await chat(OllamaClient, server, EMPTY, DONE)).first_at is None


async def test_a_line_may_come_in_two_pieces(server):
    progress = await chat(OllamaClient, server, WORD[:9], WORD[9:] + DONE[:5], DONE[5:])
    assert progress.token_count == 2


async def test_an_answer_that_is_not_done_is_broken(server):
    with pytest.raises(Failed, match="stream_broken"):
        await chat(OllamaClient, server, WORD, WORD)


async def test_an_error_after_the_first_text_is_a_failure(server):
    with pytest.raises(Failed, match="error_in_stream"):
        await chat(OllamaClient, server, WORD, b'{"error":"died"}\n')


async def test_a_status_other_than_200_is_a_failure(server):
    server.status = 503
    with pytest.raises(Failed, match="http_503"):
        await chat(OllamaClient, server)


async def test_nobody_listening_is_a_failure():
    with pytest.raises(Failed, match="connection_refused"):
        async with OllamaClient("http://127.0.0.1:1") as client:
            await client.chat(CHAT, "", "hello", Progress())


async def test_fewer_vectors_than_texts_are_a_failure(server):
    server.json = {"embeddings": [[1.0]]}
    async with OllamaClient(server.url) as client:
        with pytest.raises(Failed, match="vectors_missing"):
            await client.embed(CHAT, ["a", "b"], Progress())
        progress = Progress()
        await client.embed(CHAT, ["a"], progress)
        assert progress.first_at is not None


async def test_openai_streams_end_with_done(server):
    progress = await chat(OpenAIClient, server, ROLE, CHUNK, CHUNK, END)
    assert progress.first_at is not None
    with pytest.raises(Failed, match="stream_broken"):
        await chat(OpenAIClient, server, ROLE, CHUNK)


async def test_openai_errors_in_a_stream_are_failures(server):
    with pytest.raises(Failed, match="error_in_stream"):
        await chat(OpenAIClient, server, CHUNK, b'data: {"error": {"message": "no"}}\n\n', END)


async def test_a_slot_of_the_central_queue_is_given_back_after_a_failure(server):
    server.pieces = [WORD]
    async with CentralFifo([server.url]) as queue:
        for _ in range(3):
            with pytest.raises(Failed):
                await queue.chat(CHAT, "", "hello", Progress())
