"""PostgreSQL, Redis, peers and the services, as processes of their own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import grpc

from pannier.client import open_channel
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1.corpus_service_pb2_grpc import CorpusServiceStub
from pannier.rag.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceStub
from tests.bench import processes
from tests.bench.processes import Started
from tests.bench.tuned import on_own_processors
from tests.kit.ports import free_port
from tests.kit.postgres import EmbeddedPostgres
from tests.kit.redis import find_redis_server

__all__ = [
    "COLLECTION",
    "Launcher",
    "Source",
    "Suite",
    "Taken",
    "ingest",
    "options",
    "running_suite",
    "settle",
]

COLLECTION = "bench"
Launcher = Callable[[str], Sequence[str]]
"""Returns the command that starts a service of that name."""

_READY_SECONDS = 60.0
_INGEST_SECONDS = 7200.0
_PART_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs.

    Attributes:
        started: Its process.
        address: Where it serves.
        metrics_url: Where its metrics are.
    """

    started: Started
    address: str
    metrics_url: str


@dataclass(frozen=True, slots=True)
class Suite:
    """What a case works with.

    Attributes:
        rag: The service measured.
        cache: The cache that it asks.
        channel: To rag.
        database_url: Its database.
        postgres: The server.
    """

    rag: Service
    cache: Service
    channel: grpc.aio.Channel
    database_url: str
    postgres: EmbeddedPostgres

    @property
    def stub(self) -> RagServiceStub:
        """Calls RagService."""
        return RagServiceStub(self.channel)

    @property
    def corpus(self) -> CorpusServiceStub:
        """Calls CorpusService."""
        return CorpusServiceStub(self.channel)

    @property
    def evaluation(self) -> EvaluationServiceStub:
        """Calls EvaluationService."""
        return EvaluationServiceStub(self.channel)


@dataclass(frozen=True, slots=True)
class Source:
    """A document to take in."""

    document_id: str
    text: str
    title: str = ""
    tags: tuple[str, ...] = ()
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an ingestion came to.

    Attributes:
        completed: The service's own summary.
        computed_count: Vectors computed.
        seconds: Time it took.
    """

    completed: corpus.IngestCompleted
    computed_count: int
    seconds: float


@asynccontextmanager
async def running_suite(
    folder: Path,
    *,
    standins: Sequence[Sequence[str]] = (),
    minilm: Path | None = None,
    start: Launcher | None = None,
    common: Mapping[str, str] | None = None,
    **settings: str,
) -> AsyncIterator[Suite]:
    """Runs everything while the context is open.

    Args:
        folder: For logs.
        standins: Arguments of each stand-in; without any, a balancer that needs no time takes the
            place of balancer and fleet.
        minilm: Where that balancer keeps the vectors of MiniLM; None for vectors by marks.
        start: Says how a service is started; None for as its users do.
        common: Settings of all services, without their prefix.
        settings: Settings of rag, without their prefix.
    """
    run = partial(_service, folder, start or _as_users_do, common or {})
    async with AsyncExitStack() as stack:
        postgres = await asyncio.to_thread(EmbeddedPostgres, durable=True)
        stack.push_async_callback(asyncio.to_thread, postgres.stop)
        database_url = postgres.dsn(await postgres.create_database(migrated=False))
        if standins:
            balancer = await stack.enter_async_context(_fleet(folder, standins, run))
        else:
            balancer = await stack.enter_async_context(_instant_balancer(folder, minilm))
        redis_url = await stack.enter_async_context(_redis(folder))
        cache = await stack.enter_async_context(run("cache", redis_url=redis_url))
        settings = {
            "database_url": database_url,
            "balancer_address": balancer,
            "cache_address": cache.address,
            **settings,
        }
        rag = await stack.enter_async_context(run("rag", **settings))
        channel = await stack.enter_async_context(open_channel(rag.address))
        stack.enter_context(on_own_processors(rag.started.pid, cache.started.pid))
        yield Suite(rag, cache, channel, database_url, postgres)


async def ingest(
    suite: Suite,
    sources: Iterable[Source],
    *,
    collection: str = COLLECTION,
    tenant: str = "default",
    chunking: corpus.ChunkingOptions | None = None,
) -> Taken:
    """Takes documents in.

    Raises:
        RuntimeError: One could not be stored.
    """
    started = asyncio.get_running_loop().time()
    computed_count = 0
    async with open_channel(suite.rag.address, tenant=tenant) as channel:
        call = CorpusServiceStub(channel).IngestDocuments(
            _messages(sources, corpus.IngestOptions(collection=collection, chunking=chunking)),
            timeout=_INGEST_SECONDS,
        )
        async for event in call:
            kind = event.WhichOneof("event")
            if kind == "result":
                if event.result.HasField("failure"):
                    raise RuntimeError(
                        f"{event.result.document_id}: {event.result.failure.message}"
                    )
                computed_count += event.result.computed_embedding_count
            elif kind == "completed":
                seconds = asyncio.get_running_loop().time() - started
                return Taken(event.completed, computed_count, seconds)
    raise RuntimeError("the ingestion ended before it was complete")


async def settle(suite: Suite) -> None:
    """Has PostgreSQL look at its tables, as it does by itself after some minutes."""
    connection = await asyncpg.connect(suite.database_url)
    try:
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def options(**chosen: object) -> pb.RetrievalOptions:
    """Makes options of a search without reranking and other wordings, unless asked for."""
    plain: dict[str, object] = {
        "rerank": pb.RERANK_POLICY_OFF,
        "expansion": pb.EXPANSION_POLICY_NONE,
        "merge_neighbors": False,
    }
    return pb.RetrievalOptions(**{**plain, **chosen})


async def _messages(
    sources: Iterable[Source], options: corpus.IngestOptions
) -> AsyncIterator[corpus.IngestDocumentsRequest]:
    message = corpus.IngestDocumentsRequest
    yield message(options=options)
    for source in sources:
        yield message(
            header=corpus.DocumentHeader(
                document_id=source.document_id,
                title=source.title,
                tags=source.tags,
                media_type=source.media_type,
            )
        )
        data = source.text.encode()
        for start in range(0, len(data), _PART_BYTES):
            part = data[start : start + _PART_BYTES]
            last = start + _PART_BYTES >= len(data)
            yield message(content=corpus.DocumentContent(data=part, last=last))


@asynccontextmanager
async def _fleet(
    folder: Path, standins: Sequence[Sequence[str]], run: Callable[..., Any]
) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        urls = []
        for index, arguments in enumerate(standins):
            port = free_port()
            command = [
                *(sys.executable, "-m", "services.standin", "--port", str(port)),
                *("--name", f"standin-{index}", *arguments),
            ]
            started = await stack.enter_async_context(
                processes.running(
                    f"standin {index}",
                    command,
                    log=folder / f"standin-{index}.log",
                    environment=_ONE_THREAD,
                )
            )
            urls.append(f"http://127.0.0.1:{port}")
            await processes.wait_until(
                started, f"{urls[-1]}/api/version", within_seconds=_READY_SECONDS
            )
        balancer = await stack.enter_async_context(run("balancer", backends=",".join(urls)))
        yield balancer.address


@asynccontextmanager
async def _instant_balancer(folder: Path, minilm: Path | None) -> AsyncIterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.rag.peers", "--port", str(port)]
    if minilm is not None:
        command += ["--minilm", str(minilm)]
    async with processes.running(
        "instant balancer", command, log=folder / "peers.log", environment=_ONE_THREAD
    ):
        address = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), _READY_SECONDS)
        yield address


@asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    command = [
        *(find_redis_server(), "--port", str(port), "--bind", "127.0.0.1"),
        *("--dir", str(folder), "--save", "", "--appendonly", "no"),
    ]
    async with processes.running("redis", command, log=folder / "redis.log"):
        yield f"redis://127.0.0.1:{port}"


@asynccontextmanager
async def _service(
    folder: Path, start: Launcher, common: Mapping[str, str], name: str, **settings: str
) -> AsyncIterator[Service]:
    grpc_port, http_port = free_port(), free_port()
    variables = {
        "grpc_address": f"127.0.0.1:{grpc_port}",
        "http_address": f"127.0.0.1:{http_port}",
        "drain_delay_seconds": "0s",
        **common,
        **settings,
    }
    prefix = f"PANNIER_{name.upper()}_"
    async with processes.running(
        name,
        start(name),
        log=folder / f"{name}.log",
        environment=_ONE_THREAD
        | {f"{prefix}{key.upper()}": value for key, value in variables.items()}
        | {"GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "ERROR")},
    ) as started:
        await processes.wait_until(
            started, f"http://127.0.0.1:{http_port}/readyz", within_seconds=_READY_SECONDS
        )
        yield Service(started, f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_port}/metrics")


def _as_users_do(name: str) -> Sequence[str]:
    return (sys.executable, "-m", f"services.{name}")


_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
