"""httpx over aiohttp, against bare sockets."""

import asyncio
import gzip
from contextlib import asynccontextmanager

import httpx
import pytest

from services.balancer.adapters.transport import AiohttpTransport
from tests.kit.balancer import a_connection_pool
from tests.kit.ports import free_port
from tests.kit.sockets import running_socket_server, unanswering_address

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def open_client(url, *, idle_limit_seconds=30.0, **limits):
    return httpx.AsyncClient(
        base_url=url,
        transport=AiohttpTransport(idle_limit_seconds=idle_limit_seconds, pool=a_connection_pool()),
        timeout=httpx.Timeout(None, **limits),
        trust_env=False,
    )


@asynccontextmanager
async def running(script, **settings):
    """Runs a server with a client."""
    async with running_socket_server(script) as server, open_client(server.url, **settings) as each:
        yield server, each


def replies(*parts):
    """Makes the script that answers every request with these bytes."""

    async def script(connection):
        for part in parts:
            await connection.send(part)

    return script


async def silence(connection):
    pass


async def start(client, method="POST", **fields):
    """Sends a request and returns when the head of the reply is there."""
    return await client.send(client.build_request(method, "/path", **fields), stream=True)


async def read(response, pieces, seen=None):
    """Reads a reply; what came before a failure stays in `pieces`."""
    async for piece in response.aiter_raw():
        pieces.append(piece)
        if seen is not None:
            seen.set()


async def test_a_request_arrives_as_httpx_made_it(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    async with running(replies(OK)) as (server, client):
        await client.post(
            "/a%2Fb?c=%2B+d%20e", content=b"\x00body", headers={"Accept-Encoding": "identity"}
        )
    (request,) = server.requests
    line, *fields = request.head.rstrip("\r\n").split("\r\n")
    assert line == "POST /a%2Fb?c=%2B+d%20e HTTP/1.1"
    assert sorted(fields) == [
        "accept-encoding: identity",
        "accept: */*",
        "connection: keep-alive",
        "content-length: 5",
        f"host: {server.url.removeprefix('http://')}",
        f"user-agent: python-httpx/{httpx.__version__}",
    ]
    assert request.body == b"\x00body"


async def test_nothing_is_added_where_httpx_leaves_a_header_out():
    async with running(replies(OK)) as (server, client):
        for name in ("Accept", "Accept-Encoding", "User-Agent"):
            del client.headers[name]
        await client.post("/", content=b"x")
    names = {line.split(":")[0] for line in server.requests[0].head.split("\r\n")[1:-2]}
    assert names == {"host", "connection", "content-length"}


async def test_a_large_body_arrives_whole_and_without_a_warning():
    body = bytes(range(256)) * 12_000
    async with running(replies(OK)) as (server, client):
        assert (await client.post("/", content=body)).text == "ok"
    assert server.requests[0].body == body


async def test_a_body_made_while_it_is_sent_is_refused():
    async def body():
        yield b"part"

    async with running(replies(OK)) as (server, client):
        with pytest.raises(httpx.RequestNotRead):
            await client.post("/", content=body())
    assert server.requests == []


async def test_a_header_of_two_lines_is_refused():
    async with running(replies(OK)) as (server, client):
        with pytest.raises(httpx.LocalProtocolError):
            await client.post("/", headers={"X-Name": "a\r\nX-Other: b"})
    assert server.requests == []


async def test_a_reply_arrives_as_the_server_made_it():
    body = gzip.compress(b"text")
    head = (
        b"HTTP/1.1 418 I'm a teapot\r\nContent-Encoding: gzip\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    async with running(replies(head, body)) as (_, client):
        response = await start(client)
        raw = b"".join([piece async for piece in response.aiter_raw()])
        decoded = (await client.post("/")).text
    assert (response.status_code, response.reason_phrase) == (418, "I'm a teapot")
    assert response.headers.get_list("x-twice") == ["1", "2"]
    assert raw == body
    assert decoded == "text"


async def test_redirects_and_cookies_are_left_to_httpx():
    reply = b"HTTP/1.1 302 Found\r\nLocation: /else\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with running(replies(reply)) as (server, client):
        # aiohttp would keep no cookie of an address.
        url = server.url.replace("127.0.0.1", "localhost")
        for _ in range(2):
            assert (await client.get(url)).status_code == 302
            client.cookies.clear()
    assert len(server.requests) == 2
    assert "cookie" not in server.requests[1].head.lower()


@pytest.mark.parametrize(
    ("head", "first", "second"),
    [(SIZED, b"abc", b"def"), (CHUNKED, b"3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n")],
)
async def test_each_piece_of_a_reply_comes_when_it_is_sent(head, first, second):
    seen = asyncio.Event()

    async def script(connection):
        await connection.send(head + first)
        await seen.wait()
        await connection.send(second)

    async with running(script) as (_, client):
        pieces = []
        await read(await start(client), pieces, seen)
    assert pieces == [b"abc", b"def"]


@pytest.mark.parametrize(
    "reply",
    [OK, CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"],
)
async def test_a_connection_serves_again_when_the_reply_was_read(reply):
    async with running(replies(reply)) as (server, client):
        for _ in range(5):
            response = await start(client, content=b"x")
            assert b"".join([piece async for piece in response.aiter_raw()]) in (b"ok", b"")
            await response.aclose()
    assert server.connection_count == 1
    assert len(server.requests) == 5


async def test_a_connection_out_of_use_is_closed_in_time():
    async with running(replies(OK), idle_limit_seconds=0.05) as (server, client):
        await client.post("/")
        async with asyncio.timeout(5):
            await server.ended.wait()
        await client.post("/")
    assert server.connection_count == 2


async def test_the_number_of_connections_has_no_limit():
    count = 128
    everyone = asyncio.Barrier(count)

    async def script(connection):
        await everyone.wait()
        await connection.send(OK)

    async with running(script) as (server, client), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(client.post("/", content=b"x"))
    assert server.connection_count == count


async def test_a_refused_connection_is_a_connect_error():
    async with open_client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(httpx.ConnectError, match="Connect call failed"):
            await client.post("/")


async def test_a_failed_handshake_is_a_connect_error():
    async with running_socket_server(silence) as server:

        async def cut(reader, writer):
            await reader.read(1)
            writer.close()

        listener = await asyncio.start_server(cut, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener, open_client(f"https://127.0.0.1:{port}") as client:
            with pytest.raises(httpx.ConnectError):
                await client.post("/")
    assert server.requests == []


async def test_a_scheme_other_than_http_is_unsupported():
    async with open_client("ftp://127.0.0.1") as client:
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.post("/")


async def test_connecting_has_its_limit():
    with unanswering_address() as url:
        async with open_client(url, connect=0.2) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.post("/")


async def test_the_limit_for_connecting_is_over_when_connected():
    async def script(connection):
        await asyncio.sleep(0.3)
        await connection.send(OK)

    async with running(script, connect=0.1) as (_, client):
        assert (await client.post("/")).text == "ok"


async def test_a_server_that_never_answers_is_a_read_timeout():
    async with running(silence, read=0.1) as (server, client):
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/", content=b"x")
        async with asyncio.timeout(5):
            await server.ended.wait()


@pytest.mark.parametrize(
    "reply",
    [
        SIZED + b"abc",
        CHUNKED + b"3\r\nabc\r\n",
    ],
)
async def test_a_server_that_falls_silent_is_a_read_timeout(reply):
    async with running(replies(reply), read=0.1) as (server, client):
        pieces = []
        response = await start(client)
        with pytest.raises(httpx.ReadTimeout):
            await read(response, pieces)
        async with asyncio.timeout(5):
            await server.ended.wait()
    assert pieces == [b"abc"]


async def test_a_reply_with_broken_framing_is_not_waited_for_beyond_the_limit():
    seen = asyncio.Event()

    async def script(connection):
        await connection.send(CHUNKED + b"3\r\nabc\r\n")
        await seen.wait()
        await connection.send(b"no number\r\n")

    async with running(script, read=0.2) as (_, client):
        response = await start(client)
        with pytest.raises(httpx.TransportError):
            await read(response, [], seen)


async def test_the_time_between_two_reads_is_not_the_servers():
    async with running(replies(SIZED, b"abc", b"def"), read=0.1) as (_, client):
        response = await start(client)
        await asyncio.sleep(0.3)
        assert b"".join([piece async for piece in response.aiter_raw()]) == b"abcdef"


@pytest.mark.parametrize(
    ("reply", "reset", "expected"),
    [
        (b"", False, httpx.RemoteProtocolError),
        (b"", True, httpx.ReadError),
        (b"HTTP/1.1 200 OK\r\nContent-", False, httpx.RemoteProtocolError),
        (b"SSH-2.0-server\r\n\r\n", False, httpx.RemoteProtocolError),
    ],
)
async def test_a_connection_lost_before_the_reply_is_no_reply(reply, reset, expected):
    async def script(connection):
        await connection.send(reply)
        (connection.reset if reset else connection.close)()

    async with running(script) as (server, client):
        with pytest.raises(expected) as caught:
            await client.post("/", content=b"x")
    assert str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("reply", [SIZED + b"abc", CHUNKED + b"3\r\nabc\r\n"])
async def test_a_connection_lost_within_the_reply_is_no_end_of_it(reply, reset):
    seen = asyncio.Event()

    async def script(connection):
        await connection.send(reply)
        await seen.wait()
        (connection.reset if reset else connection.close)()

    async with running(script) as (_, client):
        pieces = []
        response = await start(client)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await read(response, pieces, seen)
    assert pieces == [b"abc"]


async def test_a_connection_lost_within_the_request_is_an_error_of_the_network():
    async def reset(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    listener = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with (
        listener,
        open_client(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}") as client,
    ):
        with pytest.raises((httpx.WriteError, httpx.ReadError)):
            await client.post("/", content=bytes(32 * 1024 * 1024))


@pytest.mark.parametrize("reset", [False, True])
async def test_a_post_is_never_sent_twice(reset):
    async def script(connection):
        if len(server.requests) == 1:
            await connection.send(OK)
        else:
            (connection.reset if reset else connection.close)()

    async with running(script) as (server, client):
        await client.post("/", content=b"first")
        with pytest.raises(httpx.TransportError):
            await client.post("/", content=b"second")
    assert server.connection_count == 1
    assert [each.body for each in server.requests] == [b"first", b"second"]


async def test_a_response_closed_before_its_end_closes_the_connection():
    async with running(replies(CHUNKED, b"3\r\nabc\r\n")) as (server, client):
        response = await start(client)
        async for _ in response.aiter_raw():
            break
        assert not server.ended.is_set()
        await response.aclose()
        async with asyncio.timeout(5):
            await server.ended.wait()


async def test_a_response_closed_unread_closes_the_connection():
    async with running(replies(SIZED)) as (server, client):
        await (await start(client)).aclose()
        async with asyncio.timeout(5):
            await server.ended.wait()


async def test_a_caller_cancelled_before_the_reply_closes_the_connection():
    waiting = asyncio.Event()

    async def script(connection):
        waiting.set()

    async with running(script) as (server, client):
        task = asyncio.create_task(start(client, content=b"x"))
        await cancel_after(waiting, task)
        async with asyncio.timeout(5):
            await server.ended.wait()


@pytest.mark.parametrize("reply", [SIZED + b"abc", CHUNKED + b"3\r\nabc\r\n"])
async def test_a_caller_cancelled_within_the_reply_closes_the_connection(reply):
    waiting = asyncio.Event()
    async with running(replies(reply)) as (server, client):
        # The reader does not close the response, as a caller can fail to.
        response = await start(client)
        task = asyncio.create_task(read(response, [], waiting))
        await cancel_after(waiting, task)
        async with asyncio.timeout(5):
            await server.ended.wait()


async def cancel_after(event, task):
    await event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_ends_the_connections_and_may_be_repeated():
    async with running_socket_server(replies(OK)) as server:
        transport = AiohttpTransport(idle_limit_seconds=30.0, pool=a_connection_pool())
        client = httpx.AsyncClient(base_url=server.url, transport=transport)
        await client.post("/")
        await client.aclose()
        await transport.aclose()
        async with asyncio.timeout(5):
            await server.ended.wait()
