"""Faults that clients order, as other clients see them."""

import asyncio
import json

import httpx
import pytest

CHAT = "extractive-standin"


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
    await client.until("/api/chat", lambda entry: entry["faults"] == ["hang"] and entry["had_slot"])
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
    unknown = await client.post("/standin/faults", kill_child=True, model="nope")
    assert unknown.status_code == 400


async def test_a_closed_listener_refuses_for_its_time_and_cuts_what_there_is(start):
    client = await start(tokens_per_second=50)
    async with client.stream() as response:
        lines = response.aiter_lines()
        await anext(lines)
        await order(client, refuse=True, for_seconds=0.4)
        with pytest.raises(httpx.TransportError):
            [line async for line in lines]
    async with httpx.AsyncClient(base_url=client.http.base_url) as other:
        with pytest.raises(httpx.ConnectError):
            await other.get("/api/version")
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await other.get("/api/version")).status_code == 200
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
    assert len(await client.loaded()) == 1


async def test_a_silent_server_takes_connections_and_answers_when_it_is_over(start):
    client = await start()
    await order(client, no_answer=True, for_seconds=0.3)
    with pytest.raises(httpx.ReadTimeout):
        await client.http.get("/api/version", timeout=0.1)
    assert (await client.http.get("/api/version", timeout=5)).status_code == 200


async def test_a_load_fails_or_takes_longer_or_stalls(start):
    client = await start(load_timeout_seconds=0.2)
    await order(client, load_fails=True, count=1)
    await order(client, load_stalls=True, count=1)
    await order(client, load_delay_seconds=0.3, count=1)
    failed, stalled, slow = [await client.chat() for _ in range(3)]
    assert failed.status_code == stalled.status_code == 500
    assert failed.json()["error"].startswith("llama-server process has terminated")
    assert stalled.json()["error"].startswith("timed out waiting for llama-server to start")
    assert slow.json()["load_duration"] > 0.3e9


async def test_a_storm_of_503_is_quick_and_has_the_servers_words(start):
    client = await start()
    await order(client, status=503, for_seconds=60)
    answers = [await client.chat() for _ in range(20)]
    assert {answer.status_code for answer in answers} == {503}
    assert answers[0].json()["error"].startswith("server busy, please try again.")
    assert min(answer.elapsed.total_seconds() for answer in answers) < 0.02


async def test_a_model_may_be_missing_for_all_endpoints(start):
    client = await start()
    await order(client, absent=True, model=CHAT)
    answer = await client.chat()
    assert (answer.status_code, answer.json()) == (404, {"error": f"model '{CHAT}' not found"})
    tags = (await client.http.get("/api/tags")).json()["models"]
    assert [model["name"] for model in tags] == ["all-minilm:latest"]
    assert (await client.embed("x")).status_code == 200


async def test_a_slowdown_makes_all_requests_slower_while_it_lasts(start):
    client = await start(tokens_per_second=50)
    before = (await client.chat(options={"num_predict": 10})).json()["eval_duration"]
    await order(client, slowdown=4)
    slow = (await client.chat(options={"num_predict": 10})).json()["eval_duration"]
    assert slow > 2.5 * before


async def test_control_endpoints_fail_or_are_slow_by_their_path(start):
    client = await start()
    await order(client, path="/api/ps", delay_seconds=0.3)
    await order(client, path="/api/version", status=500, count=1)
    await order(client, path="/api/version", version="0.1.2")
    with pytest.raises(httpx.ReadTimeout):
        await client.http.get("/api/ps", timeout=0.1)
    assert (await client.http.get("/api/version")).status_code == 500
    assert (await client.http.get("/api/version")).json() == {"version": "0.1.2"}
    assert (await client.chat()).status_code == 200


async def test_a_garbage_line_stands_between_others(start):
    client = await start()
    await order(client, garbage_after_tokens=2)
    async with client.stream() as response:
        lines = [line async for line in response.aiter_lines()]
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(lines[2])
    assert json.loads(lines[-1])["done"]


async def test_a_chunk_may_be_cut_in_its_middle(start):
    client = await start()
    await order(client, cut_chunk_after_tokens=2)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.lines()


async def test_the_repeat_guard_ends_an_answer_without_its_end(start):
    client = await start()
    await order(client, repeat_guard=True)
    lines = await client.lines()
    assert len(lines) > 30
    assert len({line["message"]["content"] for line in lines}) == 1
    assert not any(line["done"] for line in lines)
    whole = (await client.chat()).json()
    assert whole["done"] is False
    assert "eval_count" not in whole


async def test_another_model_may_be_named_in_replies(start):
    client = await start()
    await order(client, echo_model="impostor")
    assert {line["model"] for line in await client.lines()} == {"impostor"}
    assert (await client.embed("x")).json()["model"] == "impostor"


async def test_a_model_may_be_listed_with_another_digest(start):
    client = await start()
    await client.load()

    async def digests(path):
        models = (await client.http.get(path)).json()["models"]
        return {each["digest"] for each in models}

    before = await digests("/api/tags")
    (own,) = await digests("/api/ps")
    assert own in before
    await order(client, digest="f" * 64, path="/api/ps", model=CHAT)
    assert await digests("/api/ps") == {"f" * 64}
    assert await digests("/api/tags") == before
    await order(client, digest="e" * 64, model=CHAT)
    assert await digests("/api/tags") == before - {own} | {"e" * 64}
    assert await digests("/api/ps") == {"f" * 64}


@pytest.mark.parametrize(
    ("fault", "shape"),
    [
        ({"embeddings_missing": 1}, (1, 384)),
        ({"embeddings_missing": -2}, (4, 384)),
        ({"embedding_dimensions": 7}, (2, 7)),
    ],
)
async def test_embeddings_may_be_too_few_or_too_many_or_of_another_length(start, fault, shape):
    client = await start()
    await order(client, **fault)
    vectors = (await client.embed("x", "y")).json()["embeddings"]
    assert (len(vectors), len(vectors[0])) == shape


async def test_embeddings_may_hold_what_is_no_number(start):
    client = await start()
    await order(client, embedding_nan=True)
    response = await client.embed("x", "y")
    assert response.content.count(b"[NaN,") == 2


async def test_a_child_that_dies_takes_all_its_requests_along(start):
    client = await start(tokens_per_second=100, num_parallel=2)
    await client.load()
    await order(client, kill_child_after_tokens=5, count=1)
    dying, other = (asyncio.ensure_future(client.chat()) for _ in range(2))
    assert (await dying).status_code == (await other).status_code == 500
    assert (await client.chat()).status_code == 200


async def test_a_hung_request_ends_with_its_child(start):
    client = await start()
    await client.load()
    await order(client, hang=True, count=1)
    hung = asyncio.ensure_future(client.chat())
    await client.until("/api/chat", lambda entry: entry["faults"] == ["hang"])
    await order(client, kill_child=True, model=CHAT)
    assert (await hung).status_code == 500
    assert (await client.chat()).status_code == 200
