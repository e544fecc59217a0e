"""What is kept of a query once it is answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.rag.core.profile import DegradationReason, Stage
from services.rag.core.usage import Amounts

__all__ = ["CacheEntry", "LoggedQuery", "QueryFilter", "QueryPage", "QueryRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """An answer in the cache.

    Attributes:
        question_digest: The question that it is the answer to.
        entry_id: The entry of the semantic layer; empty where there is none, as is what follows.
        similarity: How like its question was to the one asked; 1 for the same words.
        embedding_model_digest: See the cache's partitions, as what follows.
        model_digest: Model that answers.
        access_fingerprint: What the caller may see.
        configuration_fingerprint: How the answer is made.
        namespace: Compartment of the cache.
    """

    question_digest: str = ""
    entry_id: str = ""
    similarity: float = 0.0
    embedding_model_digest: str = ""
    model_digest: str = ""
    access_fingerprint: str = ""
    configuration_fingerprint: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRecord:
    """What became of a query, without what was asked and answered unless that is to be kept.

    Attributes:
        query_id: Name of the query.
        tenant_id: Who asked.
        user_id: Who of the tenant; empty where that is not known.
        started_seconds: When it arrived, seconds since the epoch.
        call: `query`, `stream` or `retrieve`.
        mode: How it was to be answered.
        collection: What was searched; empty for nothing.
        model: Model that answered; empty where none did.
        outcome: `success`, `error` or `cancelled`.
        error_reason: Why it failed; empty where it did not.
        origin: How the answer came about; empty without one.
        degradations: What could not be done as it should have been.
        quality: Of the answer, 0 to 1; None where it has none.
        amounts: What it used.
        duration_seconds: From its arrival until its end.
        first_text_seconds: Until the first text; None without text.
        trace_id: Trace of the call.
        variants: Variants of experiments, by experiment.
        cache_entry: What the cache has of it; None where that is nothing.
        question: What was asked; empty unless texts are kept.
        answer: What was answered; empty unless texts are kept.
    """

    query_id: str
    tenant_id: str
    user_id: str
    started_seconds: float
    call: str
    mode: str
    collection: str = ""
    model: str = ""
    outcome: str = "success"
    error_reason: str = ""
    origin: str = ""
    degradations: tuple[DegradationReason, ...] = ()
    quality: float | None = None
    amounts: Amounts = field(default_factory=Amounts)
    duration_seconds: float = 0.0
    first_text_seconds: float | None = None
    trace_id: str = ""
    variants: Mapping[str, str] = field(default_factory=dict)
    cache_entry: CacheEntry | None = None
    question: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class LoggedQuery:
    """A record with where its time went.

    Attributes:
        record: What became of the query.
        stages: The stages it consists of.
        told_profile: The profile as its caller was told of it; empty where it was not.
    """

    record: QueryRecord
    stages: tuple[Stage, ...]
    told_profile: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFilter:
    """Which queries are listed.

    Attributes:
        slower_than_seconds: Those that took longer; None for all.
        degraded_only: Those with a degradation.
        failed_only: Those that failed.
        mode: Those of a mode; empty for all.
        since_seconds: Those that arrived then or later, seconds since the epoch; None for all.
    """

    slower_than_seconds: float | None = None
    degraded_only: bool = False
    failed_only: bool = False
    mode: str = ""
    since_seconds: float | None = None

    def matches(self, record: QueryRecord) -> bool:
        """Says whether a query is listed."""
        return (
            (self.slower_than_seconds is None or record.duration_seconds > self.slower_than_seconds)
            and (not self.degraded_only or bool(record.degradations))
            and (not self.failed_only or record.outcome == "error")
            and self.mode in ("", record.mode)
            and (self.since_seconds is None or record.started_seconds >= self.since_seconds)
        )


@dataclass(frozen=True, slots=True)
class QueryPage:
    """Some queries with their bottlenecks, the latest first.

    Attributes:
        records: The queries, each with its bottleneck.
        more: Whether there are more.
    """

    records: tuple[tuple[QueryRecord, str], ...]
    more: bool
