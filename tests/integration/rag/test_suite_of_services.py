"""rag with the real cache, balancer, PostgreSQL and Redis; the fleet is a stand-in."""

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

import grpc
import pytest

from pannier.cache.v1 import cache_admin_service_pb2 as cache_admin
from pannier.cache.v1 import invalidation_pb2
from pannier.cache.v1 import statistics_pb2 as statistics
from pannier.cache.v1.cache_admin_service_pb2_grpc import CacheAdminServiceStub
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from pannier.rag.v1 import conversation_pb2, usage_service_pb2
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1.corpus_service_pb2_grpc import CorpusServiceStub
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceStub
from services.balancer import app as balancer_app
from services.balancer.metrics import CATALOGUE as BALANCER_CATALOGUE
from services.balancer.settings import BalancerSettings, parse_endpoint
from services.cache import app as cache_app
from services.cache.metrics import CATALOGUE as CACHE_CATALOGUE
from services.cache.settings import CacheSettings
from services.rag import app as rag_app
from services.rag.metrics import CATALOGUE as RAG_CATALOGUE
from services.rag.settings import RagSettings
from tests.integration.rag.bookkeeping import usage_stub
from tests.integration.rag.conftest import Rag, as_tenant
from tests.integration.rag.telemetry import eventually, tree
from tests.kit.ports import free_port
from tests.kit.redis import private_redis, redis_server, shared_redis  # noqa: F401
from tests.kit.rpc import channel_to, make_runtime
from tests.kit.standin import running_standins

DOCUMENTS = {
    "fox.md": "# Animals\n\nThe red fox jumps over the lazy dog. Foxes are quick.\n",
    "button.md": "# Machine\n\nPress the blue button to stop the machine. It stops in 5 seconds.\n",
    "cheese.md": "# Food\n\nCheese is made from milk. Milk comes from cows.\n",
    "tea.md": "# Drinks\n\nTea is made from leaves. Green tea comes from Asia.\n",
    "train.md": "# Travel\n\nA train to the sea leaves each hour. Tickets are sold on board.\n",
}
QUESTION = "How do I stop the machine?"
PARAPHRASE = "How can I stop the machine?"
ACME = as_tenant("acme")


class Services(Rag):
    """All services, with a second rag beside the first."""

    standin: object
    all_spans: list

    async def ask(self, text=QUESTION, **options):
        request = pb.QueryRequest(collection="docs", query=text, **options)
        return await self.rag.Query(request, metadata=ACME, timeout=20)

    def stream(self, text=QUESTION, **options):
        query = pb.QueryRequest(collection="docs", query=text, **options)
        request = pb.StreamQueryRequest(query=query)
        return self.rag.StreamQuery(request, metadata=ACME, timeout=30)

    async def generation_count(self):
        return len(await self.standin.requests("/api/chat"))


@pytest.fixture
async def start_services(database_dsn, redis_server):  # noqa: F811
    """Starts all services; the cache in this process unless an address is given."""
    async with AsyncExitStack() as stack:
        all_spans = []

        async def service(module, settings, catalogue):
            runtime, spans = make_runtime(module.__name__.split(".")[1], catalogue)
            all_spans.append(spans)
            stack.callback(runtime.tracer_provider.shutdown)
            return await stack.enter_async_context(module.start(settings, runtime)), spans

        async def begin(*, cache_address="", tokens_per_second=2000.0):
            (standin,) = await stack.enter_async_context(
                running_standins(1, tokens_per_second=tokens_per_second)
            )
            quick = {"drain_delay_seconds": 0.0, "drain_grace_seconds": 2.0}
            settings = BalancerSettings(
                backends=(parse_endpoint(standin.url),),
                unproven_first_token_seconds=0.05,
                **quick,
            )
            balancer, _ = await service(balancer_app, settings, BALANCER_CATALOGUE)
            patience = {}
            if not cache_address:
                # All services share one loop here, on whatever machine: being late is no failure.
                patience = {"cache_time_limit_seconds": 10.0}
                settings = CacheSettings(
                    redis_url=redis_server.url,
                    redis_timeout_seconds=5.0,
                    # Else one answer in fifty is generated once more, by chance.
                    semantic_verification_ratio=0.0,
                    **quick,
                )
                running, _ = await service(cache_app, settings, CACHE_CATALOGUE)
                cache_address = f"127.0.0.1:{running.grpc_port}"
            settings = RagSettings(
                database_url=database_dsn,
                balancer_address=f"127.0.0.1:{balancer.grpc_port}",
                cache_address=cache_address,
                **patience,
                **quick,
            )
            running, spans = await service(rag_app, settings, RAG_CATALOGUE)
            channel = await stack.enter_async_context(channel_to(running.grpc_port))
            services = Services(
                RagServiceStub(channel),
                CorpusServiceStub(channel),
                channel,
                None,
                None,
                spans,
                running.http_port,
                database_dsn,
                stack,
                settings.balancer_address,
                cache_address,
            )
            services.standin, services.all_spans = standin, all_spans
            await services.ingest(DOCUMENTS)
            await services.told()
            return services

        yield begin


@pytest.fixture
async def services(start_services):
    return await start_services()


def outcomes(response):
    return {stage.name: stage.cache_outcome for stage in response.profile.stages}


async def test_the_same_question_is_answered_from_the_cache(services):
    first = await services.ask()
    assert first.origin == pb.ANSWER_ORIGIN_GENERATED
    assert first.citations
    again = await services.ask()
    assert (again.origin, again.answer) == (pb.ANSWER_ORIGIN_CACHED, first.answer)
    assert outcomes(again) == {"query_lookup": "hit_exact", "evidence_check": ""}
    assert again.passages == first.passages
    assert await services.generation_count() == 1


async def test_an_exact_answer_takes_at_most_eight_spans_over_all_services(services):
    first = await services.ask()
    again = await services.ask()
    assert again.origin == pb.ANSWER_ORIGIN_CACHED

    def spans_of(response):
        return [
            span
            for spans in services.all_spans
            for span in spans.exporter.get_finished_spans()
            if format(span.context.trace_id, "032x") == response.trace_id
        ]

    await eventually(lambda: any(each.name.endswith("/Query") for each in spans_of(again)))
    found = spans_of(again)
    services_seen = {each.resource.attributes["service.name"] for each in found}
    assert services_seen == {"rag", "cache"}
    assert len(found) <= 8, tree(found)
    (root,) = tree(spans_of(first))
    assert root[0] == "Query", "one tree over all services"
    reached = {each.resource.attributes["service.name"] for each in spans_of(first)}
    assert reached == {"rag", "cache", "balancer"}
    known = {each.context.span_id for each in spans_of(first)}
    assert all(each.parent is None or each.parent.span_id in known for each in spans_of(first))


async def test_a_paraphrase_is_answered_once_its_evidence_is_found_again(services):
    first = await services.ask()
    similar = await services.ask(PARAPHRASE)
    assert similar.origin == pb.ANSWER_ORIGIN_CACHED_SIMILAR
    assert similar.answer == first.answer
    assert (similar.cached.query, outcomes(similar)["evidence_check"]) == (
        QUESTION,
        "hit_confirmed",
    )
    assert similar.cached.similarity > 0.95
    assert await services.generation_count() == 1


async def test_the_opposite_question_is_not_answered_from_the_cache(services):
    await services.ask()
    for text in ("How do I start the machine?", "How do I not stop the machine?"):
        assert (await services.ask(text)).cached.query == ""


@pytest.mark.parametrize("mode", ["QUERY_MODE_DIRECT", "QUERY_MODE_RAG", "QUERY_MODE_DEEP"])
async def test_a_question_about_today_is_answered_anew_each_time(services, mode):
    question = "Which trains leave for the sea today?"
    first = await services.ask(question, mode=mode)
    count = await services.generation_count()
    again = await services.ask(question, mode=mode)
    assert [each.origin for each in (first, again)] == [pb.ANSWER_ORIGIN_GENERATED] * 2
    assert again.cached.query == ""
    assert await services.generation_count() > count
    if mode != "QUERY_MODE_DIRECT":
        assert outcomes(again)["query_lookup"] == "bypassed"
    assert outcomes(again).get("inference_lookup", "bypassed") == "bypassed"


@pytest.mark.parametrize("mode", ["QUERY_MODE_DIRECT", "QUERY_MODE_RAG"])
@pytest.mark.parametrize("policy", ["CACHE_POLICY_USE", "CACHE_POLICY_REFRESH"])
async def test_what_is_asked_after_a_question_about_today_is_answered_anew(services, mode, policy):
    options = {
        "mode": mode,
        "history": [
            pb.ConversationTurn(question="Which trains leave today?", answer="That to the sea.")
        ],
    }
    question = "And which of them sell tickets on board?"
    await services.ask(question, cache_policy=policy, **options)
    again = await services.ask(question, **options)
    assert again.origin == pb.ANSWER_ORIGIN_GENERATED


async def test_a_question_about_today_is_streamed_anew_to_each_who_asks_at_once(start_services):
    services = await start_services(tokens_per_second=60.0)
    question = "What is on my ticket today?"
    calls = [services.stream(question, mode="QUERY_MODE_DIRECT") for _ in range(3)]
    completed = [[event async for event in call][-1].completed for call in calls]
    assert {each.origin for each in completed} == {pb.ANSWER_ORIGIN_GENERATED}
    assert not [each for response in completed for each in response.degradations]
    assert await services.generation_count() == 3


async def test_the_answers_of_a_collection_are_invalidated_by_its_name(services):
    async def invalidate(namespace):
        selector = invalidation_pb2.Selector(namespace=namespace)
        request = invalidation_pb2.InvalidateRequest(selectors=[selector], dry_run=False)
        assert (await cache.Invalidate(request, metadata=ACME, timeout=20)).applied

    async with channel_to(int(services.cache_address.rpartition(":")[2])) as channel:
        cache = CacheServiceStub(channel)
        await services.ask()
        await invalidate("another")
        assert (await services.ask()).origin == pb.ANSWER_ORIGIN_CACHED
        await invalidate("docs")
        assert (await services.ask()).origin == pb.ANSWER_ORIGIN_GENERATED
        assert await services.generation_count() == 2
        assert (await services.ask()).origin == pb.ANSWER_ORIGIN_CACHED


async def test_a_raised_threshold_holds_for_the_collection_of_its_name(services):
    async with channel_to(int(services.cache_address.rpartition(":")[2])) as channel:
        admin = CacheAdminServiceStub(channel)
        for namespace, origin in (
            ("another", pb.ANSWER_ORIGIN_CACHED_SIMILAR),
            ("docs", pb.ANSWER_ORIGIN_GENERATED),
        ):
            request = cache_admin.SetSimilarityThresholdRequest(namespace=namespace, threshold=1.0)
            await admin.SetSimilarityThreshold(request, metadata=ACME, timeout=20)
            await services.ask()
            assert (await services.ask(PARAPHRASE)).origin == origin


async def test_a_deleted_document_is_never_answered_from_again(services):
    await services.ask()
    request = corpus.DeleteDocumentRequest(collection="docs", document_id="button.md")
    await services.corpus.DeleteDocument(request, metadata=ACME)
    for text in (QUESTION, PARAPHRASE):
        response = await services.ask(text)
        assert "blue button" not in response.answer
        assert all(each.document_id != "button.md" for each in response.passages)
    await services.told()
    assert (await services.ask()).cached.query in ("", QUESTION)


@pytest.mark.parametrize("mode", ["QUERY_MODE_DIRECT", "QUERY_MODE_RAG"])
async def test_an_answer_that_a_user_finds_wrong_is_generated_anew(services, mode):
    await services.ask(mode=mode)
    again = await services.ask(mode=mode)
    assert again.origin == pb.ANSWER_ORIGIN_CACHED
    count = await services.generation_count()
    request = usage_service_pb2.SubmitFeedbackRequest(query_id=again.query_id, rating=-1)
    response = await usage_stub(services).SubmitFeedback(request, metadata=ACME, timeout=20)
    assert response.cache_entry_removed
    anew = await services.ask(mode=mode)
    assert anew.origin == pb.ANSWER_ORIGIN_GENERATED
    assert await services.generation_count() == count + 1
    assert (await services.ask(mode=mode)).origin == pb.ANSWER_ORIGIN_CACHED


async def test_a_new_document_makes_old_answers_be_confirmed(services):
    first = await services.ask()
    await services.ingest({"bicycle.md": "# Sport\n\nBicycles have two wheels.\n"})
    await services.told()
    again = await services.ask()
    assert (again.origin, again.answer) == (pb.ANSWER_ORIGIN_CACHED, first.answer)
    assert outcomes(again)["query_lookup"] == "candidate"
    assert outcomes(again)["evidence_check"] == "hit_confirmed"


async def test_a_changed_document_is_answered_from_as_it_is_now(services):
    await services.ask()
    await services.ingest({"button.md": "# Machine\n\nPull the green lever to stop the machine.\n"})
    assert "green lever" in (await services.ask()).answer
    await services.told()
    assert "green lever" in (await services.ask()).answer


async def test_many_who_ask_the_same_at_once_cost_one_generation(start_services):
    services = await start_services(tokens_per_second=60.0)
    responses = await asyncio.gather(*(services.ask() for _ in range(30)))
    assert len({each.answer for each in responses}) == 1
    assert not [each for response in responses for each in response.degradations]
    assert await services.generation_count() == 1
    generated = [each for each in responses if each.origin == pb.ANSWER_ORIGIN_GENERATED]
    assert len(generated) == 1


async def test_who_streams_later_is_shown_the_text_while_it_is_generated(start_services):
    # So slowly that the second one begins long before the end, on a busy machine too.
    services = await start_services(tokens_per_second=4.0)
    first, ended_at = services.stream(), {}

    async def read(name, call, begun=None):
        text = ""
        async for event in call:
            if event.text_delta and begun is not None and not begun.is_set():
                begun.set()
            text += event.text_delta
        ended_at[name] = time.monotonic()
        return text

    begun, followed = asyncio.Event(), asyncio.Event()
    leader = asyncio.create_task(read("leader", first, begun))
    await begun.wait()
    follower = asyncio.create_task(read("follower", services.stream(), followed))
    await followed.wait()
    assert not leader.done()
    assert await leader == await follower
    assert ended_at["follower"] - ended_at["leader"] < 1
    assert await services.generation_count() == 1


async def test_when_the_first_one_leaves_the_others_get_their_answer(start_services):
    services = await start_services(tokens_per_second=20.0)
    first = services.stream()
    async for event in first:
        if event.text_delta:
            break

    async def read():
        return [event async for event in services.stream()]

    followers = [asyncio.create_task(services.ask()), asyncio.create_task(read())]
    for _ in range(20):
        await asyncio.sleep(0.01)
    first.cancel()
    response, events = [await each for each in followers]
    text = "".join(event.text_delta for event in events)
    assert text == events[-1].completed.answer == response.answer
    assert not response.degradations


def reasons(degradations):
    return {
        pb.DegradationReason.Name(each.reason).removeprefix("DEGRADATION_REASON_")
        for each in degradations
    }


async def test_without_any_ollama_the_sources_answer(services):
    await services.standin.stop()
    response = await services.ask()
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert reasons(response.degradations) == {"EMBEDDING_UNAVAILABLE", "MODEL_UNAVAILABLE"}
    assert "blue button" in response.answer
    assert response.citations
    assert 0 < response.quality.score <= 0.45


async def test_a_model_that_dies_while_it_answers_leaves_the_sources_or_the_beginning(services):
    await services.standin.order_fault(drop_after_tokens=3, path="/api/chat", count=100)
    response = await services.ask()
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert "GENERATION_INTERRUPTED" in reasons(response.degradations)
    assert 0 < response.quality.score <= 0.3
    events = []

    async def read():
        async for event in services.stream("What does the red fox do?"):
            events.append(event)

    with pytest.raises(grpc.aio.AioRpcError):
        await read()
    text = "".join(each.text_delta for each in events)
    assert text
    assert events[-1].failed.partial_answer == text


async def test_what_came_of_it_shows_in_the_statistics_of_the_cache(services):
    await services.ask()
    await services.ask()
    await services.ask(PARAPHRASE)
    async with channel_to(int(services.cache_address.rpartition(":")[2])) as channel:
        stub = CacheServiceStub(channel)
        async with asyncio.timeout(30):
            while True:
                stats = await stub.GetStats(statistics.GetStatsRequest(), metadata=ACME)
                semantic = next(
                    each for each in stats.layers if each.layer == statistics.LAYER_SEMANTIC
                )
                hits = {each.kind: each.count for each in semantic.windows[0].hits}
                # That the evidence was found again is reported when the answer is under way.
                if "confirmed" in hits:
                    break
    assert (hits["exact"], hits["confirmed"]) == (1, 1)
    assert stats.semantic.entry_count == 1
    assert stats.flight.filled_count == 1
    assert semantic.saved_usage.completion_token_count > 0


class CacheProcess:
    """The cache as a process, to be killed and frozen."""

    def __init__(self, redis_url):
        self.port = free_port()
        self._environment = os.environ | {
            "PANNIER_CACHE_REDIS_URL": redis_url,
            "PANNIER_CACHE_GRPC_ADDRESS": f"127.0.0.1:{self.port}",
            "PANNIER_CACHE_DRAIN_DELAY_SECONDS": "0s",
        }
        self.process = None

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cache",
            env=self._environment,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with channel_to(self.port) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    async def kill(self):
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@pytest.fixture
async def cache_process(redis_server):  # noqa: F811
    process = CacheProcess(redis_server.url)
    await process.start()
    yield process
    await process.kill()


@pytest.mark.slow
async def test_a_cache_that_is_killed_costs_no_answer(start_services, cache_process):
    services = await start_services(
        cache_address=f"127.0.0.1:{cache_process.port}", tokens_per_second=20.0
    )
    leader, follower = services.stream(), services.stream()
    texts = {leader: "", follower: ""}

    async def read(call, begun):
        async for event in call:
            texts[call] += event.text_delta
            if event.text_delta:
                begun.set()
            if event.HasField("completed"):
                return event.completed
        raise AssertionError("no end")

    begun = asyncio.Event()
    first = asyncio.create_task(read(leader, begun))
    await begun.wait()
    begun = asyncio.Event()
    second = asyncio.create_task(read(follower, begun))
    await begun.wait()
    await cache_process.kill()
    for call, task in ((leader, first), (follower, second)):
        completed = await task
        assert texts[call] == completed.answer
        assert "blue button" in completed.answer
    response = await services.ask()
    assert response.answer == texts[leader]
    await cache_process.start()
    async with asyncio.timeout(20):
        while (await services.ask()).origin != pb.ANSWER_ORIGIN_CACHED:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_cache_that_is_frozen_delays_answers_by_little(start_services, cache_process):
    services = await start_services(cache_address=f"127.0.0.1:{cache_process.port}")
    usual = await services.ask()
    cache_process.freeze()
    for text in (QUESTION, PARAPHRASE):
        started = time.monotonic()
        response = await services.ask(text)
        assert time.monotonic() - started < 2
        assert response.answer == usual.answer
        assert [each.reason for each in response.degradations] == [
            pb.DEGRADATION_REASON_CACHE_UNAVAILABLE
        ]


async def test_a_conversation_goes_on_although_the_model_cannot_reword_its_questions(services):
    conversation_id, answers = "", []
    for text in (QUESTION, "How long does it take?"):
        request = pb.ChatRequest(
            conversation_id=conversation_id, query=pb.QueryRequest(collection="docs", query=text)
        )
        events = [event async for event in services.rag.Chat(request, metadata=ACME, timeout=30)]
        conversation_id = events[0].started.conversation_id
        answers.append(events[-1].answer.completed)
    # The stand-in answers from its prompt and does nothing else.
    assert [each.reason for each in answers[1].degradations] == [
        pb.DEGRADATION_REASON_REWRITE_SKIPPED
    ]
    assert answers[1].passages[0].document_id == "button.md"
    kept = await services.rag.GetConversation(
        conversation_pb2.GetConversationRequest(conversation_id=conversation_id), metadata=ACME
    )
    assert [turn.answer for turn in kept.turns] == [each.answer for each in answers]
