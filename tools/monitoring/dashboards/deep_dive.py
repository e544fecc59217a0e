"""Deep dive: the way of an answer, step by step, and what the telemetry itself loses."""

from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import (
    mean,
    occurring,
    quantile,
    rate,
    ratio,
    short_method,
    topmost,
    total,
)
from tools.monitoring.dashboards.kinds import events, heatmap, lines, on_the_right
from tools.monitoring.dashboards.panels import Query, Why

__all__ = ["DEEP_DIVE"]

_NOTICED_SECONDS = 0.005
_WAITS = "connection_pool_wait_seconds"
_SHORT_WAITS = f'{_WAITS}_bucket{{le="{_NOTICED_SECONDS:g}"}}'
_ALL_WAITS = rate(f"{_WAITS}_count", "job, pool")

_GENERATION = Section(
    "Generation",
    (
        lines(
            1,
            "Time to first token P50/P95 by mode",
            Why(
                "The time within which half, and 95 of 100, answers began, by mode, those from "
                "the cache included.",
                "It is how long a reader looks at nothing.",
                "If it rises alone, without Time per output token, requests wait: for a slot, a "
                "model's load or a long prompt. Open an exemplar's trace.",
            ),
            Query(quantile(0.5, "rag_time_to_first_token_seconds", "mode"), "{{mode}} P50"),
            Query(quantile(0.95, "rag_time_to_first_token_seconds", "mode"), "{{mode}} P95"),
            unit="s",
        ),
        lines(
            2,
            "Time per output token P95 by backend",
            Why(
                "What a generated token takes on each backend; 95 of 100 answers were faster. An "
                "estimate: the buckets are wide.",
                "Above a tenth of a second reading is faster than writing.",
                "One backend: it is shared or hot. All: too many at once on each; lower their "
                "slots.",
            ),
            Query(
                quantile(0.95, "balancer_time_per_output_token_seconds", "backend"), "{{backend}}"
            ),
            unit="s",
        ),
        lines(
            3,
            "Cold model loads",
            Why(
                "Loads of models that ended well each second, by backend, ordered by the balancer "
                "or within a request; on the right what one takes on average.",
                "A cold load is the longest wait that a healthy fleet has.",
                "Regular ones: pin the model, or make room; see VRAM beside.",
            ),
            Query(rate("balancer_backend_loads_total", "backend"), "{{backend}}"),
            Query(mean("balancer_model_load_seconds"), "mean of a load"),
            unit="ops",
            overrides=(on_the_right("B", "s"),),
        ),
        lines(
            4,
            "In flight by backend",
            Why(
                "Attempts under way on each backend, of all balancers together.",
                "At its slots a backend takes no more, and requests queue.",
                "One at its slots while others are not: they lack the model.",
            ),
            Query(total("balancer_backend_inflight", "backend"), "{{backend}}"),
            unit="short",
        ),
        lines(
            5,
            "VRAM by backend and model",
            Why(
                "Memory of the graphics card that each loaded model takes, as Ollama reports it; "
                "0 for a model that runs on the processor.",
                "What does not fit is computed by the processor, many times slower.",
                "A model that shrank while it is loaded: part of it fell out of the card.",
            ),
            Query(
                "max by (backend, model) (balancer_backend_model_vram_bytes)",
                "{{backend}}, {{model}}",
            ),
            unit="bytes",
        ),
        lines(
            16,
            "Tool time P95",
            Why(
                "The time within which 95 of 100 calls of each tool were done; those that were "
                "refused do not count. Less than 1 ms shows as somewhat below it.",
                "An agent waits for each of its tools in turn.",
                "web_search slow: its service. retrieve slow: see Stage latency.",
            ),
            Query(quantile(0.95, "rag_tool_duration_seconds", "tool"), "{{tool}}"),
            unit="s",
        ),
    ),
)

_RETRIEVAL = Section(
    "Retrieval",
    (
        heatmap(
            6,
            "Retrieval confidence",
            Why(
                "Searches each second by how far what they found can be relied on, from 0 to 1, "
                "over time.",
                "Low confidence sends a question to the web, or to an answer with a warning.",
                "A band that moves down after ingestion: those documents were cut badly.",
            ),
            Query(rate("rag_retrieval_confidence_bucket", "le"), "{{le}}"),
            unit="percentunit",
        ),
        heatmap(
            9,
            "Semantic similarity of best candidate",
            Why(
                "Questions looked up each second by the similarity of the most similar known one, "
                "over time; those found by their words were not compared.",
                "The crowd just below the threshold is what a lower one would gain, and risk.",
                "Before you change the threshold, read how many of that crowd the guards refuse.",
            ),
            Query(rate("cache_semantic_similarity_ratio_bucket", "le"), "{{le}}"),
            unit="percentunit",
        ),
        lines(
            7,
            "Chunks per stage (mean)",
            Why(
                "Mean number of passages that searches by meaning and by words found, that were "
                "left when both were fused, that were judged, and that a model was given.",
                "What is not found at first is missing at the end.",
                "vector is missing: no embeddings. rerank below its usual: its time is too short "
                "to judge all.",
            ),
            Query(mean("rag_retrieved_chunks", "stage"), "{{stage}}"),
            unit="short",
        ),
        lines(
            17,
            "Retriever calls by outcome",
            Why(
                "Calls of each retriever each second, by outcome.",
                "One retriever may fail unseen, for the other still finds something.",
                "error: vector needs the balancer and PostgreSQL, words only PostgreSQL, web the "
                "internet.",
            ),
            Query(
                occurring("rag_retriever_calls_total", "retriever, outcome"),
                "{{retriever}}, {{outcome}}",
            ),
            unit="ops",
        ),
        lines(
            18,
            "Searches by confidence",
            Why(
                "Searches each second, by how far what they found can be relied on.",
                "They are those of the heatmap, in the three bands that decisions are made by.",
                "If low grows, see Web fallback rate on Business metrics for what it leads to.",
            ),
            Query(rate("rag_searches_total", "band"), "{{band}}"),
            unit="ops",
            stacked=True,
        ),
        lines(
            8,
            "Degradations by reason",
            Why(
                "Degradations each second, by reason.",
                "The reason names the part that was missing.",
                "Start with the most frequent one; docs/answering.md says what each leads to.",
            ),
            *events("rag_degradations_total", "reason", "{{reason}}"),
            unit="ops",
            alerts=("HighDegradationRate",),
        ),
        lines(
            14,
            "Ingest",
            Why(
                "The time within which 95 of 100 runs of each stage of ingestion were done, an "
                "estimate; on the right chunks stored each second.",
                "embed is usually the slowest; it competes with questions for the fleet.",
                "store slow: PostgreSQL's index is being built; it ends by itself.",
            ),
            Query(quantile(0.95, "rag_ingest_stage_duration_seconds", "stage"), "{{stage}}"),
            Query(rate("rag_ingest_chunks_total"), "chunks"),
            unit="s",
            overrides=(on_the_right("B", "ops"),),
        ),
        lines(
            19,
            "Vectors filled in later",
            Why(
                "Chunks each second that were stored without a vector and have got theirs since.",
                "Until then they are found by their words only.",
                "If it never ends, the embedding model cannot keep up with ingestion.",
            ),
            Query(rate("rag_vectors_filled_total"), "filled"),
            unit="ops",
        ),
    ),
)

_HOPS = Section(
    "Between the services",
    (
        lines(
            11,
            "Cache lookup P95 by layer",
            Why(
                "The time within which 95 of 100 lookup calls were done, by layer.",
                "Every question pays for several lookups before anything else.",
                "Tens of milliseconds: the shared store is slow, or values are very large.",
            ),
            Query(quantile(0.95, "cache_lookup_duration_seconds", "layer"), "{{layer}}"),
            unit="s",
            width=6,
        ),
        lines(
            10,
            "Single-flight joins",
            Why(
                "Callers each second who began to wait for an answer that another one computed, "
                "by layer.",
                "Each is a whole computation spared.",
                "Many at once: a crowd asks the same; that is what it is for.",
            ),
            Query(rate("cache_singleflight_waits_total", "layer"), "{{layer}}"),
            unit="ops",
            width=6,
        ),
        lines(
            12,
            "Hop latency P95 (client view)",
            Why(
                "What calls of rag to the other services took, by method, until the whole answer; "
                "95 of 100 were faster. Less than 1 ms shows as somewhat below it.",
                "Compared with the server's view beside, it shows what the way between costs.",
                "Far above the server's: network, or this process's event loop is late.",
            ),
            Query(
                short_method(quantile(0.95, "rpc_client_call_duration_seconds", "rpc_method")),
                "{{method}}",
            ),
            unit="s",
            width=6,
        ),
        lines(
            20,
            "Call latency P95 (server view)",
            Why(
                "What calls took inside each service; 95 of 100 were faster: of the ten methods "
                "that took most time in all. Less than 1 ms shows as somewhat below it.",
                "It is the time without the way to the service; with streams it holds that of "
                "who reads them.",
                "One slow method of one service: open an exemplar's trace.",
            ),
            Query(
                topmost(
                    short_method(
                        quantile(0.95, "rpc_server_call_duration_seconds", "job, rpc_method")
                    ),
                    "rpc_server_call_duration_seconds_sum",
                    "rpc_method",
                ),
                "{{job}}, {{method}}",
            ),
            unit="s",
            width=6,
        ),
        lines(
            13,
            "Pool wait",
            Why(
                "Mean wait for a connection of a pool, 0 where one was free; on the right the "
                f"share of those who waited longer than {_NOTICED_SECONDS:g} s.",
                "A wait here looks like a slow database and is none.",
                "Above some milliseconds: raise the pool's size.",
            ),
            Query(mean(_WAITS, "job, pool"), "{{job}}, {{pool}}"),
            Query(
                f"1 - {ratio(rate(_SHORT_WAITS, 'job, pool'), _ALL_WAITS)}",
                "{{job}}, {{pool}}, waited",
            ),
            unit="s",
            overrides=(on_the_right("B", "percentunit", most=1),),
        ),
        lines(
            21,
            "Resumable answers",
            Why(
                "Answers that can be gone on with after a lost connection, and on the right the "
                "memory of their events, in all instances of rag.",
                "They are kept in memory for a while after their end.",
                "Memory that keeps growing: shorten how long they are kept.",
            ),
            Query(total("rag_resumable_answers"), "answers"),
            Query(total("rag_resumable_bytes"), "memory"),
            unit="short",
            overrides=(on_the_right("B", "bytes"),),
        ),
        lines(
            22,
            "Resumptions",
            Why(
                "Attempts to go on with an answer each second, by what it was found to be.",
                "Each is a connection that was lost in the middle of an answer.",
                "not_found: clients come back too late, or to another instance.",
            ),
            Query(rate("rag_resumes_total", "outcome"), "{{outcome}}"),
            unit="ops",
        ),
    ),
)

_TELEMETRY = Section(
    "Telemetry itself",
    (
        lines(
            15,
            "Telemetry health",
            Why(
                "Spans each second that were dropped, and label values that were folded into "
                "another for want of room, by service.",
                "Dropped spans are holes in traces; folded labels are series that say less.",
                "Dropped spans: is the collector there? Folded labels: "
                "telemetry_label_overflow_total says which label; raise its limit.",
            ),
            Query(rate("telemetry_spans_dropped_total", "job"), "{{job}}, spans dropped"),
            Query(rate("telemetry_label_overflow_total", "job"), "{{job}}, labels folded"),
            unit="ops",
            width=12,
            alerts=("SpansDropped",),
        ),
        lines(
            23,
            "Spans exported",
            Why(
                "Spans each second that were handed to the collector, by service.",
                "A service without spans is missing in every trace.",
                "0 while there is traffic: tracing is switched off, or the collector refuses.",
            ),
            Query(rate("telemetry_spans_exported_total", "job"), "{{job}}"),
            unit="ops",
            width=12,
        ),
    ),
)

DEEP_DIVE = Dashboard(
    uid="deep-dive",
    title="Deep dive",
    question="Where on its way does an answer lose time or quality?",
    group="deep-dive",
    refresh="30s",
    span="1h",
    sections=(_GENERATION, _RETRIEVAL, _HOPS, _TELEMETRY),
)
