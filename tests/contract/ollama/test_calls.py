"""Single calls: what comes back for what is sent, each with the section of the reference it is in.

A call names its models by their part (`<chat>`, `<embed>`, ...). An `error` is the exact text of
the reply's `error` field, or a pattern for texts that hold names or differ between releases.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
PLAIN = "text/plain"
HELLO = [{"role": "user", "content": "Hello <<tokens=3>>"}]
METRICS = {
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
}
UNKNOWN = "sha256:" + "0" * 64


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request and what must come back."""

    section: str
    name: str
    path: str
    method: str = "POST"
    body: Any = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    type: str | None = JSON
    error: Any = None
    text: str | None = None
    has: dict[str, Any] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    allow: str = ""
    standin_only: bool = False


def call(section, name, path, **fields):
    for each in ("keys", "absent"):
        fields[each] = frozenset(fields.get(each, ()))
    return Call(section=section, name=name, path=path, **fields)


def generate(**fields):
    base = {"model": "<chat>", "prompt": "Hi <<tokens=3>>", "stream": False}
    return base | {"options": {"num_predict": 8}} | fields


def chat(**fields):
    return {"model": "<chat>", "messages": HELLO, "stream": False} | fields


def error(section, name, path, body, status, text, **fields):
    return call(section, name, path, body=body, status=status, error=text, **fields)


TRANSPORT = [
    call("2", "root", "/", method="GET", type=None, text="Ollama is running"),
    call("2", "root by HEAD", "/", method="HEAD", type=None),
    call("2", "version", "/api/version", method="GET", keys={"version"}),
    call("2", "version by HEAD", "/api/version", method="HEAD"),
    call("2", "tags", "/api/tags", method="GET", keys={"models"}),
    call("2", "tags by HEAD", "/api/tags", method="HEAD"),
    call("2", "ps", "/api/ps", method="GET", keys={"models"}),
    call("2", "ps by HEAD", "/api/ps", method="HEAD", status=405, type=PLAIN, allow="GET"),
    call("2", "status", "/api/status", method="GET", keys={"cloud"}),
    *(
        call(
            "1",
            f"wrong method {method} {path}",
            path,
            method=method,
            status=405,
            type=PLAIN,
            text="405 method not allowed",
            allow=allow,
        )
        for method, path, allow in (
            ("GET", "/api/generate", "POST"),
            ("GET", "/api/chat", "POST"),
            ("PUT", "/api/embed", "POST"),
            ("GET", "/api/show", "POST"),
            ("GET", "/api/delete", "DELETE"),
            ("GET", "/api/pull", "POST"),
        )
    ),
    call(
        "1",
        "unknown path",
        "/api/nothing",
        method="GET",
        status=404,
        type=PLAIN,
        text="404 page not found",
    ),
    call(
        "1",
        "a foreign Host is refused on a loopback address",
        "/api/version",
        method="GET",
        headers={"Host": "ollama-1:11434"},
        status=403,
        type=None,
        text="",
        standin_only=True,
    ),
    *(
        call("1", f"Host {host}", "/api/version", method="GET", headers={"Host": host})
        for host in ("localhost", "foo.internal", "printer.local", "a.localhost", "10.1.2.3:80")
    ),
    call(
        "1",
        "a foreign Origin is refused",
        "/api/version",
        method="GET",
        headers={"Origin": "http://example.com"},
        status=403,
        type=None,
        text="",
    ),
    call(
        "1",
        "a local Origin is taken",
        "/api/version",
        method="GET",
        headers={"Origin": "http://localhost:3000"},
    ),
    call(
        "1",
        "the content type of a request does not matter",
        "/api/show",
        raw=b'{"model": "<embed>"}',
        headers={"Content-Type": "text/html"},
        keys={"details", "model_info", "capabilities", "modified_at"},
    ),
    call(
        "1",
        "field names have no case and unknown ones are ignored",
        "/api/generate",
        body={"MODEL": "<chat>", "Prompt": "Hi", "STREAM": False, "colour": 1}
        | {"options": {"num_predict": 2}},
        has={"done": True},
    ),
    call(
        "1",
        "of duplicate keys the last wins",
        "/api/generate",
        raw=b'{"model": "nope", "model": "<chat>", "prompt": ""}',
        has={"done_reason": "load"},
    ),
]

ERRORS = [
    error(
        "4", "generate, model absent", "/api/generate", generate(model="nope"), 404,
        "model 'nope' not found",
    ),
    error(
        "4", "chat, model absent", "/api/chat", chat(model="nope"), 404, "model 'nope' not found",
    ),
    error(
        "4", "embed, model absent", "/api/embed", {"model": "nope", "input": "x"}, 404,
        'model "nope" not found, try pulling it first',
    ),
    error(
        "4", "embeddings, model absent", "/api/embeddings", {"model": "nope", "prompt": "x"}, 404,
        'model "nope" not found, try pulling it first',
    ),
    error(
        "4", "show, model absent", "/api/show", {"model": "nope"}, 404,
        re.compile("model 'nope(:latest)?' not found"),
    ),
    error(
        "4", "delete, model absent", "/api/delete", {"model": "nope"}, 404,
        "model 'nope' not found", method="DELETE",
    ),
    error(
        "4", "copy, model absent", "/api/copy", {"source": "nope", "destination": "other"}, 404,
        'model "nope" not found',
    ),
    error("4", "generate, no model", "/api/generate", {"prompt": "x"}, 404, "model '' not found"),
    error("4", "chat, no model", "/api/chat", {"messages": HELLO}, 400, "model is required"),
    error(
        "4", "embeddings, no model", "/api/embeddings", {"prompt": "x"}, 400, "model is required",
    ),
    error("4", "show, no model", "/api/show", {}, 400, "model is required"),
    error("4", "bad name", "/api/show", {"model": "a b"}, 400, "invalid model name"),
    call(
        "4", "empty body", "/api/chat", raw=b"", status=400, error="missing request body",
    ),
    call(
        "4", "malformed JSON", "/api/chat", raw=b'{"model":', status=400, error="unexpected EOF",
    ),
    error(
        "4", "wrong field type", "/api/chat", {"model": 5}, 400,
        "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
    ),
    error(
        "4", "stream is no text", "/api/generate", generate(stream="yes"), 400,
        re.compile("json: cannot unmarshal string into Go struct field .*"),
    ),
    error(
        "4", "wrong option type", "/api/generate", generate(options={"temperature": "hot"}), 500,
        'option "temperature" must be of type float32',
    ),
    error(
        "4", "keep_alive of letters", "/api/generate", generate(keep_alive="abc"), 400,
        'time: invalid duration "abc"',
    ),
    error(
        "7", "keep_alive without a unit", "/api/generate", generate(keep_alive="300"), 400,
        'time: missing unit in duration "300"',
    ),
    error(
        "4", "keep_alive of truth", "/api/generate", generate(keep_alive=True), 400,
        "Unsupported type: 'bool'",
    ),
    error(
        "4", "bad think", "/api/chat", chat(think="sideways"), 400,
        re.compile("invalid think value: .*"),
    ),
    error(
        "4", "thinking not supported", "/api/chat", chat(think=True), 400,
        re.compile('".+" does not support thinking'),
    ),
    error(
        "4", "tools not supported", "/api/chat",
        chat(tools=[{"type": "function", "function": {"name": "f"}}]), 400,
        re.compile(r"\S+/library/\S+:\S+ does not support tools"),
    ),
    error(
        "4", "suffix not supported", "/api/generate", generate(suffix="x"), 400,
        re.compile(r"\S+/library/\S+:\S+ does not support insert"),
    ),
    error(
        "4", "chat with an embedding model", "/api/chat", chat(model="<embed>"), 400,
        re.compile('".+" does not support chat'),
    ),
    error(
        "4", "generate with an embedding model", "/api/generate", generate(model="<embed>"), 400,
        re.compile('".+" does not support generate'),
    ),
    error(
        "4", "bad format", "/api/generate", generate(format="yaml"), 500,
        re.compile("invalid format: .*"),
    ),
    error(
        "3", "raw with a system text", "/api/generate", generate(raw=True, system="x"), 400,
        re.compile("raw mode does not support .*"),
    ),
    error(
        "3", "too many top_logprobs", "/api/generate", generate(logprobs=True, top_logprobs=21),
        400, re.compile(".*top_logprobs.*"),
    ),
    error(
        "4", "input that is no text", "/api/embed", {"model": "<embed>", "input": 5}, 400,
        "invalid input type",
    ),
    error(
        "4", "input with a number in it", "/api/embed", {"model": "<embed>", "input": ["x", 5]},
        400, "invalid input type",
    ),
    error(
        "4", "embed too long", "/api/embed",
        {"model": "<embed>", "input": "word " * 2000, "truncate": False}, 400,
        "the input length exceeds the context length",
    ),
    error(
        "2", "create of nothing", "/api/create", {"model": "made"}, 400,
        re.compile("neither 'from' or 'files' was specified"),
    ),
    error(
        "2", "create with a bad digest", "/api/create", {"model": "made", "files": {"a": "x"}},
        400, re.compile(".*digest.*"),
    ),
    error(
        "2", "create with a bad name", "/api/create", {"model": "a b", "from": "<chat>"}, 400,
        re.compile("invalid model name"),
    ),
    call(
        "2", "a blob with a bad digest", "/api/blobs/sha256:xyz", method="HEAD", status=400,
        type=None,
    ),
    call(
        "2", "a blob that is not here", f"/api/blobs/{UNKNOWN}", method="HEAD", status=404,
        type=None,
    ),
    call(
        "2", "a blob with another digest", f"/api/blobs/{UNKNOWN}", raw=b"data", status=400,
        error=re.compile("digest mismatch.*"),
    ),
]  # fmt: skip

ANSWERS = [
    call(
        "3", "generate", "/api/generate", body=generate(),
        keys=METRICS | {"model", "created_at", "response", "done_reason", "context"},
        has={"done": True},
    ),
    call(
        "3", "generate raw has no context", "/api/generate", body=generate(raw=True),
        keys=METRICS, absent={"context"},
    ),
    call("3", "chat", "/api/chat", body=chat(), keys=METRICS | {"message"}, absent={"response"}),
    call(
        "3", "generate streams by default", "/api/generate",
        body={"model": "<chat>", "prompt": "Hi", "options": {"num_predict": 4}}, type=NDJSON,
        keys=METRICS | {"context"}, has={"done": True, "response": ""},
    ),
    call(
        "3", "chat streams by default", "/api/chat",
        body={"model": "<chat>", "messages": HELLO, "options": {"num_predict": 4}}, type=NDJSON,
        keys=METRICS, has={"done": True, "message": {"role": "assistant", "content": ""}},
    ),
    call(
        "3", "num_predict ends an answer", "/api/generate",
        body=generate(prompt="Count. <<tokens=50>>", options={"num_predict": 3}),
        has={"done_reason": "length", "eval_count": 3},
    ),
    call(
        "3", "an empty prompt loads", "/api/generate", body={"model": "<chat>"},
        has={"done": True, "done_reason": "load", "response": ""}, absent=METRICS,
    ),
    call(
        "3", "no messages load", "/api/chat", body={"model": "<chat>", "messages": []},
        has={"done": True, "done_reason": "load"}, absent=METRICS,
    ),
    call(
        "3", "an empty prompt with keep_alive 0 unloads", "/api/generate",
        body={"model": "<chat>", "keep_alive": 0},
        has={"done": True, "done_reason": "unload", "response": ""}, absent=METRICS,
    ),
    call(
        "4", "unknown options pass", "/api/generate",
        body=generate(options={"colour": 1, "num_predict": 2}),
    ),
    call("4", "keep_alive null passes", "/api/generate", body=generate(keep_alive=None)),
    call("7", "keep_alive as a duration", "/api/generate", body=generate(keep_alive="1h30m")),
    call("3", "format null passes", "/api/generate", body=generate(format=None)),
    call("3", "format empty passes", "/api/generate", body=generate(format="")),
    call("3", "format json", "/api/generate", body=generate(format="json")),
    call(
        "3", "the rendered prompt", "/api/generate", body=generate(_debug_render_only=True),
        keys={"_debug_info"}, absent=METRICS,
    ),
    call(
        "3", "the rendered conversation", "/api/chat", body=chat(_debug_render_only=True),
        keys={"_debug_info"}, absent=METRICS,
    ),
    call(
        "3", "logprobs", "/api/generate", body=generate(logprobs=True, top_logprobs=2),
        keys={"logprobs"},
    ),
    call(
        "3", "think false on a model without it", "/api/chat", body=chat(think=False),
        has={"done": True},
    ),
    call(
        "3", "a tool call", "/api/chat", standin_only=True,
        body=chat(
            model="<tools>",
            messages=[{"role": "user", "content": '<<tool=look_up {"word": "pannier"}>>'}],
            tools=[{"type": "function", "function": {"name": "look_up", "parameters": {}}}],
        ),
        has={"done": True}, keys={"message"},
    ),
    call(
        "3", "thinking", "/api/generate", standin_only=True,
        body={"model": "<thinking>", "prompt": "<<thinking=4>><<tokens=2>>", "stream": False},
        keys={"thinking"}, has={"eval_count": 6},
    ),
    call(
        "3", "a suffix", "/api/generate", body=generate(model="<insert>", suffix="x"),
        has={"done": True}, standin_only=True,
    ),
    call(
        "9", "embed", "/api/embed", body={"model": "<embed>", "input": ["a", "b"]},
        keys={"model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"},
    ),
    call(
        "9", "embed of one text", "/api/embed", body={"model": "<embed>", "input": "a"},
        keys={"embeddings"},
    ),
    call(
        "9", "embed of nothing loads", "/api/embed", body={"model": "<embed>", "input": []},
        has={"embeddings": []},
    ),
    call(
        "9", "embed of an empty text loads", "/api/embed", body={"model": "<embed>", "input": ""},
        has={"embeddings": []},
    ),
    call(
        "9", "embed of an empty text in a list", "/api/embed",
        body={"model": "<embed>", "input": [""]}, keys={"embeddings"},
    ),
    call(
        "9", "embed of too long a text cuts it", "/api/embed",
        body={"model": "<embed>", "input": "word " * 2000}, keys={"embeddings"},
    ),
    call(
        "9", "the old endpoint", "/api/embeddings", body={"model": "<embed>", "prompt": "a"},
        keys={"embedding"}, absent={"model", "embeddings"},
    ),
    call(
        "10", "show", "/api/show", body={"model": "<chat>"},
        keys={"modelfile", "template", "details", "model_info", "capabilities", "modified_at"},
    ),
    call("10", "show by its old field", "/api/show", body={"name": "<embed>"}, keys={"details"}),
    call(
        "2", "pull of an unknown model fails in a line", "/api/pull",
        body={"model": "nothing-of-this-name"}, type=NDJSON, keys={"error"}, standin_only=True,
    ),
    call(
        "2", "pull without a stream", "/api/pull", body={"model": "<remote>", "stream": False},
        has={"status": "success"}, standin_only=True,
    ),
    call(
        "2", "pull", "/api/pull", body={"model": "<remote>"}, type=NDJSON,
        has={"status": "success"}, standin_only=True,
    ),
    call(
        "2", "create from a model", "/api/create",
        body={"model": "made", "from": "<chat>", "system": "Be brief."}, type=NDJSON,
        has={"status": "success"}, standin_only=True,
    ),
    call(
        "16", "create of files that are not here", "/api/create",
        body={"model": "made", "files": {"m.gguf": UNKNOWN}}, type=NDJSON, keys={"error"},
        standin_only=True,
    ),
    call(
        "2", "copy", "/api/copy", body={"source": "<chat>", "destination": "other"}, type=None,
        text="", standin_only=True,
    ),
    call(
        "2", "delete", "/api/delete", method="DELETE", body={"model": "<big>"}, type=None,
        text="", standin_only=True,
    ),
]  # fmt: skip

CALLS = [*TRANSPORT, *ERRORS, *ANSWERS]


def test_the_list_is_as_long_as_it_should_be_and_names_each_call_once():
    assert len(CALLS) >= 60
    assert len({each.name for each in CALLS}) == len(CALLS)


@pytest.mark.parametrize("each", CALLS, ids=lambda each: f"{each.section}: {each.name}")
async def test_a_call_gets_what_the_reference_says(server, each):
    if server.is_real and each.standin_only:
        pytest.skip("holds for stand-ins only")
    response = await send(server, each)
    assert response.status_code == each.status, response.text
    if each.type is not None:
        expected = JSON if each.error and each.type == JSON else each.type
        assert response.headers["content-type"] == expected
    if each.allow:
        assert response.headers["allow"] == each.allow
    if each.method == "HEAD":
        assert response.content == b""
    elif each.text is not None:
        assert response.text == each.text
    else:
        check(each, last_object(response))


async def send(server, each):
    data = each.raw
    if data is not None:
        for role in re.findall(rb"<(\w+)>", data):
            data = data.replace(b"<%b>" % role, server.model(role.decode()).encode())
    elif each.body is not None:
        data = json.dumps(server.fill(each.body)).encode()
    return await server.http.request(each.method, each.path, content=data, headers=each.headers)


def last_object(response):
    lines = response.content.splitlines()
    if response.headers["content-type"] != NDJSON:
        assert len(lines) == 1
    return json.loads(lines[-1])


def check(each, reply):
    if isinstance(each.error, str):
        assert reply == {"error": each.error}
    elif each.error is not None:
        assert set(reply) == {"error"}
        assert each.error.fullmatch(reply["error"]), reply
    assert each.keys <= set(reply)
    assert not each.absent & set(reply)
    assert reply | each.has == reply
