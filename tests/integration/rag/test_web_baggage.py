"""Neither the web nor a search engine learns who asks, or for which question."""

import asyncio

from services.common.baggage import carry
from services.common.identity import Identity, current_identity
from services.rag.adapters.web_pages import HttpPages
from services.rag.adapters.web_providers import SearxngSearch
from services.rag.core.web_rules import WebRules
from tests.kit.rpc import make_runtime
from tests.kit.sockets import running_socket_server

WORDS = ("baggage", "q-4711", "deep", "acme", "alice", "x-pannier")
PAGE = b"<p>The moon causes the tides.</p>"
RESULTS = b'{"results": []}'


def reply(media_type, body):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask_for_a_question(asking):
    """Asks as a call does that works for a question, within a trace."""

    async def work():
        current_identity.set(Identity("acme", "alice"))
        runtime, _ = make_runtime("rag")
        with runtime.tracer_provider.get_tracer("test").start_as_current_span("call"):
            carry(mode="deep", query_id="q-4711")
            return await asking()

    return await asyncio.create_task(work())


def assert_silent(requests):
    assert requests
    for request in requests:
        assert not [word for word in WORDS if word in request.head.lower()], request.head


async def test_a_search_engine_is_sent_the_question_and_nothing_that_goes_with_it():
    async def answer(connection):
        await connection.send(reply("application/json", RESULTS))

    async with running_socket_server(answer) as server:
        engine = SearxngSearch(server.url)
        try:
            await ask_for_a_question(
                lambda: engine.find("what causes tides", count=3, time_limit_seconds=5.0)
            )
        finally:
            await engine.close()
        assert_silent(server.requests)


async def test_a_page_is_fetched_without_a_word_on_why():
    async def answer(connection):
        await connection.send(reply("text/html", PAGE))

    async with running_socket_server(answer) as server:
        host = server.url.removeprefix("http://")
        port = int(host.rpartition(":")[2])
        rules = WebRules(ports=frozenset({port}), private_hosts=frozenset({host}))
        pages = HttpPages(rules, limit_bytes=10_000)
        try:
            await ask_for_a_question(lambda: pages.fetch(f"{server.url}/tides"))
        finally:
            await pages.close()
        assert_silent(server.requests)
