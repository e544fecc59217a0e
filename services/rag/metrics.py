"""Every metric of the rag service."""

from services.common.metrics import Metric, MetricKind

__all__ = ["CATALOGUE"]

_MODE = {"mode": "direct, rag"}

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
        {"kind": "refresh, verification, report", "outcome": "success, error, dropped"},
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
)
