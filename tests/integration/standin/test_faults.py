"""Faults that clients order, as other clients see them."""

import asyncio

import httpx
import pytest


async def order(client, **rule):
    assert (await client.post("/standin/faults", **rule)).status_code == 200


async def test_the_next_requests_fail_with_a_status(start):
    client = await start()
    await order(client, fail_next=2, status=503, message="busy")
    answers = [await client.chat() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].json() == {"error": "busy"}


async def test_control_endpoints_and_loads_are_not_affected(start):
    client = await start()
    await order(client, fail_next=1)
    assert (await client.http.get("/api/version")).status_code == 200
    await client.load()
    assert (await client.chat()).status_code == 500


async def test_a_dropped_stream_has_no_end(start):
    client = await start()
    await order(client, drop_after_tokens=3)
    lines = []
    with pytest.raises(httpx.RemoteProtocolError):
        async with client.stream() as response:
            lines.extend([line async for line in response.aiter_lines() if lines.append(line)])
    assert len(lines) == 3
    [entry] = await client.requests("/api/chat")
    assert (entry["outcome"], entry["tokens"]) == ("dropped", 3)
    assert entry["faults"] == ["drop_after_tokens"]


async def test_an_embed_request_is_dropped_before_its_reply(start):
    client = await start()
    await order(client, drop_after_tokens=0, count=1)
    with pytest.raises(httpx.TransportError):
        await client.embed("x")
    assert (await client.embed("x")).status_code == 200


async def test_a_stream_without_its_final_line_ends_cleanly(start):
    client = await start()
    await order(client, no_done=True)
    assert all(not line["done"] for line in await client.lines())
    whole = (await client.chat()).json()
    assert whole["done"] is False
    assert "total_duration" not in whole


async def test_an_error_comes_as_a_line_of_a_started_stream(start):
    client = await start()
    await order(client, error_line_after_tokens=2)
    lines = await client.lines()
    assert len(lines) == 3
    assert lines[-1] == {
        "error": "an error was encountered while running the model: unexpected EOF"
    }
    assert (await client.chat()).status_code == 500


async def test_an_error_before_the_first_token_is_a_status(start):
    client = await start()
    await order(client, error_line_after_tokens=0)
    async with client.stream() as response:
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/json"


async def test_a_hung_request_holds_its_slot_while_control_endpoints_answer(start):
    client = await start()
    await order(client, hang=True, count=1)
    hung = asyncio.ensure_future(client.chat())
    await client.until("/api/chat", lambda entry: entry["faults"] == ["hang"])
    waiting = asyncio.ensure_future(client.chat())
    assert (await client.http.get("/api/ps")).status_code == 200
    await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()
    hung.cancel()
    assert (await waiting).status_code == 200


async def test_a_delay_comes_before_the_first_token(start):
    client = await start()
    await order(client, delay_seconds=0.2)
    answer = (await client.chat()).json()
    assert answer["total_duration"] > 0.2e9


async def test_rules_are_listed_and_cleared(start):
    client = await start()
    await order(client, fail_next=3, path="/api/chat")
    listed = (await client.http.get("/standin/faults")).json()
    assert listed == {"rules": [{"path": "/api/chat", "remaining": 3, "status": 500}]}
    assert (await client.embed("x")).status_code == 200
    assert (await client.http.delete("/standin/faults")).json() == {"rules": []}
    assert (await client.chat()).status_code == 200


async def test_a_bad_rule_is_refused(start):
    client = await start()
    assert (await client.post("/standin/faults", colour=1)).status_code == 400
