"""The shape of answers, streamed and whole, and what a disconnect does."""

import re
import time

import httpx
import pytest

from services.common.clock import SystemClock
from services.standin.server import run_server
from services.standin.settings import Settings

CHAT = "extractive-standin"
FACTS = "Paris is the capital of France. Rome is the capital of Italy. Capital of Italy?"


async def test_a_stream_is_lines_of_json_and_ends_with_metrics(start):
    client = await start()
    async with client.stream() as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["transfer-encoding"] == "chunked"
        raw = [line async for line in response.aiter_lines()]
    lines = [httpx.Response(200, content=line).json() for line in raw]
    *content, final = lines
    assert all(line["done"] is False for line in content)
    assert all(set(line) == {"model", "created_at", "message", "done"} for line in content)
    assert final["done"] is True
    assert final["done_reason"] == "stop"
    assert final["message"] == {"role": "assistant", "content": ""}
    assert final["eval_count"] == len(content)
    for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        assert isinstance(final[name], int)
    assert final["total_duration"] >= final["load_duration"] + final["eval_duration"]
    assert "context" not in final


async def test_the_whole_answer_is_the_stream_joined(start):
    client = await start()
    lines = await client.lines()
    whole = (await client.lines(stream=False))[0]
    assert whole["message"]["content"] == "".join(line["message"]["content"] for line in lines)
    assert whole["done_reason"] == "stop"


async def test_a_whole_answer_has_a_length_and_the_json_type(start):
    response = await (await start()).chat()
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert int(response.headers["content-length"]) == len(response.content)


async def test_generate_answers_with_its_context_unless_raw(start):
    client = await start()
    answer = await client.post("/api/generate", model=CHAT, prompt=FACTS, stream=False)
    raw = await client.post("/api/generate", model=CHAT, prompt=FACTS, stream=False, raw=True)
    assert answer.json()["response"].startswith("Rome is the capital of Italy.")
    counts = answer.json()["prompt_eval_count"] + answer.json()["eval_count"]
    assert len(answer.json()["context"]) == counts
    assert "context" not in raw.json()


async def test_sources_in_the_prompt_are_cited(start):
    prompt = '<source id="3" title="t">\nThe cache holds vectors.\n</source>\n\nQuestion: cache?'
    messages = [{"role": "system", "content": "Cite."}, {"role": "user", "content": prompt}]
    answer = (await (await start()).chat(messages=messages)).json()
    assert answer["message"]["content"] == "The cache holds vectors [3]."


async def test_markup_is_escaped_as_go_does(start):
    client = await start()
    response = await client.post(
        "/api/generate", model=CHAT, prompt="Use <b> & </b> in markup text. Which markup?"
    )
    assert rb"\u003c" in response.content
    assert rb"\u0026" in response.content
    assert b"<" not in response.content


async def test_the_model_is_echoed_as_the_client_wrote_it(start):
    answer = (await (await start()).chat(model="Extractive-STANDIN:Latest")).json()
    assert answer["model"] == "Extractive-STANDIN:Latest"


async def test_timestamps_are_utc_without_trailing_zeros(start):
    for line in await (await start()).lines():
        assert re.fullmatch(r"[\d-]{10}T[\d:]{8}(\.\d{0,8}[1-9])?Z", line["created_at"])


async def test_zero_durations_and_counts_are_left_out(start):
    client = await start()
    loaded = (await client.post("/api/generate", model=CHAT)).json()
    assert set(loaded) == {"model", "created_at", "response", "done", "done_reason"}


async def test_num_predict_ends_an_answer_with_length(start):
    answer = (await (await start()).chat(options={"num_predict": 3})).json()
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 3)


async def test_tokens_come_at_the_configured_rate(start):
    client = await start(tokens_per_second=100)
    answer = (await client.chat(options={"num_predict": 20})).json()
    assert answer["eval_duration"] >= 20 / 100 * 1e9


async def test_a_prompt_is_read_at_the_configured_rate(start):
    client = await start(prefill_tokens_per_second=500)
    answer = (await client.chat()).json()
    assert answer["prompt_eval_duration"] >= answer["prompt_eval_count"] / 500 * 1e9


async def test_nothing_is_sent_before_the_first_token(start):
    client = await start(load_seconds=0.1, prefill_tokens_per_second=500)
    begun = time.monotonic()
    async with client.stream() as response:
        headers_seconds = time.monotonic() - begun
        lines = [line async for line in response.aiter_lines()]
    final = httpx.Response(200, content=lines[-1]).json()
    assert headers_seconds * 1e9 >= final["load_duration"] + final["prompt_eval_duration"]


async def test_a_disconnect_stops_the_answer_within_two_tokens(start):
    client = await start(tokens_per_second=100)
    async with client.stream() as response:
        async for _ in response.aiter_lines():
            break
    entry = await client.until("/api/chat", lambda entry: entry["outcome"] == "cancelled")
    assert entry["tokens_after_disconnect"] <= 2
    assert entry["tokens"] < 40
    assert (await client.chat(options={"num_predict": 1})).status_code == 200


async def test_a_disconnect_of_a_whole_answer_stops_it_too(start):
    client = await start(tokens_per_second=50)
    await client.load()
    with pytest.raises(httpx.ReadTimeout):
        await client.http.post(
            "/api/generate",
            json={"model": CHAT, "prompt": FACTS, "stream": False},
            timeout=httpx.Timeout(5, read=0.08),
        )
    entry = await client.until("/api/generate", lambda entry: entry["outcome"] == "cancelled")
    assert entry["tokens_after_disconnect"] <= 2


async def test_the_end_of_the_server_cuts_its_streams():
    settings = Settings(port=0, load_seconds=0, tokens_per_second=20)
    async with httpx.AsyncClient() as http:
        async with run_server(settings, SystemClock()) as port:
            url = f"http://127.0.0.1:{port}/api/generate"
            request = http.build_request("POST", url, json={"model": CHAT, "prompt": FACTS})
            lines = (await http.send(request, stream=True)).aiter_lines()
            await anext(lines)
        with pytest.raises(httpx.TransportError):
            [line async for line in lines]
