"""Slots, loads, queue and keep-alive over HTTP."""

import asyncio

import httpx
import pytest

CHAT = "extractive-standin"
EMBED = "all-minilm"


async def run_all(*requests):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(request) for request in requests]
    return [task.result() for task in tasks]


def slot_wait_seconds(answer):
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    return (answer["total_duration"] - sum(answer[part] for part in parts)) / 1e9


async def test_with_one_slot_requests_run_one_after_another(start):
    client = await start(tokens_per_second=100)
    await client.load()
    options = {"num_predict": 15}
    answers = await run_all(*(client.chat(options=options) for _ in range(3)))
    waits = sorted(slot_wait_seconds(answer.json()) for answer in answers)
    assert waits[1] > 0.1
    assert waits[2] > waits[1] + 0.1


async def test_with_two_slots_two_requests_run_at_once(start):
    client = await start(tokens_per_second=10, num_parallel=2)
    first, second = (asyncio.ensure_future(client.chat()) for _ in range(2))
    await client.until("/api/chat", lambda entry: entry["tokens"] > 0, count=2)
    assert not first.done()
    assert not second.done()
    first.cancel()
    second.cancel()


async def test_waiting_for_a_slot_ends_with_a_disconnect(start):
    client = await start(tokens_per_second=50)
    await client.load()
    running = asyncio.ensure_future(client.chat())
    await client.until("/api/chat", lambda entry: entry["tokens"] > 0)
    with pytest.raises(httpx.ReadTimeout):
        await client.http.post(
            "/api/generate",
            json={"model": CHAT, "prompt": "One two three four five. One?"},
            timeout=httpx.Timeout(5, read=0.05),
        )
    left = await client.until("/api/generate", lambda entry: entry["outcome"] == "cancelled")
    assert left["tokens"] == 0
    assert (await running).status_code == 200


async def test_a_cold_load_ends_with_its_requester_and_starts_anew(start):
    client = await start(load_seconds=0.8)
    first = asyncio.ensure_future(
        client.http.post("/api/chat", json={"model": CHAT}, timeout=httpx.Timeout(5, read=0.3))
    )
    await client.until("/api/chat", lambda entry: entry["outcome"] == "active")
    second = asyncio.ensure_future(client.chat())
    with pytest.raises(httpx.ReadTimeout):
        await first
    assert await client.loaded() == []
    answer = (await second).json()
    assert answer["load_duration"] > 0.8e9


async def test_the_load_queue_is_bounded_and_says_so(start):
    client = await start(load_seconds=0.5, max_queue=2)
    first = asyncio.ensure_future(client.chat())
    await client.until("/api/chat", lambda entry: entry["outcome"] == "active")
    others = await run_all(*(client.chat() for _ in range(4)))
    refused = [response for response in others if response.status_code == 503]
    assert len(refused) == 2
    assert refused[0].json() == {
        "error": "server busy, please try again.  maximum pending requests exceeded"
    }
    assert (await first).status_code == 200


async def test_the_queue_bound_does_not_protect_a_loaded_model(start):
    client = await start(max_queue=1)
    await client.load()
    answers = await run_all(*(client.chat(options={"num_predict": 1}) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}


async def test_another_model_waits_until_the_loaded_one_is_idle(start):
    client = await start(max_loaded_models=1, tokens_per_second=20)
    await client.load()
    chat = asyncio.ensure_future(client.chat(options={"num_predict": 20}))
    await client.until("/api/chat", lambda entry: entry["tokens"] > 0)
    embedded = (await client.embed("text")).json()
    assert embedded["load_duration"] > 0.1e9
    assert (await chat).status_code == 200
    assert [model["name"] for model in await client.loaded()] == ["all-minilm:latest"]


async def test_other_load_options_reload_and_ps_tells_the_context(start):
    client = await start(load_seconds=0.3)
    await client.load()
    assert (await client.loaded())[0]["context_length"] == 4096
    again = (await client.chat(options={"num_ctx": 4096})).json()
    other = (await client.chat(options={"num_ctx": 2048})).json()
    assert again["load_duration"] < 0.3e9 <= other["load_duration"]
    assert (await client.loaded())[0]["context_length"] == 2048


async def test_an_empty_request_loads_and_one_with_keep_alive_zero_unloads(start):
    client = await start()
    loaded = await client.post("/api/chat", model=CHAT, messages=[])
    assert loaded.headers["content-type"] == "application/json; charset=utf-8"
    assert loaded.json()["done_reason"] == "load"
    assert loaded.json()["message"] == {"role": "assistant", "content": ""}
    assert [model["name"] for model in await client.loaded()] == [f"{CHAT}:latest"]
    unloaded = await client.post("/api/generate", model=CHAT, keep_alive=0)
    assert (unloaded.json()["done_reason"], unloaded.json()["response"]) == ("unload", "")
    assert await client.loaded() == []
    assert (await client.post("/api/generate", model=CHAT, keep_alive=0)).status_code == 200


async def test_an_empty_embed_request_loads(start):
    client = await start()
    for value in ("", [], None):
        response = await client.post("/api/embed", model=EMBED, input=value)
        assert response.json()["embeddings"] == []
    assert len(await client.loaded()) == 1


async def test_keep_alive_ends_and_sticks(start):
    client = await start()
    await client.load(keep_alive="50ms")
    await client.chat(options={"num_predict": 1})
    async with asyncio.timeout(2):
        while await client.loaded():
            await asyncio.sleep(0.01)


async def test_a_negative_keep_alive_expires_in_three_centuries(start):
    client = await start()
    await client.load(keep_alive=-1)
    [model] = await client.loaded()
    assert int(model["expires_at"][:4]) > 2300


async def test_control_endpoints_answer_while_all_slots_are_taken(start):
    client = await start(tokens_per_second=20)
    running = asyncio.ensure_future(client.chat())
    await client.until("/api/chat", lambda entry: entry["tokens"] > 0)
    assert (await client.http.get("/api/version", timeout=0.5)).status_code == 200
    assert len(await client.loaded()) == 1
    running.cancel()
