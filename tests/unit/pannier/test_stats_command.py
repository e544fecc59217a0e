"""`pannier stats`, against services whose answers are written down here."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2
from pannier.cache.v1 import cache_service_pb2
from pannier.rag.v1 import rag_service_pb2

BALANCER = balancer_service_pb2.GetStatsResponse(
    fleet=balancer_service_pb2.FleetStats(
        backend_count=2, healthy_backend_count=1, request_count=7
    ),
    backends=[
        balancer_service_pb2.BackendStats(
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
