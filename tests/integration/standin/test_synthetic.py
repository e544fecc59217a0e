"""Synthetic models over HTTP: their rates, their prompt cache, tools and thinking."""

import asyncio
import json

import pytest

from services.standin.core.profile import ModelSpec

CHAT = ModelSpec(
    name="chat",
    capabilities=("tools", "thinking"),
    prefill_tokens_per_second=2000.0,
    decode_tokens_per_second=200.0,
)
EMBED = ModelSpec(name="embed", capability="embedding", embedding_length=768)
MODELS = {"builtin_models": False, "models": (CHAT, EMBED), "load_seconds": 0.0}
LONG = "x" * 800


async def ask(client, prompt, model="chat", **fields):
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": False}
    return (await client.post("/api/chat", **body | fields)).json()


async def totals(client):
    return (await client.http.get("/standin/totals")).json()


async def run_all(*requests):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(request) for request in requests]
    return [task.result() for task in tasks]


def seconds(answer, part):
    return answer[f"{part}_duration"] / 1e9


async def test_a_server_without_builtin_models_holds_the_profiles_only(start):
    client = await start(**MODELS)
    tags = (await client.http.get("/api/tags")).json()["models"]
    assert {tag["name"]: tag["capabilities"] for tag in tags} == {
        "chat:latest": ["completion", "tools", "thinking"],
        "embed:latest": ["embedding"],
    }


async def test_counts_and_durations_follow_the_profile(start):
    client = await start(**MODELS)
    answer = await ask(client, f"{LONG}<<tokens=30>>")
    assert (answer["prompt_eval_count"], answer["eval_count"]) == ((800 + 13 + 3) // 4, 30)
    assert seconds(answer, "prompt_eval") >= 203 / 2000
    assert 0.15 <= seconds(answer, "eval") < 0.3


async def test_speed_and_time_scale_multiply_the_rates(start):
    client = await start(**MODELS, speed=0.5, time_scale=8)
    answer = await ask(client, "<<tokens=800>>")
    assert 800 / 800 <= seconds(answer, "eval") < 1.5


async def test_two_active_requests_share_the_machine(start):
    client = await start(**MODELS, num_parallel=2)
    await ask(client, "<<tokens=1>>")
    answers = await run_all(*(ask(client, "<<tokens=80>>") for _ in range(2)))
    assert all(0.72 <= seconds(answer, "eval") < 1.6 for answer in answers)


async def test_lines_hold_one_token_each_even_if_they_come_together(start):
    client = await start(**MODELS, time_scale=20)
    messages = [{"role": "user", "content": "<<tokens=200>>"}]
    async with client.http.stream(
        "POST", "/api/chat", json={"model": "chat", "messages": messages}
    ) as response:
        chunks = [chunk async for chunk in response.aiter_raw()]
    lines = [json.loads(line) for line in b"".join(chunks).splitlines()]
    assert len(lines) == 201
    assert all(len(line["message"]["content"]) == 4 for line in lines[:-1])
    assert len(chunks) < 60


async def test_a_prompt_is_read_only_where_it_is_new(start):
    client = await start(**MODELS)
    longer = "x" * 4000
    first = await ask(client, f"{longer}one<<tokens=1>>")
    again = await ask(client, f"{longer}two<<tokens=1>>")
    assert first["prompt_eval_count"] == again["prompt_eval_count"]
    assert seconds(again, "prompt_eval") < seconds(first, "prompt_eval") / 4
    entries = await client.requests("/api/chat")
    assert [entry["cached_tokens"] for entry in entries] == [0, 1000]
    assert {entry["prompt_tokens"] for entry in entries} == {again["prompt_eval_count"]}


async def test_alternating_conversations_stay_in_host_memory(start):
    client = await start(**MODELS)
    for letter in "abab":
        await ask(client, f"{letter * 400}<<tokens=1>>")
    entries = await client.requests("/api/chat")
    assert [entry["cached_tokens"] > 90 for entry in entries] == [False, False, True, True]


@pytest.mark.parametrize("tokens", [0, 50])
async def test_without_enough_host_memory_they_evict_each_other(start, tokens):
    client = await start(**MODELS, prompt_cache_tokens=tokens)
    for letter in "abab":
        await ask(client, f"{letter * 400}<<tokens=1>>")
    assert (await totals(client))["cached_tokens"] == 0


async def test_an_unload_forgets_all_prompts(start):
    client = await start(**MODELS)
    await ask(client, f"{LONG}<<tokens=1>>")
    await client.post("/api/generate", model="chat", keep_alive=0)
    await ask(client, f"{LONG}<<tokens=1>>")
    assert (await totals(client))["cached_tokens"] == 0


async def test_the_extractive_model_remembers_prompts_too(start):
    client = await start()
    for _ in range(2):
        await client.chat()
    first, second = await client.requests("/api/chat")
    assert (first["cached_tokens"], second["cached_tokens"]) == (0, second["prompt_tokens"] - 1)


async def test_a_tool_is_called_in_one_line_before_the_last(start):
    client = await start(**MODELS, time_scale=20)
    messages = [{"role": "user", "content": '<<tool=add {"a": 1, "b": [2]}>>'}]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    body = {"model": "chat", "messages": messages, "tools": tools}
    whole = (await client.post("/api/chat", **body, stream=False)).json()
    lines = await client.lines(**body)
    assert len(lines) == 2
    for message in (whole["message"], lines[0]["message"]):
        [call] = message["tool_calls"]
        assert call["id"].startswith("call_")
        assert call["function"] == {"index": 0, "name": "add", "arguments": {"a": 1, "b": [2]}}
    assert lines[1]["done_reason"] == "stop"


async def test_thinking_has_lines_of_its_own(start):
    client = await start(**MODELS, time_scale=20)
    messages = [{"role": "user", "content": "<<thinking=3>><<tokens=2>>"}]
    lines = await client.lines(model="chat", messages=messages)
    thinking = [line["message"].get("thinking") for line in lines]
    assert [bool(text) for text in thinking] == [True] * 3 + [False] * 3
    assert all(line["message"]["content"] == "" for line in lines[:3])
    assert lines[-1]["eval_count"] == 5
    whole = await ask(client, "<<thinking=3>><<tokens=2>>")
    assert whole["message"]["thinking"] == "".join(thinking[:3])
    assert "thinking" not in (await ask(client, "<<thinking=3>>", think=False))["message"]


async def test_logprobs_come_with_their_tokens(start):
    client = await start(**MODELS, time_scale=20)
    messages = [{"role": "user", "content": "<<tokens=2>>"}]
    first, *_ = await client.lines(model="chat", messages=messages, logprobs=True, top_logprobs=2)
    [entry] = first["logprobs"]
    assert entry["token"] == first["message"]["content"]
    assert entry["logprob"] <= 0
    assert len(entry["top_logprobs"]) == 2


async def test_a_batch_takes_the_time_of_its_tokens(start):
    client = await start(**MODELS, prefill_tokens_per_second=500)
    body = (await client.embed(*["y" * 40] * 10, model="embed")).json()
    assert seconds(body, "total") >= 100 / 500
    assert body["prompt_eval_count"] == 100
    assert {len(vector) for vector in body["embeddings"]} == {768}


async def test_totals_count_what_happened_until_they_are_cleared(start):
    client = await start(**MODELS)
    await ask(client, "<<tokens=1>>")
    await run_all(*(ask(client, "<<tokens=40>>") for _ in range(3)))
    counted = await totals(client)
    assert (counted["requests"], counted["loads"], counted["output_tokens"]) == (4, 1, 121)
    assert counted["slot_waits"] == 2
    assert counted["slot_wait_seconds"] > counted["max_slot_wait_seconds"] > 0.05
    assert counted["max_concurrent_requests"] == {"chat:latest": 3}
    cleared = (await client.http.delete("/standin/totals")).json()
    assert (cleared["requests"], cleared["max_concurrent_requests"]) == (0, {})
