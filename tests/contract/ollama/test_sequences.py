"""Sequences of calls: queue, loads, keep-alive, slots and disconnects (sections 0, 7 and 11)."""

import asyncio
import json
import time
from datetime import UTC, datetime

import httpx
import pytest

from services.standin.core.profile import ModelSpec

# At the speeds used here an answer that others arrive during, however late.
FORTY = {"text": "<<tokens=40>>", "options": {"num_predict": 40}}


async def all_of(*coroutines):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in coroutines]
    return [task.result() for task in tasks]


def leave_after(seconds):
    """A timeout after which the client closes its connection."""
    return httpx.Timeout(10, read=seconds)


async def expires_in(server, role):
    [entry] = [each for name, each in (await server.loaded()).items() if name.startswith(role)]
    expires_at = datetime.fromisoformat(entry["expires_at"])
    return (expires_at - datetime.now(UTC)).total_seconds()


async def test_a_cold_burst_beyond_the_queue_is_refused(start):
    server = await start(load_seconds=0.5, max_queue=3)
    answers = await all_of(*(server.answer() for _ in range(8)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 8 - 3 - 1
    assert refused[0].json() == {
        "error": "server busy, please try again.  maximum pending requests exceeded"
    }
    assert "retry-after" not in refused[0].headers
    assert {answer.status_code for answer in answers} == {200, 503}


async def test_a_hot_burst_of_the_same_size_is_not(start):
    server = await start(max_queue=1)
    await server.answer("")
    answers = await all_of(*(server.answer() for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}


async def test_a_hot_burst_runs_one_after_another_and_its_wait_is_in_no_duration(start):
    server = await start(tokens_per_second=20)
    await server.answer("")
    answers = [a.json() for a in await all_of(*(server.answer("<<tokens=8>>") for _ in range(3)))]
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    hidden = sorted(a["total_duration"] - sum(a[part] for part in parts) for a in answers)
    assert hidden[0] < 200e6
    assert hidden[1] > 200e6
    assert hidden[2] > 500e6


async def test_headers_come_with_the_first_token(start):
    server = await start(
        load_seconds=0.2, prefill_tokens_per_second=50, models=(ModelSpec(name="chat-model"),)
    )
    began = time.monotonic()
    async with server.stream(3) as response:
        headers_seconds = time.monotonic() - began
        lines = [json.loads(line) async for line in response.aiter_lines()]
    prompt_seconds = lines[-1]["prompt_eval_duration"] / 1e9
    assert prompt_seconds > 0.1
    assert headers_seconds > 0.2 + prompt_seconds


async def test_another_num_ctx_reloads_and_going_back_reloads_again(server):
    contexts = []
    for num_ctx in (1024, 1024, 512, 1024):
        options = {"num_ctx": num_ctx, "num_predict": 1}
        assert (await server.answer(options=options)).status_code == 200
        contexts += [
            each["context_length"]
            for name, each in (await server.loaded()).items()
            if name.startswith(server.model("chat"))
        ]
    assert contexts == [1024, 1024, 512, 1024]
    if not server.is_real:
        assert (await server.http.get("/standin/totals")).json()["loads"] == 3


async def test_temperature_and_num_predict_reload_nothing(start):
    server = await start()
    for options in ({}, {"temperature": 0.1}, {"num_predict": 3, "seed": 7}):
        await server.answer(options=options)
    assert (await server.http.get("/standin/totals")).json()["loads"] == 1


async def test_a_reload_waits_for_the_requests_that_run_and_can_be_starved(start):
    server = await start(tokens_per_second=100)
    await server.answer("")
    first = asyncio.ensure_future(server.answer(**FORTY))
    await server.until("/api/generate", lambda entry: entry["tokens"] > 0)
    reload = asyncio.ensure_future(server.answer(options={"num_ctx": 512, "num_predict": 1}))
    await server.until("/api/generate", lambda entry: entry["outcome"] == "active", count=2)
    second = await server.answer("<<tokens=8>>")
    assert second.json()["load_duration"] < 50e6
    assert (await first).status_code == 200
    assert (await reload).json()["load_duration"] > 80e6


async def test_a_cold_load_behind_a_pending_reload_waits_with_it(start):
    server = await start(tokens_per_second=100)
    await server.answer("")
    running = asyncio.ensure_future(server.answer(**FORTY))
    await server.until("/api/generate", lambda entry: entry["tokens"] > 0)
    reload = asyncio.ensure_future(server.answer(options={"num_ctx": 512, "num_predict": 1}))
    await server.until("/api/generate", lambda entry: entry["outcome"] == "active", count=2)
    other = await server.post("/api/embed", model="<embed>", input="x")
    assert running.done()
    assert other.json()["load_duration"] > 30e6
    assert (await reload).status_code == 200


async def test_a_load_is_aborted_by_its_leaving_client_and_the_next_starts_from_zero(start):
    server = await start(load_seconds=0.6)
    body = server.fill({"model": "<chat>", "prompt": "x"})
    first = asyncio.ensure_future(
        server.http.post("/api/generate", json=body, timeout=leave_after(0.3))
    )
    await server.until("/api/generate", lambda entry: entry["outcome"] == "active")
    second = asyncio.ensure_future(server.answer())
    with pytest.raises(httpx.ReadTimeout):
        await first
    assert await server.loaded() == {}
    assert (await second).json()["load_duration"] > 0.6e9
    totals = (await server.http.get("/standin/totals")).json()
    assert (totals["loads"], totals["aborted_loads"]) == (2, 1)


async def test_ps_lists_a_model_only_when_it_is_loaded(start):
    server = await start(load_seconds=0.3)
    loading = asyncio.ensure_future(server.answer(""))
    await server.until("/api/generate", lambda entry: entry["outcome"] == "active")
    assert await server.loaded() == {}
    await loading
    assert list(await server.loaded()) == ["chat-model:latest"]


async def test_the_last_explicit_keep_alive_sticks(server):
    await server.answer(keep_alive=20)
    await server.answer()
    assert 10 < await expires_in(server, server.model("chat")) <= 20
    await server.answer(keep_alive="10m")
    await server.answer(keep_alive=None)
    assert 500 < await expires_in(server, server.model("chat")) <= 600


async def test_expires_at_does_not_move_while_a_request_runs(start):
    server = await start(tokens_per_second=100)
    await server.answer("")
    [before] = (await server.loaded()).values()
    async with server.stream(30) as response:
        await anext(response.aiter_lines())
        [during] = (await server.loaded()).values()
        assert during["expires_at"] == before["expires_at"]


async def test_keep_alive_zero_unloads_when_the_answer_ends(server):
    await server.answer(keep_alive=0)
    await server.is_loaded("chat", expected=False)


async def test_keep_alive_zero_of_an_empty_request_waits_for_the_running_one(start):
    server = await start(tokens_per_second=100)
    await server.answer("")
    running = asyncio.ensure_future(server.answer(**FORTY))
    await server.until("/api/generate", lambda entry: entry["tokens"] > 0)
    reply = await server.post("/api/generate", model="<chat>", keep_alive=0)
    assert reply.json()["done_reason"] == "unload"
    assert len(await server.loaded()) == 1
    assert (await running).status_code == 200
    assert await server.loaded() == {}


async def test_a_negative_keep_alive_is_for_ever(server):
    await server.answer(keep_alive=-1)
    assert await expires_in(server, server.model("chat")) > 100 * 365 * 86_400
    await server.answer(keep_alive="5m")


async def test_a_model_that_does_not_fit_waits_for_the_busy_one_to_go(start):
    server = await start(max_loaded_models=1, tokens_per_second=100)
    await server.answer("")
    running = asyncio.ensure_future(server.answer("<<tokens=8>>"))
    await server.until("/api/generate", lambda entry: entry["tokens"] > 0)
    other = await server.post("/api/embed", model="<embed>", input="x")
    assert running.done()
    assert other.status_code == 200
    assert list(await server.loaded()) == ["embed-model:latest"]


async def test_memory_is_made_free_and_a_model_that_never_fits_fails(start):
    server = await start(memory_bytes=1_500_000_000)
    await server.answer("")
    await server.post("/api/embed", model="<embed>", input="x")
    assert list(await server.loaded()) == ["embed-model:latest"]
    reply = await server.post("/api/generate", model="<big>", prompt="x")
    assert reply.status_code == 500
    assert reply.json()["error"].startswith("llama-server process has terminated")


async def test_a_disconnect_frees_the_slot_within_two_tokens(server):
    async with server.stream(400) as response:
        await anext(response.aiter_lines())
    began = time.monotonic()
    assert (await server.answer()).status_code == 200
    assert time.monotonic() - began < 5
    if not server.is_real:
        [left] = [e for e in await server.entries("/api/generate") if e["outcome"] == "cancelled"]
        assert left["tokens_after_disconnect"] <= 2


async def test_a_leaked_slot_hangs_the_model_silently_until_it_is_loaded_anew(start):
    server = await start(tokens_per_second=200)
    await server.http.post("/standin/faults", json={"leak_on_disconnect": True, "count": 1})
    async with server.stream(400) as response:
        await anext(response.aiter_lines())
    await server.until("/api/generate", lambda entry: entry["outcome"] == "cancelled")
    body = server.fill({"model": "<chat>", "prompt": "x"})
    with pytest.raises(httpx.ReadTimeout):
        await server.http.post("/api/generate", json=body, timeout=leave_after(0.3))
    assert (await server.http.get("/api/version")).status_code == 200
    assert len(await server.loaded()) == 1
    assert (await server.post("/api/generate", model="<chat>")).status_code == 200
    await server.post("/api/generate", model="<chat>", keep_alive=0)
    await server.is_loaded("chat", expected=False)
    assert (await server.answer()).status_code == 200


async def test_two_slots_lose_one_to_a_leak_and_go_on_with_the_other(start):
    server = await start(tokens_per_second=200, num_parallel=2)
    await server.http.post("/standin/faults", json={"leak_on_disconnect": True, "count": 1})
    async with server.stream(400) as response:
        await anext(response.aiter_lines())
    await server.until("/api/generate", lambda entry: entry["outcome"] == "cancelled")
    both = await all_of(server.answer(**FORTY), server.answer(**FORTY))
    assert {answer.status_code for answer in both} == {200}
    totals = (await server.http.get("/standin/totals")).json()
    assert totals["slot_waits"] == 1


async def test_a_killed_child_ends_its_answers_in_band_and_is_replaced(start):
    server = await start(tokens_per_second=100)
    async with server.stream(50) as response:
        lines = response.aiter_lines()
        await anext(lines)
        await server.http.post("/standin/faults", json={"kill_child": True})
        last = [json.loads(line) async for line in lines][-1]
    assert last == {"error": "an error was encountered while running the model: unexpected EOF"}
    assert (await server.answer()).status_code == 200
    assert (await server.http.get("/standin/totals")).json()["loads"] == 2


async def test_the_model_is_echoed_as_it_was_asked_for(server):
    name = server.model("chat").upper()
    reply = await server.answer(model=name)
    assert reply.json()["model"] == name


async def test_a_copy_shares_what_is_loaded_with_its_source(start):
    server = await start()
    await server.answer("")
    await server.post("/api/copy", source="<chat>", destination="twin")
    reply = await server.answer(model="twin")
    assert reply.json()["load_duration"] < 100e6
    assert list(await server.loaded()) == ["chat-model:latest"]
    tags = {m["name"]: m for m in (await server.http.get("/api/tags")).json()["models"]}
    assert tags["twin:latest"]["digest"] == tags["chat-model:latest"]["digest"]


async def test_one_text_waits_behind_all_texts_of_a_batch(start):
    server = await start(prefill_tokens_per_second=100)
    await server.post("/api/embed", model="<embed>", input=[])
    batch = asyncio.ensure_future(
        server.post("/api/embed", model="<embed>", input=["four char"] * 8)
    )
    await server.until("/api/embed", lambda entry: entry["inputs"] == 8)
    one = await server.post("/api/embed", model="<embed>", input="one")
    assert batch.done()
    assert one.json()["total_duration"] > 0.15e9


async def test_embeddings_are_unit_vectors_and_dimensions_cut_them(server):
    texts = ["one", "two"]
    whole = (await server.post("/api/embed", model="<embed>", input=texts)).json()["embeddings"]
    again = (await server.post("/api/embed", model="<embed>", input=texts)).json()["embeddings"]
    cut = await server.post("/api/embed", model="<embed>", input=texts, dimensions=8)
    assert whole == again
    assert whole[0] != whole[1]
    for vector in (*whole, *cut.json()["embeddings"]):
        assert sum(number * number for number in vector) == pytest.approx(1.0, abs=1e-4)
    assert {len(vector) for vector in cut.json()["embeddings"]} == {8}
    more = await server.post("/api/embed", model="<embed>", input="one", dimensions=10_000)
    assert more.json()["embeddings"][0] == whole[0]
