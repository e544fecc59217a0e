"""Statuses, bodies and headers of the API."""

import re

import pytest

CHAT = "extractive-standin"
EMBED = "all-minilm"
HELLO = [{"role": "user", "content": "Hello"}]

ERRORS = [
    ("/api/generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
    ("/api/chat", {"model": "nope", "messages": HELLO}, 404, "model 'nope' not found"),
    (
        "/api/embed",
        {"model": "nope", "input": "x"},
        404,
        'model "nope" not found, try pulling it first',
    ),
    (
        "/api/embeddings",
        {"model": "nope", "prompt": "x"},
        404,
        'model "nope" not found, try pulling it first',
    ),
    ("/api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
    ("/api/generate", {"prompt": "x"}, 404, "model '' not found"),
    ("/api/chat", {"messages": HELLO}, 400, "model is required"),
    ("/api/embeddings", {"prompt": "x"}, 400, "model is required"),
    ("/api/show", {}, 400, "model is required"),
    ("/api/show", {"model": "a b"}, 400, "invalid model name"),
    ("/api/chat", {"model": "a b", "messages": HELLO}, 400, "invalid model name"),
    (
        "/api/chat",
        {"model": 5},
        400,
        "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
    ),
    (
        "/api/chat",
        {"model": CHAT, "messages": [{"role": "user", "content": []}]},
        400,
        "json: cannot unmarshal array into Go struct field "
        "ChatRequest.messages.content of type string",
    ),
    (
        "/api/generate",
        {"model": CHAT, "prompt": "x", "options": {"temperature": "hot"}},
        500,
        'option "temperature" must be of type float32',
    ),
    (
        "/api/generate",
        {"model": CHAT, "prompt": "x", "keep_alive": "abc"},
        400,
        'time: invalid duration "abc"',
    ),
    (
        "/api/generate",
        {"model": CHAT, "prompt": "x", "keep_alive": True},
        400,
        "Unsupported type: 'bool'",
    ),
    (
        "/api/chat",
        {"model": CHAT, "messages": HELLO, "think": True},
        400,
        '"extractive-standin" does not support thinking',
    ),
    (
        "/api/chat",
        {"model": CHAT, "messages": HELLO, "tools": [{"type": "function"}]},
        400,
        "standin.invalid/library/extractive-standin:latest does not support tools",
    ),
    (
        "/api/generate",
        {"model": CHAT, "prompt": "x", "suffix": "y"},
        400,
        "standin.invalid/library/extractive-standin:latest does not support insert",
    ),
    (
        "/api/chat",
        {"model": EMBED, "messages": HELLO},
        400,
        '"all-minilm" does not support chat',
    ),
    (
        "/api/generate",
        {"model": EMBED, "prompt": "x"},
        400,
        '"all-minilm" does not support generate',
    ),
    ("/api/embed", {"model": EMBED, "input": 5}, 400, "invalid input type"),
    ("/api/embed", {"model": EMBED, "input": ["x", 5]}, 400, "invalid input type"),
    (
        "/api/embed",
        {"model": EMBED, "input": "word " * 300, "truncate": False},
        400,
        "the input length exceeds the context length",
    ),
]


@pytest.mark.parametrize(("path", "body", "status", "text"), ERRORS)
async def test_a_bad_request_gets_its_status_and_text(start, path, body, status, text):
    client = await start()
    response = await client.post(path, **body)
    assert (response.status_code, response.json()) == (status, {"error": text})
    assert response.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(("field", "status"), [("think", 400), ("format", 500)])
async def test_a_bad_think_or_format_value_is_named(start, field, status):
    client = await start()
    response = await client.chat(**{field: "sideways"})
    assert response.status_code == status
    assert response.json()["error"].startswith(f"invalid {field}")


@pytest.mark.parametrize(
    ("body", "text"), [(b"", "missing request body"), (b'{"model":', "unexpected EOF")]
)
async def test_a_body_that_is_no_json_is_refused(start, body, text):
    client = await start()
    response = await client.http.post("/api/chat", content=body)
    assert (response.status_code, response.json()["error"]) == (400, text)


async def test_unknown_options_fields_and_null_keep_alive_are_accepted(start):
    client = await start()
    response = await client.chat(options={"colour": 1}, colour=2, keep_alive=None)
    assert response.status_code == 200


async def test_the_content_type_of_a_request_does_not_matter(start):
    client = await start()
    response = await client.http.post(
        "/api/show", content=b'{"model":"all-minilm"}', headers={"Content-Type": "text/html"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_control_endpoints_answer_get_and_head(start, method, path):
    client = await start()
    response = await client.http.request(method, path)
    assert response.status_code == 200
    assert "server" not in response.headers
    assert bool(response.content) == (method == "GET")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("HEAD", "/api/ps", "GET"), ("GET", "/api/chat", "POST"), ("DELETE", "/api/embed", "POST")],
)
async def test_a_wrong_method_is_refused_with_the_allowed_one(start, method, path, allow):
    client = await start()
    response = await client.http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert response.headers["content-type"] == "text/plain"
    if method != "HEAD":
        assert response.text == "405 method not allowed"


async def test_an_unknown_path_is_not_found(start):
    response = await (await start()).http.get("/api/nothing")
    assert (response.status_code, response.text) == (404, "404 page not found")
    assert response.headers["content-type"] == "text/plain"


async def test_version_and_root_have_their_fixed_bodies(start):
    client = await start()
    assert (await client.http.get("/api/version")).content == b'{"version":"0.33.0"}'
    assert (await client.http.get("/")).text == "Ollama is running"


async def test_tags_lists_both_models_with_digest_and_capability(start):
    models = (await (await start()).http.get("/api/tags")).json()["models"]
    assert {model["name"]: model["capabilities"] for model in models} == {
        "all-minilm:latest": ["embedding"],
        "extractive-standin:latest": ["completion"],
    }
    for model in models:
        assert model["model"] == model["name"]
        assert re.fullmatch("[0-9a-f]{64}", model["digest"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)", model["modified_at"])


async def test_digests_are_the_same_on_every_server(start):
    one, other = await start(), await start(name="other")
    assert (await one.http.get("/api/tags")).json() == (await other.http.get("/api/tags")).json()


async def test_show_tells_what_a_model_is_by_any_of_its_names(start):
    client = await start()
    shown = (await client.post("/api/show", name="library/ALL-MiniLM")).json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["bert.embedding_length"] == 384
    assert shown["details"]["context_length"] == 256
    chat = (await client.post("/api/show", model=CHAT)).json()
    assert chat["details"]["family"] == "extractive"
    assert "No language model" in chat["modelfile"]


async def test_a_chat_model_makes_no_embeddings(start):
    response = await (await start()).embed("x", model=CHAT)
    assert response.status_code == 501


async def test_trace_context_is_recorded(start):
    client = await start()
    parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    await client.http.post("/api/embed", json={"model": EMBED}, headers={"traceparent": parent})
    [entry] = await client.requests("/api/embed")
    assert (entry["traceparent"], entry["outcome"], entry["status"]) == (parent, "done", 200)
    assert (await client.http.delete("/standin/requests")).json()["requests"] == []
