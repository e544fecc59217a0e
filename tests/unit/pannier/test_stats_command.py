"""`pannier stats`, against services whose answers are written down here."""

import json
import time

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.cache.v1 import statistics_pb2
from pannier.rag.v1 import rag_service_pb2, tool_pb2

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
CACHE = statistics_pb2.GetStatsResponse(
    layers=[
        statistics_pb2.LayerStats(
            layer=statistics_pb2.LAYER_EMBEDDING,
            lookup_count=10,
            local_hit_count=7,
            shared_hit_count=2,
            hit_ratio=0.9,
            ttl=Duration(seconds=7 * 86400),
            windows=[
                statistics_pb2.WindowStats(window=Duration(seconds=60)),
                statistics_pb2.WindowStats(window=Duration(seconds=300), lookup_count=4),
                statistics_pb2.WindowStats(
                    lookup_count=10,
                    hit_ratio=0.9,
                    effective_hit_ratio=0.95,
                    token_hit_ratio=0.25,
                    hits=[
                        statistics_pb2.OutcomeCount(kind="local", count=7),
                        statistics_pb2.OutcomeCount(kind="shared", count=2),
                    ],
                    lookup_time=statistics_pb2.Quantiles(p50=Duration(nanos=400_000)),
                ),
            ],
        ),
    ],
    store=statistics_pb2.StoreStats(
        state=statistics_pb2.STORE_STATE_UNAVAILABLE,
        last_failure="connection refused",
        topology="cluster",
        dropped_write_count=8,
    ),
    degraded=True,
)
RAG = rag_service_pb2.GetStatsResponse(
    modes=[
        rag_service_pb2.ModeStats(
            mode=rag_service_pb2.QUERY_MODE_RAG, query_count=3, mean_quality=0.914
        )
    ],
    degradations=[
        rag_service_pb2.DegradationStats(
            reason=rag_service_pb2.DEGRADATION_REASON_MODEL_UNAVAILABLE, count=2
        )
    ],
    stages=[rag_service_pb2.StageStats(name="vector_search", run_count=3)],
    tools=[
        tool_pb2.ToolStats(
            name="calculator", execution_count=8, success_count=7, success_ratio=0.875
        ),
        tool_pb2.ToolStats(name="web_search"),
    ],
    ingest=rag_service_pb2.IngestStats(created_count=4),
)


@pytest.mark.parametrize(
    ("service", "response", "shown"),
    [
        ("balancer", BALANCER, ["1 of 2 backends healthy · 7 requests", "12.3 ms", "0.500 s"]),
        ("cache", CACHE, ["7 local, 2 shared", "shared store (cluster): unavailable"]),
        ("rag", RAG, ["rag         3", "0.91", "vector_search     3", "4 created"]),
        ("rag", RAG, ["model unavailable      2"]),
        ("rag", RAG, ["calculator      8      87.5%", "web_search      0          -"]),
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


def lines_of(services, response):
    services.answers["GetStats"] = lambda _request, _context: response
    result = services.run("stats", "cache")
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_each_layer_shows_its_spans_with_the_counts_that_its_ratios_are_made_of(services):
    rows = [line for line in lines_of(services, CACHE) if line.startswith("embedding")]
    assert [row.split()[1:4] for row in rows[:2]] == [["5", "min", "4"], ["since", "start", "10"]]
    assert rows[1].split()[4:15] == [
        *("90.0", "%", "95.0", "%", "25.0", "%", "7", "local,", "2", "shared", "0"),
    ]
    assert "0.40 ms" in rows[1]
    assert rows[2].split()[-2:] == ["7", "d"]


def test_no_figure_is_made_up_for_several_layers_together(services):
    layers = [
        statistics_pb2.LayerStats(
            layer=layer, windows=[statistics_pb2.WindowStats(lookup_count=10, hit_ratio=ratio)]
        )
        for layer, ratio in (
            (statistics_pb2.LAYER_EMBEDDING, 0.9),
            (statistics_pb2.LAYER_SEMANTIC, 0.1),
        )
    ]
    shown = "\n".join(lines_of(services, statistics_pb2.GetStatsResponse(layers=layers)))
    assert "90.0 %" in shown
    assert "10.0 %" in shown
    assert "50.0 %" not in shown


def semantic(**fields) -> statistics_pb2.GetStatsResponse:
    layer = statistics_pb2.LayerStats(
        layer=statistics_pb2.LAYER_SEMANTIC, lookup_count=5, ttl=Duration(seconds=3600)
    )
    stats = statistics_pb2.SemanticStats(
        threshold=0.95,
        error_budget_ratio=0.01,
        false_hit_ratio_upper_bound=0.037,
        entry_count=12,
        partition_count=3,
        **fields,
    )
    return statistics_pb2.GetStatsResponse(layers=[layer], semantic=stats)


@pytest.mark.parametrize(("proven", "verdict"), [(False, "unproven"), (True, "proven")])
def test_the_semantic_layer_says_whether_its_budget_is_proven_to_be_kept(services, proven, verdict):
    lines = lines_of(services, semantic(verified_count=100, wrong_count=1, proven=proven))
    shown = next(line for line in lines if line.startswith("semantic: "))
    assert shown == (
        "semantic: 1 of 100 verified answers were wrong, 0.0 % to 3.7 % at 95 %; budget 1.0 %: "
        f"{verdict}"
    )


def test_false_hits_are_shown_by_span_with_their_bounds(services):
    response = semantic()
    response.layers[0].windows.add(window=Duration(seconds=60)).false_hits.ratio_upper_bound = 1
    response.layers[0].windows.add().false_hits.MergeFrom(
        statistics_pb2.FalseHits(
            verified_count=10,
            wrong_count=1,
            ratio=0.1,
            ratio_lower_bound=0.018,
            ratio_upper_bound=0.404,
        )
    )
    lines = lines_of(services, response)
    assert (
        "false hits found here: 1 min 0 of 0 (0.0 % to 100.0 %), "
        "since start 1 of 10 (1.8 % to 40.4 %)"
    ) in lines


def test_the_semantic_index_shows_thresholds_lag_and_what_guards_refused(services):
    response = semantic(
        rejections=[statistics_pb2.GuardCount(guard="numbers", count=3)],
        thresholds=[statistics_pb2.NamespaceThreshold(namespace="faq", threshold=0.98)],
        feed_lag=Duration(nanos=2_000_000),
    )
    lines = lines_of(services, response)
    index = next(line for line in lines if line.startswith("semantic index"))
    assert index.endswith(
        "12 questions in 3 partitions, 0 B, 2.00 ms behind; threshold 0.95, faq 0.98"
    )
    assert "refused by guards: numbers 3" in lines
    assert lines[-1].split()[-2:] == ["1", "h"]


def test_single_flight_and_savings_are_shown_gross_and_net(services):
    response = statistics_pb2.GetStatsResponse(
        flight=statistics_pb2.FlightStats(
            lease_count=4, refresh_count=1, filled_count=3, coalesced_count=199, wait_ended_count=2
        ),
        savings=statistics_pb2.Savings(
            usage={"prompt_token_count": 30, "completion_token_count": 12},
            coalesced_usage={"prompt_token_count": 9, "completion_token_count": 8},
            gross_time=Duration(seconds=4),
            net_time=Duration(seconds=-1),
            gross_cost=2.5,
            net_cost=2.25,
            currency="EUR",
        ),
    )
    lines = lines_of(services, response)
    assert lines[1].startswith("single-flight: 4 leases (1 to refresh), 0 held; 3 filled")
    assert lines[2].startswith("callers: 199 got another's answer, 2 waited in vain")
    assert lines[3] == (
        "saved by hits: 30 + 12 tokens, 4.00 s of generation (net -1.00 s), 2.50 EUR (net 2.25)"
    )
    assert lines[4] == "saved by waiting for another's answer: 9 + 8 tokens"


def test_modes_and_tenants_are_shown_layer_by_layer(services):
    counts = {
        "layer": statistics_pb2.LAYER_INFERENCE,
        "lookup_count": 9,
        "hit_count": 6,
        "hits": [{"kind": "local", "count": 4}, {"kind": "coalesced", "count": 2}],
    }
    response = statistics_pb2.GetStatsResponse(
        modes=[statistics_pb2.ModeStats(mode="deep", **counts)],
        tenants=[
            statistics_pb2.TenantStats(
                tenant_id=tenant_id,
                layers=[statistics_pb2.ModeStats(**counts)],
                saved_usage={"prompt_token_count": 5, "completion_token_count": 7},
            )
            for tenant_id in ("acme", "")
        ],
    )
    rows = [line.split() for line in lines_of(services, response)]
    hits = ["4", "local,", "2", "coalesced"]
    assert ["deep", "inference", "9", *hits] in rows
    assert ["acme", "inference", "9", *hits, "5", "+", "7"] in rows
    assert ["(others)", "inference", "9", *hits, "5", "+", "7"] in rows


def test_a_slow_store_is_said_plainly(services):
    store = statistics_pb2.StoreStats(state=statistics_pb2.STORE_STATE_SLOW)
    response = statistics_pb2.GetStatsResponse(store=store)
    services.answers["GetStats"] = lambda _request, _context: response
    assert "nothing is written" in services.run("stats", "cache").stderr


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
