"""Every metric of the rag service."""

from services.common.metrics import Metric, MetricKind

__all__ = ["CATALOGUE"]

_MODE = {"mode": "direct, rag, deep, agent"}
_ANY_MODE = {"mode": "those, retrieve, other"}

# The line between good and not is 0.8.
QUALITY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)

CATALOGUE = (
    Metric(
        "rag_requests_total",
        MetricKind.COUNTER,
        "Questions by what became of them.",
        {**_MODE, "outcome": "success, error, cancelled"},
    ),
    Metric(
        "rag_request_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time from a question's arrival until its whole answer.",
        {**_MODE, "cache": "hit, miss"},
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
        {"stage": "the stages in the code"},
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
        {"reason": "the reasons in the code"},
    ),
    Metric(
        "rag_llm_tokens_total",
        MetricKind.COUNTER,
        "Tokens read and generated for answers; cached answers cost none.",
        {**_MODE, "direction": "input, output"},
    ),
    Metric(
        "rag_ingest_documents_total",
        MetricKind.COUNTER,
        "Documents by what became of them.",
        {"outcome": "created, updated, unchanged, failed"},
    ),
    Metric(
        "rag_answer_reuse_total",
        MetricKind.COUNTER,
        "Questions by what came of looking for an answer given before.",
        {
            "outcome": "exact, similar, confirmed, unconfirmed, stale, miss, bypassed, unavailable",
        },
    ),
    Metric(
        "rag_background_work_total",
        MetricKind.COUNTER,
        "Work that no caller waits for, by what became of it.",
        {"kind": "refresh, verification, report, summary", "outcome": "success, error, dropped"},
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
        {"status": "supported, partial, unsupported, number_mismatch, no_claim"},
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
        {"outcome": "under_way, ended, not_found"},
    ),
    Metric(
        "rag_turns_total",
        MetricKind.COUNTER,
        "Turns of conversations by what became of them: with a whole answer, with the beginning of "
        "one, without any text and so not kept, or lost since they could not be kept.",
        {"outcome": "complete, interrupted, empty, lost"},
    ),
    Metric(
        "rag_searches_total",
        MetricKind.COUNTER,
        "Searches by how far what they found can be relied on.",
        {"band": "low, medium, high"},
    ),
    Metric(
        "rag_llm_calls_total",
        MetricKind.COUNTER,
        "Answers asked of models, and those that were cached instead.",
        {**_ANY_MODE, "cached": "true, false"},
    ),
    Metric(
        "rag_llm_cost_total",
        MetricKind.COUNTER,
        "What models have cost, in the currency of the prices.",
        {**_ANY_MODE, "model": "the first 32 models, other"},
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
        {"rating": "negative, neutral, positive"},
    ),
    Metric(
        "rag_query_log_dropped_total",
        MetricKind.COUNTER,
        "Queries missing in the log, by cause; their usage is counted all the same.",
        {"cause": "full, rejected, shutdown"},
    ),
    Metric(
        "rag_budgets",
        MetricKind.GAUGE,
        "Tenants with a budget by how much of it is spent: below 80 %, from there on, all.",
        {"state": "within, warned, exceeded"},
    ),
    Metric(
        "rag_web_searches_total",
        MetricKind.COUNTER,
        "Searches of the web by what came of them.",
        {"outcome": "success, empty, error"},
    ),
    Metric(
        "rag_web_pages_total",
        MetricKind.COUNTER,
        "Pages of the web by what came of reading them.",
        {
            "outcome": "read, cached, refused, unreachable, status, unsupported, too_large, "
            "timed_out, unreadable",
        },
    ),
    Metric(
        "rag_tool_executions_total",
        MetricKind.COUNTER,
        "Calls of tools that models asked for, by what came of them.",
        {
            "tool": "retrieve, web_search, calculator, current_time, unknown",
            "outcome": "success, repeated, invalid_arguments, unknown_tool, failed, timed_out, "
            "skipped",
        },
    ),
    Metric(
        "rag_tool_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of one call of a tool.",
        {"tool": "retrieve, web_search, calculator, current_time, unknown"},
    ),
)
