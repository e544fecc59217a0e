"""Embeddings over HTTP."""

import asyncio

import numpy as np
import pytest

EMBED = "all-minilm"
TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


async def test_vectors_come_in_the_order_of_the_inputs(start):
    client = await start()
    body = (await client.embed(*TEXTS)).json()
    vectors = np.array(body["embeddings"])
    assert vectors.shape == (3, 384)
    assert body["model"] == EMBED
    singles = [(await client.embed(text)).json()["embeddings"][0] for text in TEXTS]
    np.testing.assert_allclose(vectors, singles, atol=1e-5)
    assert vectors[0] @ vectors[1] == pytest.approx(0.6660, abs=1e-3)


async def test_a_big_batch_keeps_its_order_across_groups(start):
    client = await start()
    texts = [f"{TEXTS[number % 3]} " * (1 + number % 20) for number in range(30)]
    vectors = np.array((await client.embed(*texts)).json()["embeddings"])
    for number in (0, 17, 29):
        [single] = (await client.embed(texts[number])).json()["embeddings"]
        np.testing.assert_allclose(vectors[number], single, atol=2e-5)


async def test_one_text_may_come_alone_and_an_empty_one_in_a_list(start):
    client = await start()
    alone = await client.post("/api/embed", model=EMBED, input=TEXTS[0])
    assert len(alone.json()["embeddings"]) == 1
    assert len((await client.embed("")).json()["embeddings"]) == 1


async def test_tokens_are_counted_over_all_inputs(start):
    client = await start()
    one, two = (await client.embed("word")).json(), (await client.embed("word", "word")).json()
    assert (one["prompt_eval_count"], two["prompt_eval_count"]) == (3, 6)
    assert one["total_duration"] >= one["load_duration"]


@pytest.mark.parametrize(("dimensions", "length"), [(100, 100), (384, 384), (500, 384), (0, 384)])
async def test_dimensions_cut_and_normalise_again(start, dimensions, length):
    client = await start()
    [whole] = (await client.embed(TEXTS[0])).json()["embeddings"]
    [vector] = (await client.embed(TEXTS[0], dimensions=dimensions)).json()["embeddings"]
    assert len(vector) == length
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    expected = np.array(whole[:length]) / np.linalg.norm(whole[:length])
    np.testing.assert_allclose(vector, expected, atol=1e-6)


async def test_a_long_text_is_cut_to_the_context(start):
    client = await start()
    long = (await client.embed("word " * 300)).json()
    cut = (await client.embed("word " * 254)).json()
    assert long["prompt_eval_count"] == 256
    np.testing.assert_allclose(long["embeddings"], cut["embeddings"], atol=1e-6)


async def test_numbers_are_the_shortest_text_of_their_float32(start):
    client = await start()
    text = (await client.embed(TEXTS[0])).text
    numbers = text.split("[[")[1].split("]]")[0].split(",")
    assert all(len(number.lstrip("-0.").split("e")[0]) <= 9 for number in numbers)


async def test_the_legacy_endpoint_embeds_one_prompt(start):
    client = await start()
    [vector] = (await client.embed(TEXTS[0])).json()["embeddings"]
    legacy = await client.post("/api/embeddings", model=EMBED, prompt=TEXTS[0])
    assert legacy.json() == {"embedding": vector}
    empty = await client.post("/api/embeddings", model=EMBED, prompt="")
    assert empty.json() == {"embedding": []}


async def test_another_request_waits_behind_all_texts_of_a_big_batch(start):
    client = await start()
    await client.load(EMBED)
    big = asyncio.ensure_future(client.embed(*["word " * 250] * 9))
    await client.until("/api/embed", lambda entry: entry["inputs"] == 9)
    assert (await client.embed("small")).status_code == 200
    assert big.done()
    assert len((await big).json()["embeddings"]) == 9


async def test_a_disconnect_stops_a_batch(start):
    client = await start()
    await client.load(EMBED)
    big = asyncio.ensure_future(client.embed(*["word " * 250] * 60))
    await client.until("/api/embed", lambda entry: entry["inputs"] == 60 and entry["tokens"] > 0)
    big.cancel()
    entry = await client.until("/api/embed", lambda entry: entry["outcome"] == "cancelled")
    assert entry["tokens"] < 60 * 250
