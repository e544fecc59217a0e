"""Puts together what keeps documents, for the composition root."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Tracer

from services.common.server import Runtime
from services.rag.accept_job import JobAcceptance
from services.rag.cache_port import CachePort
from services.rag.chunk_vectors import ChunkVectors, EmbeddingLimits
from services.rag.corpus_servicer import CorpusServicer
from services.rag.delete_documents import Deletions
from services.rag.embed import EmbeddingSource
from services.rag.fill_vectors import VectorFill
from services.rag.ingest import Ingestion, IngestLimits
from services.rag.ingest_trace import IngestTrace
from services.rag.invalidate import InvalidationDelivery
from services.rag.job_calls import JobCalls
from services.rag.jobs_port import IngestJobs
from services.rag.models import ModelCatalogue
from services.rag.parse_port import DocumentWorker
from services.rag.settings import RagSettings
from services.rag.statistics import RagStatistics
from services.rag.store_port import DocumentStore
from services.rag.sweep import Sweep
from services.rag.work_jobs import JobLimits, JobWork

__all__ = ["Corpus", "make_corpus"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What keeps documents.

    Attributes:
        servicer: Answers calls.
        loops: To be run beside it; they never return.
    """

    servicer: CorpusServicer
    loops: tuple[Callable[[], Coroutine[Any, Any, None]], ...]


def make_corpus(
    settings: RagSettings,
    runtime: Runtime,
    *,
    store: DocumentStore,
    jobs: IngestJobs,
    cache: CachePort,
    embeddings: EmbeddingSource,
    catalogue: ModelCatalogue,
    worker: DocumentWorker,
    delivery: InvalidationDelivery,
    statistics: RagStatistics,
    tracer: Tracer,
) -> Corpus:
    """Makes what keeps documents, from the ports it needs."""
    vectors = ChunkVectors(
        store=store,
        embeddings=embeddings,
        clock=runtime.clock,
        limits=EmbeddingLimits(
            batch_size=settings.embedding_batch_size,
            concurrency=settings.embedding_concurrency,
            time_limit_seconds=settings.ingest_embedding_time_limit_seconds,
        ),
    )
    fill = VectorFill(
        store=store,
        vectors=vectors,
        models=catalogue,
        jobs=jobs,
        clock=runtime.clock,
        metrics=runtime.metrics,
    )
    ingestion = Ingestion(
        store=store,
        vectors=vectors,
        cache=cache,
        models=catalogue,
        worker=worker,
        trace=IngestTrace(tracer=tracer, clock=runtime.clock, metrics=runtime.metrics),
        limits=IngestLimits(
            chunk_token_count=settings.chunk_token_count,
            maximum_chunk_token_count=settings.maximum_chunk_token_count,
            document_concurrency=settings.ingest_document_concurrency,
            content_bytes=settings.ingest_content_bytes,
        ),
        vectors_pending=fill.wake,
    )
    work = JobWork(
        jobs,
        ingestion,
        clock=runtime.clock,
        statistics=statistics,
        delivery=delivery,
        limits=JobLimits(
            document_concurrency=settings.ingest_job_document_concurrency,
            lease_seconds=settings.ingest_job_lease_seconds,
        ),
    )
    sweep = Sweep(
        store,
        jobs,
        delivery=delivery,
        clock=runtime.clock,
        retention_seconds=settings.ingest_job_retention_seconds,
    )
    servicer = CorpusServicer(
        ingestion=ingestion,
        acceptance=JobAcceptance(
            jobs,
            budget=ingestion.content_budget,
            backlog_bytes=settings.ingest_backlog_bytes,
            released=work.wake,
        ),
        jobs=JobCalls(jobs, clock=runtime.clock),
        deletions=Deletions(store, jobs, delivery=delivery),
        store=store,
        statistics=statistics,
        delivery=delivery,
        maximum_document_bytes=settings.maximum_document_bytes,
    )
    return Corpus(servicer, (work.run, fill.run, sweep.run))
