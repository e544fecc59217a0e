"""Pull, create, copy, delete and blobs over HTTP."""

import asyncio
import hashlib
import json
import struct

import pytest

from services.standin.core.profile import ModelSpec

MODELS = (
    ModelSpec(name="base", decode_tokens_per_second=5000.0),
    ModelSpec(name="far", size_bytes=1_000_000, remote=True),
)
SETTINGS = {"builtin_models": False, "models": MODELS, "load_seconds": 0.0}


def gguf(**keys):
    """The head of a GGUF file."""
    kinds = {str: (8, None), int: (4, "<I"), list: (9, None)}

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    body = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
    for key, value in keys.items():
        kind, layout = kinds[type(value)]
        body += text(key) + struct.pack("<I", kind)
        if isinstance(value, str):
            body += text(value)
        elif isinstance(value, list):
            body += struct.pack("<IQ", 8, len(value)) + b"".join(map(text, value))
        else:
            body += struct.pack(layout, value)
    return body


async def lines(client, path, **fields):
    async with client.http.stream("POST", path, json=fields) as response:
        assert response.status_code == 200
        return [json.loads(line) async for line in response.aiter_lines()]


async def upload(client, data):
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    response = await client.http.post(f"/api/blobs/{digest}", content=data)
    assert response.status_code in {200, 201}
    return digest, response.status_code


async def tags(client):
    found = (await client.http.get("/api/tags")).json()["models"]
    return {entry["name"]: entry for entry in found}


async def test_a_pull_tells_its_progress_and_installs_the_model(start):
    client = await start(**SETTINGS, pull_bytes_per_second=1_000_000)
    assert "far:latest" not in await tags(client)
    assert (await client.post("/api/generate", model="far", prompt="x")).status_code == 404
    progress = await lines(client, "/api/pull", model="far")
    statuses = [line["status"] for line in progress]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    layer = [line for line in progress if "digest" in line]
    assert layer[0]["status"] == f"pulling {layer[0]['digest'][7:19]}"
    assert {line["total"] for line in layer} == {1_000_000}
    completed = [line.get("completed", 0) for line in layer]
    assert completed == sorted(completed)
    assert completed[-1] == 1_000_000
    assert len(completed) >= 5
    assert (await tags(client))["far:latest"]["digest"] == layer[0]["digest"][7:]
    assert (await client.post("/api/generate", model="far", prompt="x")).status_code == 200


async def test_a_pull_that_is_left_installs_nothing(start):
    client = await start(**SETTINGS, pull_bytes_per_second=1_000)
    async with client.http.stream("POST", "/api/pull", json={"model": "far"}) as response:
        await anext(response.aiter_lines())
    await client.until("/api/pull", lambda entry: entry["outcome"] == "cancelled")
    assert "far:latest" not in await tags(client)


async def test_a_pull_of_what_is_here_takes_no_time(start):
    client = await start(**SETTINGS, pull_bytes_per_second=1)
    async with asyncio.timeout(5):
        assert (await lines(client, "/api/pull", model="base"))[-1] == {"status": "success"}


async def test_a_pull_of_an_unknown_model_fails_in_a_line_or_with_a_status(start):
    client = await start(**SETTINGS)
    assert "error" in (await lines(client, "/api/pull", model="nowhere"))[-1]
    response = await client.post("/api/pull", model="nowhere", stream=False)
    assert response.status_code == 500


async def test_a_created_model_brings_its_system_text_and_parameters(start):
    client = await start(**SETTINGS)
    fields = {"system": "Be brief.", "parameters": {"num_predict": 3, "stop": ["zzz"]}}
    await lines(client, "/api/create", model="made:1", **{"from": "base"}, **fields)
    answer = (
        await client.post("/api/generate", model="made:1", prompt="<<tokens=9>>", stream=False)
    ).json()
    assert (answer["eval_count"], answer["done_reason"]) == (3, "length")
    plain = await client.post("/api/generate", model="base", prompt="<<tokens=9>>", stream=False)
    assert answer["prompt_eval_count"] > plain.json()["prompt_eval_count"]
    shown = (await client.post("/api/show", model="made:1")).json()
    assert shown["system"] == "Be brief."
    assert shown["details"]["parent_model"] == "base:latest"
    assert "num_predict" in shown["parameters"]
    found = await tags(client)
    assert found["made:1"]["digest"] != found["base:latest"]["digest"]
    assert next(iter(found)) == "made:1"


async def test_a_model_is_made_of_an_uploaded_file(start):
    client = await start(**SETTINGS)
    head = {"general.architecture": "bert", "bert.context_length": 512}
    words = {"tokenizer.ggml.tokens": ["a", "b"], "bert.embedding_length": 64}
    data = gguf(**head, **words, **{"bert.pooling_type": 1}) + b"\0" * 1000
    digest, status = await upload(client, data)
    assert status == 201
    assert (await upload(client, data))[1] == 200
    assert (await client.http.head(f"/api/blobs/{digest}")).status_code == 200
    made = await lines(client, "/api/create", model="tiny", files={"tiny.gguf": digest})
    assert made[-1] == {"status": "success"}
    entry = (await tags(client))["tiny:latest"]
    assert (entry["size"], entry["capabilities"]) == (len(data), ["embedding"])
    assert entry["details"]["context_length"] == 512
    vectors = (await client.embed("text", model="tiny")).json()["embeddings"]
    assert len(vectors[0]) == 64


async def test_a_model_is_made_of_safetensors_and_says_what_is_missing(start):
    client = await start(**SETTINGS)
    config = {"architectures": ["BertModel"], "hidden_size": 32, "max_position_embeddings": 128}
    files = {
        "config.json": (await upload(client, json.dumps(config).encode()))[0],
        "model.safetensors": (await upload(client, b"weights"))[0],
    }
    [failure] = [
        line for line in await lines(client, "/api/create", model="m", files=files)
        if "error" in line
    ]  # fmt: skip
    assert failure == {"error": "open modules.json: no such file or directory"}
    files["modules.json"] = (await upload(client, b"[]"))[0]
    await lines(client, "/api/create", model="m", files=files)
    shown = (await client.post("/api/show", model="m")).json()
    assert shown["model_info"]["bert.embedding_length"] == 32


@pytest.mark.parametrize("data", [b"GGML", b"GGUF\3\0\0\0"])
async def test_a_broken_file_fails_in_a_line(start, data):
    client = await start(**SETTINGS)
    digest, _ = await upload(client, data)
    made = await lines(client, "/api/create", model="m", files={"m.gguf": digest})
    assert "error" in made[-1]
    assert "m:latest" not in await tags(client)


async def test_a_copy_and_a_deletion_change_the_tags(start):
    client = await start(**SETTINGS)
    await client.post("/api/copy", source="base", destination="twin:2")
    assert set(await tags(client)) == {"base:latest", "twin:2"}
    deleted = await client.http.request("DELETE", "/api/delete", json={"model": "base"})
    assert (deleted.status_code, deleted.content) == (200, b"")
    assert set(await tags(client)) == {"twin:2"}
