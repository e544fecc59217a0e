"""The composition root of the rag service: makes every part and orders start and stop."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pannier
from pannier.rag.v1 import corpus_service_pb2, rag_service_pb2
from pannier.rag.v1.corpus_service_pb2_grpc import add_CorpusServiceServicer_to_server
from pannier.rag.v1.rag_service_pb2_grpc import add_RagServiceServicer_to_server
from services.common.channels import open_channel
from services.common.interceptors import remaining_seconds
from services.common.server import RunningServer, Runtime, serve
from services.common.tasks import in_background
from services.rag.adapters.balancer_grpc import GrpcModels
from services.rag.adapters.cache_grpc import GrpcCache
from services.rag.adapters.cache_semantic import GrpcSemanticCache
from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.answer import Answerer
from services.rag.background import BackgroundWork
from services.rag.corpus_servicer import CorpusServicer
from services.rag.embed import EmbeddingSource
from services.rag.infer import ModelAnswers
from services.rag.ingest import Ingestion, IngestLimits
from services.rag.invalidate import InvalidationDelivery
from services.rag.models import ModelCatalogue
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever
from services.rag.reuse import AnswerReuse
from services.rag.servicer import RagServicer
from services.rag.settings import RagSettings
from services.rag.statistics import RagStatistics
from services.rag.task import AnswerDefaults
from services.rag.verify import Verifier
from services.rag.watch_store import StoreWatch

__all__ = ["start"]

_RAG_SERVICE = rag_service_pb2.DESCRIPTOR.services_by_name["RagService"].full_name
_CORPUS_SERVICE = corpus_service_pb2.DESCRIPTOR.services_by_name["CorpusService"].full_name


@asynccontextmanager
async def start(settings: RagSettings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    """Runs the rag service while the context is open.

    Args:
        settings: Its settings.
        runtime: Clock, metrics and tracers.

    Raises:
        OSError: A port is taken.
        StoreUnavailable: PostgreSQL cannot be reached.
        StoreSchemaTooNew: A newer release has migrated the database.
    """
    tracer = runtime.tracer_provider.get_tracer("pannier.rag", pannier.__version__)
    store = PostgresDocumentStore(
        settings.database_url,
        pool_size=settings.database_pool_size,
        statement_seconds=settings.database_time_limit_seconds,
    )
    # Answers of the balancer hold up to 512 vectors.
    maximum_message_bytes = 4 * settings.maximum_request_bytes
    cache_channel = open_channel(
        settings.cache_address, tracer=tracer, maximum_message_bytes=maximum_message_bytes
    )
    balancer_channel = open_channel(
        settings.balancer_address, tracer=tracer, maximum_message_bytes=maximum_message_bytes
    )
    cache = GrpcCache(cache_channel, time_limit_seconds=settings.cache_time_limit_seconds)
    semantic_cache = GrpcSemanticCache(
        cache_channel, time_limit_seconds=settings.cache_time_limit_seconds
    )
    models = GrpcModels(balancer_channel)
    catalogue = ModelCatalogue(
        models,
        clock=runtime.clock,
        chat_model=settings.chat_model,
        embedding_model=settings.embedding_model,
    )
    embeddings = EmbeddingSource(cache=cache, models=models)
    retriever = Retriever(
        store=store,
        embeddings=embeddings,
        models=catalogue,
        embedding_time_limit_seconds=settings.embedding_time_limit_seconds,
        remaining_seconds=remaining_seconds,
    )
    background = BackgroundWork(runtime.metrics)
    reuse = AnswerReuse(
        cache=semantic_cache,
        store=store,
        catalogue=catalogue,
        verifier=Verifier(
            cache=semantic_cache,
            retriever=retriever,
            embeddings=embeddings,
            models=models,
            catalogue=catalogue,
            make_recorder=lambda: Recorder(clock=runtime.clock, tracer=tracer),
        ),
        background=background,
        metrics=runtime.metrics,
    )
    answerer = Answerer(
        retriever=retriever,
        reuse=reuse,
        model_answers=ModelAnswers(
            cache=cache,
            models=models,
            catalogue=catalogue,
            background=background,
            wait_limit_seconds=settings.cache_wait_limit_seconds,
            remaining_seconds=remaining_seconds,
        ),
        defaults=AnswerDefaults(
            temperature=settings.temperature,
            answer_token_count=settings.answer_token_count,
            context_token_count=settings.context_token_count,
        ),
    )
    ingestion = Ingestion(
        store=store,
        embeddings=embeddings,
        cache=cache,
        models=catalogue,
        tracer=tracer,
        limits=IngestLimits(
            chunk_token_count=settings.chunk_token_count,
            maximum_chunk_token_count=settings.maximum_chunk_token_count,
            document_concurrency=settings.ingest_document_concurrency,
            content_bytes=settings.ingest_content_bytes,
            embedding_batch_size=settings.embedding_batch_size,
            embedding_concurrency=settings.embedding_concurrency,
        ),
    )
    delivery = InvalidationDelivery(store, cache, clock=runtime.clock, metrics=runtime.metrics)
    statistics = RagStatistics(runtime.metrics, start_time_seconds=runtime.clock.now())
    rag_servicer = RagServicer(
        retriever=retriever,
        answerer=answerer,
        statistics=statistics,
        clock=runtime.clock,
        tracer=tracer,
    )
    corpus_servicer = CorpusServicer(
        ingestion=ingestion,
        store=store,
        statistics=statistics,
        delivery=delivery,
        maximum_document_bytes=settings.maximum_document_bytes,
    )
    registrations = [
        (_RAG_SERVICE, lambda server: add_RagServiceServicer_to_server(rag_servicer, server)),
        (
            _CORPUS_SERVICE,
            lambda server: add_CorpusServiceServicer_to_server(corpus_servicer, server),
        ),
    ]
    store_watch = StoreWatch(store, clock=runtime.clock)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cache_channel.close)
        stack.push_async_callback(balancer_channel.close)
        stack.push_async_callback(store.close)
        await store.open()
        stack.push_async_callback(background.close)
        await stack.enter_async_context(
            in_background(catalogue.watch(), store_watch.watch(), delivery.run())
        )
        yield await stack.enter_async_context(
            serve(
                "rag",
                settings,
                runtime,
                registrations=registrations,
                ready=lambda: store_watch.reachable,
            )
        )
