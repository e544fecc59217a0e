import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import grpc
import pytest

from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1.corpus_service_pb2_grpc import CorpusServiceStub
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceStub
from services.rag.app import start
from services.rag.metrics import CATALOGUE
from services.rag.settings import RagSettings
from tests.kit.peers import FakeBalancer, FakeCache, serving
from tests.kit.postgres import database_dsn, empty_database_dsn, postgres_server  # noqa: F401
from tests.kit.questions import ANSWER, DOCUMENTS
from tests.kit.rpc import Spans, channel_to, make_runtime


@dataclass
class Rag:
    """The running service with its peers."""

    rag: RagServiceStub
    corpus: CorpusServiceStub
    channel: grpc.aio.Channel
    balancer: FakeBalancer
    cache: FakeCache
    spans: Spans
    http_port: int
    database_dsn: str
    running: AsyncExitStack
    balancer_address: str
    cache_address: str

    async def stop(self):
        """Stops the service, not its peers."""
        await self.running.aclose()

    async def told(self):
        """Waits until the cache has been told of all changes."""
        connection = await asyncpg.connect(self.database_dsn)
        try:
            async with asyncio.timeout(10):
                while await connection.fetchval("SELECT count(*) FROM rag.invalidation"):
                    await asyncio.sleep(0.005)
        finally:
            await connection.close()

    async def ingest(self, documents, *, collection="docs", tenant="acme", **header):
        """Ingests contents by document id; returns results by id and the totals."""
        results, totals = {}, None
        call = self.corpus.IngestDocuments(
            messages(documents, collection, **header), metadata=as_tenant(tenant), timeout=30
        )
        async for event in call:
            if event.HasField("result"):
                results[event.result.document_id] = event.result
            elif event.HasField("completed"):
                totals = event.completed
        return results, totals


def as_tenant(tenant):
    return [("x-pannier-tenant-id", tenant)]


def messages(documents, collection="docs", **header):
    yield corpus.IngestDocumentsRequest(options=corpus.IngestOptions(collection=collection))
    for document_id, content in documents.items():
        data = content.encode() if isinstance(content, str) else content
        yield corpus.IngestDocumentsRequest(
            header=corpus.DocumentHeader(document_id=document_id, **header)
        )
        yield corpus.IngestDocumentsRequest(
            content=corpus.DocumentContent(data=data[: len(data) // 2])
        )
        yield corpus.IngestDocumentsRequest(
            content=corpus.DocumentContent(data=data[len(data) // 2 :], last=True)
        )


@asynccontextmanager
async def store_away(rag):
    """Lets nobody reach the service's database while the context is open."""
    name = rag.database_dsn.partition("?")[0].rpartition("/")[2]
    connection = await asyncpg.connect(rag.database_dsn, database="postgres")
    try:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        # One that was just connecting shows up later than it was let in.
        ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"
        while await connection.fetchval(ended, name):
            pass
        yield
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await connection.close()


@pytest.fixture
async def start_rag(database_dsn):  # noqa: F811
    """Starts the service against a fresh database and scripted peers."""
    async with AsyncExitStack() as stack:

        async def begin(*, prepare=lambda balancer: None, **settings):
            balancer, cache = FakeBalancer(), FakeCache()
            prepare(balancer)
            runtime, spans = make_runtime("rag", CATALOGUE)
            stack.callback(runtime.tracer_provider.shutdown)
            chosen = {
                "database_url": database_dsn,
                "balancer_address": await stack.enter_async_context(serving(balancer)),
                "cache_address": await stack.enter_async_context(serving(cache)),
                "drain_delay_seconds": 0.0,
                "drain_grace_seconds": 2.0,
                # A busy machine is no outage of the cache.
                "cache_time_limit_seconds": 2.0,
            }
            service = await stack.enter_async_context(AsyncExitStack())
            running = await service.enter_async_context(
                start(RagSettings(**{**chosen, **settings}), runtime)
            )
            channel = await stack.enter_async_context(channel_to(running.grpc_port))
            return Rag(
                RagServiceStub(channel),
                CorpusServiceStub(channel),
                channel,
                balancer,
                cache,
                spans,
                running.http_port,
                database_dsn,
                service,
                chosen["balancer_address"],
                chosen["cache_address"],
            )

        yield begin


@pytest.fixture
async def rag(start_rag):
    return await start_rag()


@pytest.fixture
async def filled(rag):
    """The service with the documents that answer the question, and a model that answers it."""
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.answer = ANSWER
    return rag
