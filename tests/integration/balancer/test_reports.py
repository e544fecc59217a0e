"""Statistics, models and metrics."""

import asyncio
import urllib.request
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.core.failures import FailureKind
from services.balancer.core.plan import Reason
from services.balancer.metrics import CATALOGUE
from tests.kit.generations import generation, read, unrelated
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, running_standins

TEXT = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"])


async def read_page(balancer):
    def read():
        with urllib.request.urlopen(f"http://127.0.0.1:{balancer.http_port}/metrics") as reply:
            return reply.read().decode()

    return list(text_string_to_metric_families(await asyncio.to_thread(read)))


async def test_eight_equal_backends_share_400_generations_evenly(run_balancer, scripted):
    servers = [await scripted() for _ in range(8)]
    for server in servers:
        server.has("m:latest")
        server.stream("/api/generate", b'{"response":"x","done":true,"eval_count":1}\n')
    balancer = await run_balancer(*(server.url for server in servers))
    remaining = iter(range(400))

    async def caller():
        for number in remaining:
            _, error = await read(balancer.stub.Generate(generation(unrelated(number), "m")))
            assert error is None

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(caller())
    stats = await balancer.stats()
    counts = {each.backend_id: each.request_count for each in stats.backends}
    assert sum(counts.values()) == 400
    assert all(35 <= count <= 65 for count in counts.values()), counts


async def test_a_faster_backend_gets_more_of_the_generations(run_balancer, warm_standins):
    async with (
        warm_standins(1, tokens_per_second=400.0) as (fast,),
        warm_standins(1, tokens_per_second=40.0) as (slow,),
    ):
        balancer = await run_balancer(fast.url, slow.url)
        request = pb.GenerateRequest(
            model=CHAT_MODEL, prompt="Say something.", sampling={"max_output_token_count": 20}
        )
        remaining, served = iter(range(60)), Counter()

        async def caller():
            for _ in remaining:
                async for event in balancer.stub.Generate(request):
                    if event.HasField("started"):
                        served[event.started.backend_id] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(caller())
        stats = await balancer.stats()
    assert served[fast.backend_id] > 2 * served[slow.backend_id], served
    scores = {each.backend_id: each.load_score_seconds for each in stats.backends}
    assert 0 < scores[fast.backend_id] < scores[slow.backend_id]


async def test_stats_tell_counts_times_and_scores_per_backend(run_balancer, warm_standins):
    async with warm_standins(2) as standins:
        balancer = await run_balancer(*(standin.url for standin in standins))
        before = await balancer.stats()
        for _ in range(4):
            await balancer.stub.Embed(TEXT)
        await error_of(balancer.stub.Embed(pb.EmbedRequest(model="x", texts=["a"])))
        stats = await balancer.stats()
    assert not before.backends[0].HasField("average_response_time")
    assert not before.backends[0].HasField("embedding_time")
    assert stats.start_time == before.start_time
    assert stats.fleet.backend_count == 2
    assert (stats.fleet.request_count, stats.fleet.failure_count) == (5, 1)
    for each in stats.backends:
        assert each.request_count > 0
        assert each.average_response_time.ToSeconds() + each.average_response_time.nanos > 0
        assert each.HasField("embedding_time")
        assert not each.HasField("first_token_time")
        assert each.load_score_seconds > 0
        assert each.in_flight_count == each.in_flight_text_count == 0


async def test_models_are_listed_in_pages_that_belong_together(run_balancer):
    async with running_standins(2) as standins:
        balancer = await run_balancer(*(standin.url for standin in standins))
        await balancer.stub.Embed(TEXT)
        await balancer.health(check_now=True)
        first = await balancer.stub.ListModels(pb.ListModelsRequest(page_size=1))
        second = await balancer.stub.ListModels(
            pb.ListModelsRequest(page_size=1, page_token=first.next_page_token)
        )
        error = await error_of(
            balancer.stub.ListModels(pb.ListModelsRequest(page_token="bm90IG91cnM"))
        )
    assert [each.name for each in (*first.models, *second.models)] == [EMBEDDING_MODEL, CHAT_MODEL]
    assert second.next_page_token == ""
    assert error.error_reason == "PAGE_TOKEN_MISMATCH"
    (model,) = first.models
    assert model.embedding_dimension == 384
    assert list(model.capabilities) == [pb.MODEL_CAPABILITY_EMBEDDING]
    assert list(model.backend_ids) == sorted(standin.backend_id for standin in standins)
    assert len(model.loaded_backend_ids) == 1
    assert not model.drifted


async def test_a_model_is_described_with_how_each_backend_has_it(run_balancer):
    async with running_standins(2, load_seconds=0.02) as standins:
        balancer = await run_balancer(*(standin.url for standin in standins))
        await balancer.stub.Embed(TEXT)
        await balancer.health(check_now=True)
        name = EMBEDDING_MODEL.removesuffix(":latest")
        shown = await balancer.stub.ShowModel(pb.ShowModelRequest(model=name))
        listed = (await balancer.stub.ListModels(pb.ListModelsRequest())).models
        unknown = await error_of(balancer.stub.ShowModel(pb.ShowModelRequest(model="absent")))
        nameless = await error_of(balancer.stub.ShowModel(pb.ShowModelRequest()))
    assert shown.model in listed
    assert shown.model.name == EMBEDDING_MODEL
    assert [each.backend_id for each in shown.backends] == list(shown.model.backend_ids)
    residencies = {each.backend_id: each.stats.residency for each in shown.backends}
    assert sorted(residencies.values()) == [pb.MODEL_RESIDENCY_INSTALLED, pb.MODEL_RESIDENCY_WARM]
    assert residencies[shown.model.loaded_backend_ids[0]] == pb.MODEL_RESIDENCY_WARM
    for each in shown.backends:
        assert each.healthy
        assert each.size_bytes == shown.model.size_bytes > 0
        assert (each.stats.model, each.stats.digest) == (shown.model.name, shown.model.digest)
        assert each.stats.slot_count >= 1
        assert each.stats.prefill_tokens_per_second > 0
        assert each.stats.predicted_load.ToNanoseconds() > 0
    assert unknown.error_reason == "MODEL_NOT_FOUND"
    assert EMBEDDING_MODEL in unknown.metadata["known_models"]
    assert nameless.error_reason == "INVALID_FIELD"


async def test_drifted_models_are_marked(run_balancer, scripted):
    first, second = await scripted(), await scripted()
    first.has("m:latest", digest="a" * 64)
    second.has("M:latest", digest="b" * 64)
    balancer = await run_balancer(first.url, second.url)
    (model,) = (await balancer.stub.ListModels(pb.ListModelsRequest())).models
    assert model.drifted
    assert len(model.backend_ids) == 2


async def test_every_metric_of_the_catalogue_shows_and_known_series_exist_from_the_start(
    run_balancer, warm_standins
):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        families = {family.name: family for family in await read_page(balancer)}
    for metric in CATALOGUE:
        assert metric.name.removesuffix("_total") in families
    decisions = families["balancer_routing_decisions"].samples
    assert {each.labels["policy"] for each in decisions} == {each.value for each in Reason}
    retries = families["balancer_retries"].samples
    assert {each.labels["reason"] for each in retries} == {
        each.value for each in FailureKind if each.retryable
    }
    assert len(families["balancer_requests"].samples) == 5


async def test_metrics_count_what_happened(run_balancer):
    async with running_standins(1, load_seconds=0.2) as (standin,):
        balancer = await run_balancer(standin.url)
        backend = standin.backend_id
        await balancer.stub.Embed(TEXT)
        request = pb.GenerateRequest(model=CHAT_MODEL, prompt="Say something.")
        events = [event async for event in balancer.stub.Generate(request)]
    tokens = events[-1].completed.usage.completion_token_count
    value = balancer.value
    assert value("balancer_tokens_total", backend=backend, direction="output") == tokens
    assert value("balancer_tokens_total", backend=backend, direction="input") > 0
    for operation in ("embed", "generate"):
        assert value("balancer_operation_duration_seconds_count", operation=operation) == 1
    assert value("balancer_time_to_first_token_seconds_count", backend=backend) == 1
    assert value("balancer_time_per_output_token_seconds_count", backend=backend) == 1
    assert value("balancer_requests_total", outcome="success", backend=backend) == 2
    assert value("balancer_request_duration_seconds_count", backend=backend) == 2
    assert value("balancer_model_load_seconds_count") == 2
    assert value("balancer_backend_loads_total", backend=backend) == 2
    assert value("balancer_backend_inflight", backend=backend) == 0
    assert value("balancer_backend_healthy", backend=backend) == 1
    assert value("balancer_backend_load_score", backend=backend) > 0
    assert value("balancer_backend_last_check_timestamp_seconds", backend=backend) > 1e9
    assert value("balancer_routing_decisions_total", policy="only_candidate") == 2
