"""Every metric of the rag service."""

from services.common.metrics import Metric, MetricKind, one_of, up_to

__all__ = ["CATALOGUE"]

_MODES = ("direct", "rag", "deep", "agent")
_MODE = {"mode": one_of(*_MODES)}
_ANY_MODE = {"mode": one_of(*_MODES, "retrieve", "other")}

# The line between good and not is 0.8.
QUALITY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)

CATALOGUE = (
    Metric(
        "rag_requests_total",
        MetricKind.COUNTER,
        "Questions by what became of them.",
        {**_MODE, "outcome": one_of("success", "error", "cancelled")},
    ),
    Metric(
        "rag_request_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time from a question's arrival until its whole answer.",
        {**_MODE, "cache": one_of("hit", "miss")},
    ),
    Metric(
        "rag_time_to_first_token_seconds",
        MetricKind.HISTOGRAM,
        "Time from a question's arrival until the first text of its answer.",
        _MODE,
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
        {"reason": up_to(40, "reasons")},
    ),
    Metric(
        "rag_llm_tokens_total",
        MetricKind.COUNTER,
        "Tokens read and generated for answers; cached answers cost none.",
        {**_MODE, "direction": one_of("input", "output")},
    ),
    Metric(
        "rag_ingest_documents_total",
        MetricKind.COUNTER,
        "Documents by what became of them.",
        {"outcome": one_of("created", "updated", "unchanged", "failed")},
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
                "stale",
                "miss",
                "bypassed",
                "unavailable",
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
        {"status": one_of("supported", "partial", "unsupported", "number_mismatch", "no_claim")},
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
        {"band": one_of("low", "medium", "high")},
    ),
    Metric(
        "rag_llm_calls_total",
        MetricKind.COUNTER,
        "Answers asked of models, and those that were cached instead.",
        {**_ANY_MODE, "cached": one_of("true", "false")},
    ),
    Metric(
        "rag_llm_cost_total",
        MetricKind.COUNTER,
        "What models have cost, in the currency of the prices.",
        {**_ANY_MODE, "model": up_to(32, "models that have answered")},
    ),
    Metric(
        "rag_llm_cost_saved_total",
        MetricKind.COUNTER,
        "What cached answers would have cost, in the currency of the prices.",
        _ANY_MODE,
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
        {"outcome": one_of("success", "empty", "error")},
    ),
    Metric(
        "rag_web_pages_total",
        MetricKind.COUNTER,
        "Pages of the web by what came of reading them.",
        {
            "outcome": one_of(
                "read",
                "cached",
                "refused",
                "unreachable",
                "status",
                "unsupported",
                "too_large",
                "timed_out",
                "unreadable",
            ),
        },
    ),
    Metric(
        "rag_tool_executions_total",
        MetricKind.COUNTER,
        "Calls of tools that models asked for, by what came of them.",
        {
            "tool": one_of("retrieve", "web_search", "calculator", "current_time", "unknown"),
            "outcome": one_of(
                "success",
                "repeated",
                "invalid_arguments",
                "unknown_tool",
                "failed",
                "timed_out",
                "skipped",
            ),
        },
    ),
    Metric(
        "rag_tool_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of one call of a tool.",
        {"tool": one_of("retrieve", "web_search", "calculator", "current_time", "unknown")},
    ),
)
