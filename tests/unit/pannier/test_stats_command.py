"""`pannier stats`, against services whose answers are written down here."""

import json
import time

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.cache.v1 import cache_service_pb2
from pannier.rag.v1 import rag_service_pb2

BALANCER = pb.GetStatsResponse(
    fleet=pb.FleetStats(backend_count=2, healthy_backend_count=1, request_count=7),
    backends=[
        pb.BackendStats(
            backend_id="127.0.0.1:11501",
            healthy=True,
            request_count=7,
            average_response_time=Duration(nanos=12_300_000),
            load_score_seconds=0.5,
        )
    ],
)
CACHE = cache_service_pb2.GetStatsResponse(
    layers=[
        cache_service_pb2.LayerStats(
            layer=cache_service_pb2.LAYER_EMBEDDING,
            lookup_count=10,
            local_hit_count=7,
            shared_hit_count=2,
            hit_ratio=0.9,
            ttl=Duration(seconds=7 * 86400),
        )
    ],
    store=cache_service_pb2.StoreStats(
        state=cache_service_pb2.STORE_STATE_UNAVAILABLE, last_failure="connection refused"
    ),
    degraded=True,
)
RAG = rag_service_pb2.GetStatsResponse(
    modes=[rag_service_pb2.ModeStats(mode=rag_service_pb2.QUERY_MODE_RAG, query_count=3)],
    stages=[rag_service_pb2.StageStats(name="vector_search", run_count=3)],
    ingest=rag_service_pb2.IngestStats(created_count=4),
)


@pytest.mark.parametrize(
    ("service", "response", "shown"),
    [
        ("balancer", BALANCER, ["1 of 2 backends healthy · 7 requests", "12.3 ms", "0.500 s"]),
        ("cache", CACHE, ["embedding       10     9  90.0 %", "shared store: unavailable"]),
        ("rag", RAG, ["rag         3", "vector_search     3", "4 created"]),
    ],
)
def test_statistics_are_shown_as_tables(services, service, response, shown):
    services.answers["GetStats"] = lambda _request, _context: response
    result = services.run("stats", service)
    assert result.exit_code == 0
    for part in shown:
        assert part in result.stdout


def test_queues_models_and_what_was_refused_are_shown(services):
    expire_time = Timestamp()
    expire_time.FromNanoseconds(round((time.time() + 50) * 1e9))
    fleet = pb.FleetStats(
        queues=[
            pb.QueueStats(
                priority=pb.PRIORITY_BATCH,
                waiting_count=68,
                limit=512,
                longest_wait=Duration(seconds=4),
            )
        ],
        refused_count=3,
        unreachable_deadline_count=2,
        model_load_count=4,
        eviction_count=1,
        retry_budget_ratio=0.75,
        replica_count=2,
        slots_divided=True,
    )
    models = [
        pb.LoadedModelStats(
            model="llama3.2:latest",
            residency=pb.MODEL_RESIDENCY_WARM,
            slot_count=4,
            in_flight_count=2,
            zombie_count=1,
            context_token_count=4096,
            expire_time=expire_time,
            prefill_tokens_per_second=1200.4,
            decode_tokens_per_second=41.6,
            predicted_load=Duration(seconds=2),
        ),
        pb.LoadedModelStats(
            model="all-minilm:latest",
            residency=pb.MODEL_RESIDENCY_LOADING,
            slot_count=1,
            pinned=True,
            expire_time=expire_time,
        ),
    ]
    backend = pb.BackendStats(
        backend_id="a:1",
        state=pb.BACKEND_STATE_RETURNING,
        ejection_count=5,
        stall_count=6,
        models=models,
    )
    response = pb.GetStatsResponse(fleet=fleet, backends=[backend])
    services.answers["GetStats"] = lambda _request, _context: response
    result = services.run("stats", "balancer")
    assert (
        "3 refused for lack of room, 2 for deadlines out of reach · 4 model loads, 1 evictions · "
        "75.0 % of the retry budget left · 2 replicas\n"
    ) in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["batch", "68", "512", "4.00", "s"] in lines
    assert next(line for line in lines if line[:2] == ["a:1", "returning"])[-2:] == ["5", "6"]
    warm = next(line for line in lines if "llama3.2:latest" in line)
    assert warm[2:-2] == [
        *("warm", "2", "of", "4", "1", "1200", "42", "4096", "2.00", "s", "in"),
    ]
    assert 40 <= int(warm[-2]) <= 50
    assert lines[-1] == [
        *("a:1", "all-minilm:latest", "loading", "0", "of", "1", "0", "-", "-", "-", "-"),
        "pinned",
    ]
    assert "each keeps to its share of the slots" in result.stderr


def test_a_store_that_is_away_is_said_plainly(services):
    services.answers["GetStats"] = lambda _request, _context: CACHE
    assert "connection refused" in services.run("stats", "cache").stderr


def test_json_has_numbers(services):
    services.answers["GetStats"] = lambda _request, _context: BALANCER
    document = json.loads(services.run("stats", "balancer", "--json").stdout)
    assert document["backends"][0]["average_response_time_seconds"] == 0.0123
    assert document["fleet"]["request_count"] == 7


def test_an_unknown_service_is_refused(services):
    assert services.run("stats", "toaster").exit_code == 2
