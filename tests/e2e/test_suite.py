"""From documents to checked citations, through real processes, as a user goes."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as balancer
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerServiceStub
from pannier.cache.v1 import statistics_pb2
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from pannier.client import RemoteError, TraceContext, open_channel
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import rag_service_pb2 as rag
from pannier.rag.v1.corpus_service_pb2_grpc import CorpusServiceStub
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceStub
from tests.e2e.conftest import kill, wait_until

pytestmark = pytest.mark.timeout(300)

# The answer repeats four sentences, and takes more than a second.
_PLACES = ("lighthouse", "harbour", "ferry", "pilot")
_LONG_PROMPT = (
    " ".join(f"The {place}{' stands beside the water' * 15}." for place in _PLACES)
    + " What of the lighthouse, the harbour, the ferry and the pilot?"
)
MODULES = ("json", "csv", "difflib", "textwrap", "secrets", "heapq", "bisect", "shutil")
BUF = Path(sys.executable).with_name("buf")
QUESTION = "Which function returns the close matches of a word?"


@pytest.fixture(scope="module")
def filled(suite, tmp_path_factory):
    """Ingests the documentation of some modules, and two broken files among them."""
    folder = tmp_path_factory.mktemp("documents")
    for module in MODULES:
        rendered = subprocess.run(
            [sys.executable, "-m", "pydoc", module],
            capture_output=True,
            check=True,
            env={**os.environ, "PAGER": "cat"},
        ).stdout
        (folder / f"{module}.txt").write_bytes(rendered)
    (folder / "guide.md").write_text("# Guide\n\nTurn the brass wheel to open the valve.\n")
    (folder / "page.html").write_text(
        "<html><head><title>Page</title><script>hidden()</script></head>"
        "<body><h1>Page</h1><p>The valve closes by itself at night.</p></body></html>"
    )
    (folder / "code.py").write_text('def open_valve():\n    """Opens the valve."""\n')
    (folder / "empty.md").write_text("\n")
    (folder / "binary.md").write_bytes(b"\x7fELF\x00\x01")
    output = suite.pannier("ingest", str(folder), "--collection", "docs", status=1)
    assert "DOCUMENT_EMPTY" in output
    assert "MEDIA_TYPE_UNSUPPORTED" in output
    return suite


async def ask(suite, question=QUESTION, *, trace=None, **options):
    request = rag.QueryRequest(collection="docs", query=question, **options)
    traceparent = trace.traceparent if trace else None
    async with open_channel(suite.address("rag"), traceparent=traceparent) as channel:
        return await RagServiceStub(channel).Query(request, timeout=60)


async def text_of(suite, document_id):
    async with open_channel(suite.address("rag")) as channel:
        response = await CorpusServiceStub(channel).GetDocument(
            corpus.GetDocumentRequest(
                collection="docs", document_id=document_id, view=corpus.DOCUMENT_VIEW_FULL
            ),
            timeout=10,
        )
    return response.document.text


async def test_everything_but_the_broken_files_is_stored(filled):
    async with open_channel(filled.address("rag")) as channel:
        page = await CorpusServiceStub(channel).ListDocuments(
            corpus.ListDocumentsRequest(collection="docs"), timeout=10
        )
    kinds = {each.document_id.rsplit("/", 1)[-1]: each.media_type for each in page.documents}
    assert len(kinds) == len(MODULES) + 3
    assert kinds["guide.md"] == "text/markdown"
    assert kinds["page.html"] == "text/html"
    assert kinds["code.py"] == "text/x-python"
    assert "empty.md" not in kinds


async def test_citations_check_out_against_the_stored_text(filled):
    response = await ask(filled)
    assert response.origin == rag.ANSWER_ORIGIN_GENERATED
    assert not response.degradations
    assert response.citations
    for citation in response.citations:
        text = await text_of(filled, citation.document_id)
        assert text[citation.char_start : citation.char_end] == citation.quote
        assert (
            f"[{citation.marker}]"
            in (response.answer[citation.answer_char_start : citation.answer_char_end])
        )
    assert any("get_close_matches" in each.quote for each in response.citations)
    for passage in response.passages:
        text = await text_of(filled, passage.document_id)
        assert text[passage.char_start : passage.char_end] == passage.text


async def test_one_trace_runs_through_all_services_to_ollama(filled):
    trace = TraceContext.new()
    question = "How is JSON text written to a file?"
    response = await ask(filled, question, trace=trace)
    assert response.trace_id == trace.trace_id

    def complete(spans):
        names = {(each.service, each.name.rsplit("/", 1)[-1]) for each in spans}
        ids = {each.span_id for each in spans}
        # Each process sends its spans in its own time.
        is_whole = sum(each.parent_id not in ids for each in spans) == 1
        calls = {("rag", "Query"), ("balancer", "Chat"), ("cache", "FillInference")}
        return is_whole and calls <= names and any(each.name.startswith("chat ") for each in spans)

    spans = filled.traces.wait_for(trace.trace_id, complete)
    by_id = {each.span_id: each for each in spans}
    assert {each.service for each in spans} == {"rag", "cache", "balancer"}
    edges = {
        (by_id[each.parent_id].service, each.service) for each in spans if each.parent_id in by_id
    }
    assert {("rag", "cache"), ("rag", "balancer")} <= edges
    (chat,) = [each for each in spans if each.name.startswith("chat ")]
    assert (chat.service, chat.kind) == ("balancer", "client")
    (query,) = [each for each in spans if each.name.endswith("RagService/Query")]
    assert query.parent_id == trace.span_id
    roots = [each for each in spans if each.parent_id not in by_id]
    assert roots == [query]
    # The context reached the Ollama server itself.
    backend = chat.attributes["server.address"], chat.attributes["server.port"]
    url = f"http://{backend[0]}:{backend[1]}/standin/requests"
    with urllib.request.urlopen(url, timeout=5) as seen:
        assert trace.trace_id in seen.read().decode()
    for span in spans:
        assert "JSON text" not in str(span.attributes)


async def test_the_same_question_again_comes_from_the_cache(filled):
    question = "What wraps a paragraph of text to a width?"
    first = await ask(filled, question)
    second = await ask(filled, question)
    assert (first.origin, second.origin) == (
        rag.ANSWER_ORIGIN_GENERATED,
        rag.ANSWER_ORIGIN_CACHED,
    )
    assert second.answer == first.answer
    assert second.citations == first.citations


async def test_answers_go_on_without_redis_and_the_cache_returns_with_it(filled):
    question = "What is a heap queue?"
    await ask(filled, question)
    kill(filled.process("redis"))
    without = await ask(filled, "Which function copies a whole folder?")
    assert without.origin == rag.ANSWER_ORIGIN_GENERATED
    assert {each.reason for each in without.degradations} == {
        rag.DEGRADATION_REASON_CACHE_UNAVAILABLE
    }
    # What the local level holds is still there.
    assert (await ask(filled, question)).origin == rag.ANSWER_ORIGIN_CACHED
    with filled.redis_again():
        wait_until(lambda: not filled.pannier_json("stats", "cache").get("degraded"))
        other = "How do I insert into a sorted list?"
        await ask(filled, other)
        again = await ask(filled, other)
        assert again.origin == rag.ANSWER_ORIGIN_CACHED
        assert not again.degradations


async def test_a_killed_backend_costs_no_answer(filled):
    async with open_channel(filled.address("balancer")) as channel:
        stub = BalancerServiceStub(channel)
        kill(filled.process("standin-8"))
        for number in range(16):
            request = balancer.EmbedRequest(model="all-minilm", texts=[f"text {number}"])
            response = await stub.Embed(request, timeout=30)
            assert response.vectors[0].dimension == 384
        health = await stub.GetHealth(balancer.GetHealthRequest(check_now=True), timeout=10)
        stats = await stub.GetStats(balancer.GetStatsRequest(), timeout=10)
    assert health.healthy_backend_count == 7
    assert stats.fleet.failure_count == 0


async def test_a_backend_killed_in_mid_stream_ends_the_stream_with_a_typed_error(filled):
    """The stream tells how much was sent, and never looks complete."""
    async with open_channel(filled.address("balancer")) as channel:
        stub = BalancerServiceStub(channel)
        request = balancer.GenerateRequest(
            model="extractive-standin",
            prompt=_LONG_PROMPT,
        )
        text, backend_id, completed = "", "", False
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for event in stub.Generate(request, timeout=60):
                if event.HasField("started"):
                    backend_id = event.started.backend_id
                elif event.HasField("completed"):
                    completed = True
                text += event.text_delta
                if backend_id:
                    victim = next(
                        each
                        for each in filled.state()["processes"]
                        if each["address"].endswith(backend_id)
                    )
                    kill(victim)
                    backend_id = ""
    error = RemoteError.from_call(raised.value)
    assert (error.code.name, error.reason) == ("ABORTED", "STREAM_INTERRUPTED")
    assert int(error.metadata["emitted_character_count"]) == len(text)
    assert not completed


async def test_statistics_answer_by_reflection_and_from_the_stubs(filled):
    async with open_channel(filled.address("cache")) as channel:
        stats = await CacheServiceStub(channel).GetStats(
            statistics_pb2.GetStatsRequest(), timeout=5
        )
    layers = {statistics_pb2.Layer.Name(each.layer): each for each in stats.layers}
    assert layers["LAYER_EMBEDDING"].lookup_count > 0
    assert layers["LAYER_INFERENCE"].stored_count > 0
    since_start = layers["LAYER_SEMANTIC"].windows[-1]
    # The same question again is answered without retrieval.
    assert {each.kind: each.count for each in since_start.hits}["exact"] > 0
    assert layers["LAYER_CHUNK"].stored_count > 0
    for service, method in (
        ("rag", "pannier.rag.v1.RagService/GetStats"),
        ("cache", "pannier.cache.v1.CacheService/GetStats"),
        ("balancer", "pannier.balancer.v1.BalancerService/GetStats"),
    ):
        url = f"http://{filled.address(service)}/{method}"
        result = subprocess.run(
            [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", url],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert "startTime" in result.stdout


def test_the_command_shows_an_answer_with_citations_and_its_trace(filled):
    output = filled.pannier("ask", QUESTION, "--collection", "docs", "--trace")
    assert "get_close_matches" in output
    assert "difflib" in output
    for service in ("rag", "cache"):
        assert re.search(rf"\b{service}\b", output)


def test_the_command_says_what_is_wrong(filled):
    unknown = filled.pannier("ask", "Why?", "--collection", "nothing", status=1)
    assert "nothing" in unknown
    assert "COLLECTION_NOT_FOUND" in unknown
    assert "Traceback" not in unknown
    environment = {**filled.environment, "PANNIER_CLIENT_RAG_ADDRESS": "127.0.0.1:9"}
    away = subprocess.run(
        [sys.executable, "-m", "pannier.commands.main", "ask", "Why?", "--collection", "docs"],
        env=environment,
        cwd=filled.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert away.returncode == 2
    assert "pannier up" in away.stdout + away.stderr


def test_status_lists_every_process(filled):
    # Redis and two backends were killed above, and status says so.
    status = json.loads(filled.pannier("status", "--json", status=None))
    health = {each["name"]: each["health"] for each in status["processes"]}
    assert {name for name, each in health.items() if each == "serving"} >= {
        "postgres",
        "rag",
        "cache",
        "balancer",
    }
    assert health["redis"] == "ended"
    assert health["standin-8"] == "ended"


def test_metrics_of_every_service_are_served(filled):
    for service in ("rag", "cache", "balancer"):
        port = re.search(r'"http_port": ?(\d+)', filled.log(service))[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
        assert "rpc_server_call_duration_seconds_count" in text
        assert f"{service}_" in text


def test_no_log_holds_a_question_or_a_secret(filled):
    for service in ("rag", "cache", "balancer"):
        assert "close matches" not in filled.log(service)
        assert "Traceback" not in filled.log(service)
