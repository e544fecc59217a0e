"""The composition root of the rag service: makes every part and orders start and stop."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from opentelemetry.trace import Tracer

import pannier
from pannier.rag.v1 import corpus_service_pb2, evaluation_service_pb2, rag_service_pb2
from pannier.rag.v1.corpus_service_pb2_grpc import add_CorpusServiceServicer_to_server
from pannier.rag.v1.evaluation_service_pb2_grpc import add_EvaluationServiceServicer_to_server
from pannier.rag.v1.rag_service_pb2_grpc import add_RagServiceServicer_to_server
from services.common.channels import open_channel
from services.common.deadline import remaining_seconds
from services.common.server import RunningServer, Runtime, serve
from services.common.tasks import in_background
from services.rag.accounting import make_accounting
from services.rag.adapters.balancer_grpc import GrpcModels
from services.rag.adapters.cache_grpc import GrpcCache
from services.rag.adapters.cache_semantic import GrpcSemanticCache
from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.document_worker import ProcessDocumentWorker
from services.rag.adapters.postgres_conversations import PostgresConversationStore
from services.rag.adapters.postgres_feedback import PostgresFeedbackStore
from services.rag.adapters.postgres_jobs import PostgresJobs
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_usage import PostgresUsageStore
from services.rag.adapters.postgres_vector_indexes import VectorIndexes
from services.rag.adapters.rerank_model import ModelReranker
from services.rag.adapters.rerank_onnx import OnnxReranker
from services.rag.adapters.web_pages import HttpPages
from services.rag.adapters.web_providers import JsonFields, JsonSearch, SearxngSearch
from services.rag.answering import make_answerer
from services.rag.background import BackgroundWork
from services.rag.brief import BriefAnswers
from services.rag.chat import Chats
from services.rag.chat_calls import ChatCalls
from services.rag.core.prompt_size import PromptSizes
from services.rag.corpus import make_corpus
from services.rag.counted_answers import CountedAnswers
from services.rag.embed import EmbeddingSource
from services.rag.evaluate import Evaluation
from services.rag.evaluation_servicer import EvaluationServicer
from services.rag.expand import Expander
from services.rag.invalidate import InvalidationDelivery
from services.rag.ledger import MeteredModels
from services.rag.make_agent import make_web, web_rules_of
from services.rag.metered_tools import MeteredToolModels
from services.rag.models import ModelCatalogue
from services.rag.query_stream import QueryStreams, StreamLimits
from services.rag.rank import Ranker
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever
from services.rag.reuse import AnswerReuse
from services.rag.search import Searcher, TimeLimits
from services.rag.servicer import RagServicer
from services.rag.settings import RagSettings
from services.rag.statistics import RagStatistics
from services.rag.verify import Verifier
from services.rag.watch_index import IndexWatch
from services.rag.watch_store import StoreWatch

__all__ = ["start"]

_RAG_SERVICE = rag_service_pb2.DESCRIPTOR.services_by_name["RagService"].full_name
# Nobody guesses 128 bits.
_QUERY_ID_BYTES = 16
# Share of the time to finish after which answers that are not complete are ended, so that their
# callers can be told.
_DRAINING_RATIO = 0.9
_CORPUS_SERVICE = corpus_service_pb2.DESCRIPTOR.services_by_name["CorpusService"].full_name
_EVALUATION_SERVICE = evaluation_service_pb2.DESCRIPTOR.services_by_name[
    "EvaluationService"
].full_name


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
        StoreRoleUnusable: The role that keeps tenants apart cannot be used.
    """
    tracer = runtime.tracer_provider.get_tracer("pannier.rag", pannier.__version__)
    pool = PostgresPool(
        settings.database_url,
        size=settings.database_pool_size,
        statement_seconds=settings.database_time_limit_seconds,
        role=settings.database_role,
        tracer=tracer,
        metrics=runtime.metrics,
    )
    store = PostgresDocumentStore(
        pool,
        exact_scan_chunk_count=settings.exact_scan_chunk_count,
        keyword_posting_limit=settings.keyword_posting_limit,
    )
    vector_indexes = VectorIndexes(
        pool, clock=runtime.clock, least_chunk_count=settings.exact_scan_chunk_count
    )
    # Answers of the balancer hold up to 512 vectors.
    maximum_message_bytes = 4 * settings.maximum_request_bytes
    cache_channel, balancer_channel = (
        open_channel(
            address,
            tracer=tracer,
            maximum_message_bytes=maximum_message_bytes,
            metrics=runtime.metrics,
            clock=runtime.clock,
        )
        for address in (settings.cache_address, settings.balancer_address)
    )
    cache = GrpcCache(cache_channel, time_limit_seconds=settings.cache_time_limit_seconds)
    semantic_cache = GrpcSemanticCache(
        cache_channel, time_limit_seconds=settings.cache_time_limit_seconds
    )
    accounting = make_accounting(
        settings,
        runtime,
        store=PostgresUsageStore(pool),
        feedback=PostgresFeedbackStore(pool),
        answers=cache,
        cache=semantic_cache,
    )
    fleet = GrpcModels(balancer_channel)
    models = MeteredModels(fleet, likelihoods=fleet, ledger=accounting.ledger)
    catalogue = ModelCatalogue(
        models,
        clock=runtime.clock,
        chat_model=settings.chat_model,
        embedding_model=settings.embedding_model,
    )
    embeddings = EmbeddingSource(cache=cache, models=models)
    limits = TimeLimits(
        embedding=settings.embedding_time_limit_seconds,
        arm=settings.search_time_limit_seconds,
        reranking=settings.rerank_time_limit_seconds,
        remaining=remaining_seconds,
    )
    sizes = PromptSizes()
    understanding = BriefAnswers(
        cache=cache,
        models=models,
        catalogue=catalogue,
        model=settings.understanding_model,
        context_token_count=settings.context_token_count,
        sizes=sizes,
        remaining_seconds=remaining_seconds,
        note_cached=accounting.ledger.add_cached_text,
    )
    reranker = _make_reranker(settings, models, catalogue)
    retriever = Retriever(
        store=store,
        searcher=Searcher(store=store, embeddings=embeddings, models=catalogue, limits=limits),
        ranker=Ranker(
            store=store,
            reranker=reranker,
            rerank_count=settings.rerank_passage_count,
            limits=limits,
        ),
        expander=Expander(understanding, time_limit_seconds=settings.expansion_time_limit_seconds),
        limits=limits,
        metrics=runtime.metrics,
    )
    worker = ProcessDocumentWorker(
        process_count=settings.document_process_count,
        time_limit_seconds=settings.document_time_limit_seconds,
        memory_limit_bytes=settings.document_memory_limit_bytes,
    )
    pages = HttpPages(web_rules_of(settings), limit_bytes=settings.web_page_bytes, tracer=tracer)
    engine = _make_engine(settings, tracer)
    web = (
        make_web(
            settings,
            runtime,
            provider=engine,
            fetcher=pages,
            worker=worker,
            embeddings=embeddings,
            catalogue=catalogue,
        )
        if engine is not None
        else None
    )
    statistics = RagStatistics(runtime.metrics, start_time_seconds=runtime.clock.now())
    background = BackgroundWork(runtime.metrics, tracer=tracer)
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
    answerer = make_answerer(
        settings,
        runtime,
        cache=cache,
        models=models,
        tool_models=MeteredToolModels(fleet, ledger=accounting.ledger),
        catalogue=catalogue,
        sizes=sizes,
        embeddings=embeddings,
        retriever=retriever,
        reuse=reuse,
        understanding=understanding,
        web=web,
        background=background,
        statistics=statistics,
    )
    delivery = InvalidationDelivery(
        store, cache, clock=runtime.clock, metrics=runtime.metrics, tracer=tracer
    )

    def make_recorder() -> Recorder:
        return Recorder(
            clock=runtime.clock, tracer=tracer, query_id=secrets.token_urlsafe(_QUERY_ID_BYTES)
        )

    answers = CountedAnswers(answerer, statistics, accounting.bookkeeping)
    streams = QueryStreams(
        answers=answers,
        make_recorder=make_recorder,
        metrics=runtime.metrics,
        limits=StreamLimits(
            heartbeat_seconds=settings.stream_heartbeat_seconds,
            grace_seconds=settings.resumable_grace_seconds,
            retention_seconds=settings.resumable_retention_seconds,
            kept_count=settings.resumable_answer_count,
            kept_bytes=settings.resumable_answer_bytes,
        ),
        remaining_seconds=remaining_seconds,
    )
    conversations = PostgresConversationStore(pool)
    chats = Chats(
        store=conversations,
        streams=streams,
        answers=understanding,
        background=background,
        make_recorder=make_recorder,
        metrics=runtime.metrics,
        context_token_count=settings.context_token_count,
        remaining_seconds=remaining_seconds,
    )
    rag_servicer = RagServicer(
        retriever=retriever,
        answers=answers,
        streams=streams,
        chat=ChatCalls(chats=chats, conversations=conversations, documents=store),
        statistics=statistics,
        make_recorder=make_recorder,
        bookkeeping=accounting.bookkeeping,
    )
    corpus = make_corpus(
        settings,
        runtime,
        store=store,
        jobs=PostgresJobs(pool),
        cache=cache,
        embeddings=embeddings,
        catalogue=catalogue,
        worker=worker,
        delivery=delivery,
        statistics=statistics,
        tracer=tracer,
    )
    evaluation_servicer = EvaluationServicer(
        Evaluation(
            retriever=retriever,
            make_recorder=lambda: Recorder(clock=runtime.clock, tracer=tracer),
            clock=runtime.clock,
        )
    )
    registrations = [
        (_RAG_SERVICE, lambda server: add_RagServiceServicer_to_server(rag_servicer, server)),
        (
            _CORPUS_SERVICE,
            lambda server: add_CorpusServiceServicer_to_server(corpus.servicer, server),
        ),
        (
            _EVALUATION_SERVICE,
            lambda server: add_EvaluationServiceServicer_to_server(evaluation_servicer, server),
        ),
        *accounting.registrations,
    ]
    store_watch = StoreWatch(store, clock=runtime.clock)
    index_watch = IndexWatch(
        store,
        clock=runtime.clock,
        metrics=runtime.metrics,
        interval_seconds=settings.index_count_interval_seconds,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cache_channel.close)
        stack.push_async_callback(balancer_channel.close)
        stack.push_async_callback(pool.close)
        await pool.open()
        # After all that counts has ended, and before the store goes.
        stack.push_async_callback(accounting.books.close)
        await accounting.books.refresh_budgets()
        stack.push_async_callback(background.close)
        stack.push_async_callback(worker.close)
        stack.push_async_callback(pages.close)
        if engine is not None:
            stack.push_async_callback(engine.close)
        if isinstance(reranker, OnnxReranker):
            stack.push_async_callback(reranker.close)
            await reranker.open()
        await stack.enter_async_context(
            in_background(
                catalogue.watch(),
                store_watch.watch(),
                index_watch.watch(),
                delivery.run(),
                vector_indexes.run(),
                accounting.books.run(),
                *(each() for each in corpus.loops),
            )
        )
        stack.push_async_callback(streams.close)
        running = await stack.enter_async_context(
            serve(
                "rag",
                settings,
                runtime,
                registrations=registrations,
                ready=lambda: store_watch.reachable,
            )
        )
        # Before the server gives up waiting for them.
        stack.callback(
            streams.drain,
            settings.drain_delay_seconds + _DRAINING_RATIO * settings.drain_grace_seconds,
        )
        yield running


def _make_engine(settings: RagSettings, tracer: Tracer) -> SearxngSearch | JsonSearch | None:
    """Makes what finds pages of the web; None where nothing is configured for it."""
    if settings.web_searxng_url:
        return SearxngSearch(settings.web_searxng_url, tracer=tracer)
    if settings.web_search_url:
        fields = JsonFields(
            results=settings.web_search_results_pointer,
            url=settings.web_search_url_pointer,
            title=settings.web_search_title_pointer,
            snippet=settings.web_search_snippet_pointer,
        )
        return JsonSearch(
            settings.web_search_url, fields, header=settings.web_search_header, tracer=tracer
        )
    return None


def _make_reranker(
    settings: RagSettings, models: MeteredModels, catalogue: ModelCatalogue
) -> OnnxReranker | ModelReranker | None:
    """Makes what judges passages; None where nothing is configured for it."""
    if settings.rerank_model:
        return OnnxReranker(
            settings.rerank_model,
            provider=settings.rerank_provider,
            cache_directory=settings.rerank_cache_directory,
        )
    if settings.rerank_chat_model:
        return ModelReranker(models, catalogue=catalogue, model=settings.rerank_chat_model)
    return None
