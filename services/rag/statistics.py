"""What the rag service counts: in memory for its statistics, and as metrics."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ddsketch import DDSketch

from services.common.afterwards import done_after_answer
from services.common.metrics import Metrics
from services.rag.core.answer import Answer, AnswerOrigin
from services.rag.core.conversation import TokenUsage
from services.rag.core.intake import DocumentDone, IngestOutcome
from services.rag.core.options import Mode, Question
from services.rag.core.profile import DegradationReason, Stage
from services.rag.core.query_type import query_type
from services.rag.core.tools import TOOL_NAMES, UNKNOWN_TOOL, ToolExecution
from services.rag.recorder import CANCELLED, Recorder

__all__ = [
    "ModeCounts",
    "RagStatistics",
    "StageCounts",
    "ToolCounts",
    "cache_label",
    "quantile_seconds",
]

# Percentiles are at most this far from the true ones.
_RELATIVE_ACCURACY = 0.01

_LOOKUPS = frozenset({"query_lookup", "semantic_lookup", "inference_lookup"})
_BYPASSED = "bypassed"
# What runs once for each wording of a question.
_RETRIEVERS = {"vector_search": "vector", "keyword_search": "words"}
# Whose items are chunks that are left over.
_CHUNKS = {
    "vector_search": "vector",
    "keyword_search": "words",
    "fuse": "fuse",
    "rerank": "rerank",
}
_AGENTS = {
    "expand": "expander",
    "rerank": "reranker",
    "generate": "generator",
    "verify": "verifier",
}


def _sketch() -> DDSketch:
    return DDSketch(_RELATIVE_ACCURACY)


def quantile_seconds(sketch: DDSketch, quantile: float) -> float | None:
    """Reads a percentile; None before the first value."""
    value: float | None = sketch.get_quantile_value(quantile)
    return value


@dataclass(slots=True)
class ModeCounts:
    """What is counted for a mode."""

    query_count: int = 0
    failure_count: int = 0
    degraded_count: int = 0
    cached_count: int = 0
    similar_count: int = 0
    cancelled_count: int = 0
    quality_count: int = 0
    quality_sum: float = 0.0
    prompt_token_count: int = 0
    completion_token_count: int = 0
    answer_seconds: DDSketch = field(default_factory=_sketch)

    @property
    def mean_quality(self) -> float | None:
        """Mean quality of the answers that have one; None before the first."""
        return self.quality_sum / self.quality_count if self.quality_count else None


@dataclass(slots=True)
class StageCounts:
    """What is counted for a stage."""

    run_count: int = 0
    failure_count: int = 0
    duration_seconds: DDSketch = field(default_factory=_sketch)


@dataclass(slots=True)
class ToolCounts:
    """What is counted for a tool."""

    execution_count: int = 0
    success_count: int = 0
    duration_seconds: DDSketch = field(default_factory=_sketch)


class RagStatistics:
    """Counts answers, stages and documents.

    Args:
        metrics: Receives the same as metrics.
        start_time_seconds: When counting began, seconds since the epoch.
    """

    def __init__(self, metrics: Metrics, *, start_time_seconds: float) -> None:
        self._metrics = metrics
        self.start_time_seconds = start_time_seconds
        self.in_flight_count = 0
        self.modes: defaultdict[Mode, ModeCounts] = defaultdict(ModeCounts)
        self.stages: defaultdict[str, StageCounts] = defaultdict(StageCounts)
        self.degradations: Counter[DegradationReason] = Counter()
        self.tools: defaultdict[str, ToolCounts] = defaultdict(ToolCounts)
        self.documents: Counter[IngestOutcome] = Counter()
        self.chunk_count = 0
        for mode in Mode:
            metrics.set_gauge("rag_active_queries", 0, mode.value)

    def begin(self, question: Question) -> None:
        """Counts a question that has arrived."""
        mode = question.mode
        self.in_flight_count += 1
        self.modes[mode].query_count += 1
        self._metrics.add_gauge("rag_active_queries", 1, mode.value)
        self._count_type(question)

    @done_after_answer
    def _count_type(self, question: Question) -> None:
        asked = query_type(question.text, has_history=bool(question.history))
        self._metrics.count("rag_query_types_total", asked.value)

    def end(self, mode: Mode, recorder: Recorder, answer: Answer | None, outcome: str) -> None:
        """Counts what became of a question.

        Args:
            mode: How it was to be answered.
            recorder: Its stages and degradations.
            answer: Its answer; None without one.
            outcome: `success`, `error`, `refused` or `cancelled`.
        """
        counts = self.modes[mode]
        self.in_flight_count -= 1
        self._metrics.add_gauge("rag_active_queries", -1, mode.value)
        self._metrics.count("rag_requests_total", mode.value, outcome)
        counts.failure_count += outcome in ("error", "refused")
        counts.cancelled_count += outcome == "cancelled"
        self.add_stages(recorder)
        if answer is None:
            return
        seconds = recorder.elapsed_seconds()
        counts.answer_seconds.add(seconds)
        counts.cached_count += answer.origin.is_given_again
        counts.similar_count += answer.origin is AnswerOrigin.CACHED_SIMILAR
        self._metrics.observe(
            "rag_request_duration_seconds",
            seconds,
            mode.value,
            cache_label(answer.origin, recorder.stages),
        )
        if recorder.first_text_seconds is not None:
            self._metrics.observe(
                "rag_time_to_first_token_seconds", recorder.first_text_seconds, mode.value
            )
        self._add_quality(mode, counts, answer)
        if recorder.degradations:
            counts.degraded_count += 1
            self._metrics.count("rag_degraded_responses_total", mode.value)
        if answer.origin is AnswerOrigin.GENERATED:
            self._add_usage(counts, answer.usage)

    def _add_usage(self, counts: ModeCounts, usage: TokenUsage) -> None:
        counts.prompt_token_count += usage.prompt_token_count
        counts.completion_token_count += usage.completion_token_count

    def _add_quality(self, mode: Mode, counts: ModeCounts, answer: Answer) -> None:
        if answer.quality is not None:
            counts.quality_count += 1
            counts.quality_sum += answer.quality.score
            self._metrics.observe("rag_quality_score", answer.quality.score, mode.value)
        for sentence in answer.sentences:
            self._metrics.count("rag_verified_sentences_total", sentence.status.value)

    def add_stages(self, recorder: Recorder) -> None:
        """Counts the stages, degradations and warnings of a call, once when it has ended."""
        for stage in recorder.stages:
            self._add_work(stage)
            counts = self.stages[stage.name]
            counts.run_count += 1
            counts.failure_count += stage.failed and stage.error_reason != CANCELLED
            counts.duration_seconds.add(stage.duration_seconds)
            self._metrics.observe("rag_stage_duration_seconds", stage.duration_seconds, stage.name)
        for degradation in recorder.degradations:
            self.degradations[degradation.reason] += 1
            self._metrics.count("rag_degradations_total", degradation.reason.value)
        for kind in recorder.warning_kinds:
            self._metrics.count("rag_warnings_total", kind.value)
        for count in recorder.prompt_passage_counts:
            self._metrics.observe("rag_retrieved_chunks", count, "prompt")

    def _add_work(self, stage: Stage) -> None:
        """Counts what a part of the service has done."""
        if stage.error_reason == CANCELLED:
            # Nobody knows what would have come of it.
            return
        agent = _AGENTS.get(stage.name)
        if agent is not None:
            outcome = "error" if stage.failed else "success"
            self._metrics.count("rag_agent_invocations_total", agent, outcome)
        retriever = _RETRIEVERS.get(stage.name)
        if retriever is not None:
            found = "success" if stage.item_count else "empty"
            outcome = "error" if stage.failed else found
            self._metrics.count("rag_retriever_calls_total", retriever, outcome)
        chunks = _CHUNKS.get(stage.name)
        if chunks is not None and stage.item_count is not None and not stage.failed:
            self._metrics.observe("rag_retrieved_chunks", stage.item_count, chunks)

    def add_tool(self, execution: ToolExecution) -> None:
        """Counts a call of a tool; a name that is no tool's may be anything."""
        name = execution.name if execution.name in TOOL_NAMES else UNKNOWN_TOOL
        counts = self.tools[name]
        counts.execution_count += 1
        counts.success_count += execution.outcome.is_success
        self._metrics.count("rag_tool_executions_total", name, execution.outcome.value)
        if execution.outcome.was_carried_out:
            counts.duration_seconds.add(execution.duration_seconds)
            self._metrics.observe("rag_tool_duration_seconds", execution.duration_seconds, name)

    def add_document(self, done: DocumentDone) -> None:
        """Counts a document."""
        self.documents[done.outcome] += 1
        self._metrics.count("rag_ingest_documents_total", done.outcome.value)
        outcome = "error" if done.outcome is IngestOutcome.FAILED else "success"
        self._metrics.count("rag_agent_invocations_total", "ingestor", outcome)
        if done.outcome in (IngestOutcome.CREATED, IngestOutcome.UPDATED):
            self.chunk_count += done.chunk_count
            self._metrics.count("rag_ingest_chunks_total", amount=done.chunk_count)


def cache_label(origin: AnswerOrigin, stages: Sequence[Stage]) -> str:
    """Returns what the caches had to do with an answer, as metrics and spans call it.

    Args:
        origin: How the answer came about.
        stages: The stages it consists of.
    """
    if origin is AnswerOrigin.CACHED:
        return "hit"
    if origin is AnswerOrigin.CACHED_SIMILAR:
        return "semantic_hit"
    looked = any(
        each.name in _LOOKUPS and each.cache_outcome not in ("", _BYPASSED) for each in stages
    )
    return "miss" if looked else "bypass"
