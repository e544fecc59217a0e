"""Every metric of the rag service."""

from services.common.metrics import RPC_CLIENT_METRICS, Metric, MetricKind, one_of, up_to
from services.rag.core.intake import IngestOutcome
from services.rag.core.options import Mode
from services.rag.core.profile import DegradationReason, WarningKind
from services.rag.core.query_type import QueryType
from services.rag.core.retrieved import Band
from services.rag.core.tools import TOOL_NAMES, UNKNOWN_TOOL, ToolOutcome
from services.rag.core.verification import SupportStatus
from services.rag.web_port import PageOutcome

__all__ = ["CATALOGUE", "MOST_TENANTS"]

MOST_TENANTS = 150
"""Tenants that a metric can tell apart at the most; the setting chooses how many it does."""

_MODES = tuple(each.value for each in Mode)
_MODE = {"mode": one_of(*_MODES)}
_ANY_MODE = {
    "mode": one_of(
        *_MODES,
        "retrieve",
        "other",
        retrieve="searches without an answer",
        other="what no question waits for, and what callers have tracked under a name of theirs",
    )
}
_MODEL = {"model": up_to(32, "models that were asked")}
_CURRENCY = {"currency": up_to(1, "ISO code of the prices, `none` where there are none")}
_TENANT = {"tenant": up_to(MOST_TENANTS, "tenants, by default the first 50")}
_TOOL = one_of(*TOOL_NAMES, UNKNOWN_TOOL)
_OUTCOME = one_of(
    "success", "error", "refused", "cancelled", refused="the budget of the tenant is spent"
)
_FOUND = one_of("success", "empty", "error")

# The line between good and not is 0.8.
QUALITY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
# Up to what an arm may be asked for.
_CHUNK_BUCKETS = (0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 50, 75, 100, 200, 500, 1000)
_CALL_BUCKETS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
_INGEST_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    300.0,
)  # fmt: skip

CATALOGUE = (
    *RPC_CLIENT_METRICS,
    Metric(
        "rag_requests_total",
        MetricKind.COUNTER,
        "Questions by what became of them.",
        {**_MODE, "outcome": _OUTCOME},
    ),
    Metric(
        "rag_request_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time from a question's arrival until its whole answer.",
        {
            **_MODE,
            "cache": one_of(
                "hit",
                "semantic_hit",
                "miss",
                "bypass",
                hit="the same question or the same prompt",
                semantic_hit="a question that means the same",
                bypass="nothing was looked for",
            ),
        },
        has_exemplars=True,
    ),
    Metric(
        "rag_time_to_first_token_seconds",
        MetricKind.HISTOGRAM,
        "Time from a question's arrival until the first text of its answer.",
        _MODE,
        has_exemplars=True,
    ),
    Metric(
        "rag_stage_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of one stage of an answer.",
        {"stage": up_to(40, "stages")},
    ),
    Metric("rag_active_queries", MetricKind.GAUGE, "Questions being answered.", _MODE),
    Metric(
        "rag_degraded_responses_total",
        MetricKind.COUNTER,
        "Answers with at least one degradation.",
        _MODE,
    ),
    Metric(
        "rag_degradations_total",
        MetricKind.COUNTER,
        "Degradations by reason.",
        {"reason": one_of(*(each.value for each in DegradationReason))},
    ),
    Metric(
        "rag_warnings_total",
        MetricKind.COUNTER,
        "Warnings that came with answers.",
        {"type": one_of(*(each.value for each in WarningKind))},
    ),
    Metric(
        "rag_query_types_total",
        MetricKind.COUNTER,
        "Questions by what they ask for.",
        {"type": one_of(*(each.value for each in QueryType))},
    ),
    Metric(
        "rag_ingest_documents_total",
        MetricKind.COUNTER,
        "Documents by what became of them.",
        {"outcome": one_of(*(each.value for each in IngestOutcome))},
    ),
    Metric(
        "rag_answer_reuse_total",
        MetricKind.COUNTER,
        "Questions by what came of looking for an answer given before.",
        {
            "outcome": one_of(
                "exact",
                "similar",
                "confirmed",
                "unconfirmed",
                "outdated",
                "unchecked",
                "miss",
                "bypassed",
                "unavailable",
                outdated="found, not given: what it was made from has changed or cannot be read",
                unchecked="given, though what it was made from cannot be read",
            ),
        },
    ),
    Metric(
        "rag_background_work_total",
        MetricKind.COUNTER,
        "Work that no caller waits for, by what became of it.",
        {
            "kind": one_of("refresh", "verification", "report", "summary"),
            "outcome": one_of("success", "error", "dropped"),
        },
    ),
    Metric(
        "rag_invalidations_pending",
        MetricKind.GAUGE,
        "Changes of documents that the cache has still to be told of, at most 1000.",
        {},
    ),
    Metric(
        "rag_invalidations_delivered_total",
        MetricKind.COUNTER,
        "Changes of documents that the cache has been told of.",
        {},
    ),
    Metric("rag_ingest_chunks_total", MetricKind.COUNTER, "Chunks stored.", {}),
    Metric(
        "rag_vectors_filled_total",
        MetricKind.COUNTER,
        "Chunks stored without a vector that have got theirs since.",
        {},
    ),
    Metric(
        "rag_quality_score",
        MetricKind.HISTOGRAM,
        "Quality of answers, from 0 to 1; those in mode direct have none.",
        _MODE,
        QUALITY_BUCKETS,
    ),
    Metric(
        "rag_verified_sentences_total",
        MetricKind.COUNTER,
        "Sentences of answers by what checking them against their sources found.",
        {"status": one_of(*(each.value for each in SupportStatus))},
    ),
    Metric(
        "rag_resumable_answers",
        MetricKind.GAUGE,
        "Answers that can be gone on with after a lost connection, under way or ended.",
        {},
    ),
    Metric(
        "rag_resumable_bytes", MetricKind.GAUGE, "Memory that the events of these answers take.", {}
    ),
    Metric(
        "rag_resumes_total",
        MetricKind.COUNTER,
        "Attempts to go on with an answer, by what it was found to be.",
        {"outcome": one_of("under_way", "ended", "not_found")},
    ),
    Metric(
        "rag_turns_total",
        MetricKind.COUNTER,
        "Turns of conversations by what became of them: with a whole answer, with the beginning of "
        "one, without any text and so not kept, or lost since they could not be kept.",
        {"outcome": one_of("complete", "interrupted", "empty", "lost")},
    ),
    Metric(
        "rag_searches_total",
        MetricKind.COUNTER,
        "Searches by how far what they found can be relied on.",
        {"band": one_of(*(each.value for each in Band))},
    ),
    Metric(
        "rag_retrievals_total",
        MetricKind.COUNTER,
        "Searches of documents by what came of them.",
        {**_ANY_MODE, "outcome": _FOUND},
    ),
    Metric(
        "rag_retriever_calls_total",
        MetricKind.COUNTER,
        "Searches by meaning, by words and of the web, each for one wording of a question.",
        {"retriever": one_of("vector", "words", "web"), "outcome": _FOUND},
    ),
    Metric(
        "rag_retrieved_chunks",
        MetricKind.HISTOGRAM,
        "Chunks that a step of an answer has left over.",
        {
            "stage": one_of(
                "vector",
                "words",
                "fuse",
                "rerank",
                "prompt",
                rerank="those that were judged",
                prompt="those that the model was given",
            )
        },
        _CHUNK_BUCKETS,
    ),
    Metric(
        "rag_retrieval_confidence",
        MetricKind.HISTOGRAM,
        "How likely what a search has found holds the answer, from 0 to 1.",
        {},
        QUALITY_BUCKETS,
    ),
    Metric(
        "rag_web_fallbacks_total",
        MetricKind.COUNTER,
        "Questions that the web was searched for, by why.",
        {
            "reason": one_of(
                "nothing_found",
                "low_confidence",
                "requested",
                nothing_found="in the documents",
                low_confidence="in what the documents hold",
                requested="by the caller, whatever the documents hold",
            )
        },
    ),
    Metric(
        "rag_agent_invocations_total",
        MetricKind.COUNTER,
        "Work of the parts that an answer is made by.",
        {
            "agent": one_of(
                "expander",
                "retriever",
                "reranker",
                "generator",
                "web_searcher",
                "verifier",
                "ingestor",
            ),
            "outcome": one_of("success", "error"),
        },
    ),
    Metric(
        "rag_llm_calls_total",
        MetricKind.COUNTER,
        "Texts asked of models, and those that a cache had instead.",
        {**_ANY_MODE, **_MODEL, "cached": one_of("true", "false")},
    ),
    Metric(
        "rag_llm_tokens_total",
        MetricKind.COUNTER,
        "Tokens that models have read and generated, estimated where a text broke off; cached "
        "texts cost none.",
        {**_ANY_MODE, **_MODEL, "direction": one_of("input", "output")},
    ),
    Metric(
        "rag_llm_calls_per_query",
        MetricKind.HISTOGRAM,
        "Texts that models were asked for one question.",
        _MODE,
        _CALL_BUCKETS,
    ),
    Metric(
        "rag_cost_total",
        MetricKind.COUNTER,
        "What was spent, by the prices in the settings.",
        {
            **_CURRENCY,
            **_ANY_MODE,
            "type": one_of(
                "llm",
                "tool",
                "retrieval",
                llm="texts of models",
                retrieval="vectors, and searches that a model asked for",
            ),
        },
    ),
    Metric(
        "rag_model_cost_total",
        MetricKind.COUNTER,
        "What models have cost, for texts and for vectors.",
        {**_CURRENCY, **_MODEL},
    ),
    Metric(
        "rag_cost_saved_total",
        MetricKind.COUNTER,
        "What cached texts have cost when they were made, by today's prices.",
        {
            **_CURRENCY,
            **_ANY_MODE,
            "layer": one_of(
                "inference",
                "semantic",
                inference="found by their prompt",
                semantic="found by their question",
            ),
        },
    ),
    Metric(
        "rag_tenant_requests_total",
        MetricKind.COUNTER,
        "Questions of tenants by what became of them.",
        {**_TENANT, "outcome": _OUTCOME},
    ),
    Metric(
        "rag_tenant_cost_total",
        MetricKind.COUNTER,
        "What tenants have spent.",
        {**_CURRENCY, **_TENANT},
    ),
    Metric(
        "rag_active_tenants",
        MetricKind.GAUGE,
        "Tenants that have asked something in the last five minutes.",
        {},
    ),
    Metric(
        "rag_index_chunks",
        MetricKind.GAUGE,
        "Chunks in the database, of all tenants; every replica shows the same.",
        {},
    ),
    Metric(
        "rag_index_documents",
        MetricKind.GAUGE,
        "Documents in the database, of all tenants; every replica shows the same.",
        {},
    ),
    Metric(
        "rag_ingest_stage_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of one stage of taking in a document, with the wait for whoever does it.",
        {"stage": one_of("parse", "chunk", "embed", "store")},
        _INGEST_BUCKETS_SECONDS,
    ),
    Metric(
        "rag_feedback_total",
        MetricKind.COUNTER,
        "What users think of answers.",
        {"rating": one_of("negative", "neutral", "positive")},
    ),
    Metric(
        "rag_query_log_dropped_total",
        MetricKind.COUNTER,
        "Queries missing in the log, by cause; their usage is counted all the same.",
        {"cause": one_of("full", "rejected", "shutdown")},
    ),
    Metric(
        "rag_budgets",
        MetricKind.GAUGE,
        "Tenants with a budget by how much of it is spent: below 80 %, from there on, all.",
        {"state": one_of("within", "warned", "exceeded")},
    ),
    Metric(
        "rag_web_searches_total",
        MetricKind.COUNTER,
        "Searches of the web by what came of them.",
        {"outcome": _FOUND},
    ),
    Metric(
        "rag_web_pages_total",
        MetricKind.COUNTER,
        "Pages of the web by what came of reading them.",
        {
            "outcome": one_of(*(each.value for each in PageOutcome)),
        },
    ),
    Metric(
        "rag_tool_executions_total",
        MetricKind.COUNTER,
        "Calls of tools that models asked for, by what came of them.",
        {
            "tool": _TOOL,
            "outcome": one_of(*(each.value for each in ToolOutcome)),
        },
    ),
    Metric(
        "rag_tool_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of one call of a tool; those that were refused take none.",
        {"tool": one_of(*TOOL_NAMES)},
    ),
)
