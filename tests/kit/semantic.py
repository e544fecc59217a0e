"""Replicas of the semantic layer in one process, in front of a real Redis, without gRPC.

A `conftest.py` or a test module offers the fixture:

    from tests.kit.semantic import start_replica
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from opentelemetry.trace import NoOpTracer

from pannier.cache.v1 import semantic_pb2 as pb
from pannier.common.v1 import vector_pb2
from services.cache import semantic_convert
from services.cache.adapters.redis_store import RedisStore
from services.cache.core.breaker import BreakerPolicy
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.model import Scope
from services.cache.core.savings import NOTHING
from services.cache.core.semantic.bins import bin_of
from services.cache.core.semantic.decision import SemanticPolicy
from services.cache.core.semantic.entries import SemanticEntry, form_digest
from services.cache.core.semantic.verdict import Finding
from services.cache.core.store_clock import StoreClock
from services.cache.epoch_scripts import CHANNEL as EPOCH_CHANNEL
from services.cache.epochs import Epochs
from services.cache.levels import Levels
from services.cache.metrics import CATALOGUE
from services.cache.notices import Notices
from services.cache.recorder import Recorder
from services.cache.semantic_calls import SemanticCalls
from services.cache.semantic_layer import SemanticLayer, Where, make_semantic_layer
from services.cache.shared_level import SharedLevel
from services.common.clock import SystemClock
from services.common.identity import Identity, current_identity
from services.common.metrics import Metrics
from services.common.tasks import in_background

__all__ = [
    "DIGEST",
    "DIMENSION",
    "SemanticReplica",
    "StartReplica",
    "answer",
    "at_similarity",
    "entry_of",
    "partition",
    "start_replica",
    "unit",
    "until",
    "vector",
]

DIGEST = "0123456789abcdef" * 4
DIMENSION = 32
PEPPER = b"a secret of the tests"
_PATIENCE_SECONDS = 10.0


def unit(seed: int, dimension: int = DIMENSION) -> np.ndarray:
    """Returns a random direction."""
    components = np.random.default_rng(seed).standard_normal(dimension)
    return components / np.linalg.norm(components)


def at_similarity(base: np.ndarray, similarity: float, seed: int = 99) -> np.ndarray:
    """Returns a direction of a given cosine similarity to another one."""
    other = unit(seed, len(base))
    other -= base * (other @ base)
    other /= np.linalg.norm(other)
    return similarity * base + np.sqrt(1 - similarity**2) * other


def vector(components: np.ndarray) -> vector_pb2.EmbeddingVector:
    """Returns a vector as requests hold it."""
    data = np.asarray(components, dtype="<f4").tobytes()
    return vector_pb2.EmbeddingVector(float32_le=data, dimension=len(components))


def answer(text: str = "because") -> AnyMessage:
    """Returns an answer as requests hold it."""
    return AnyMessage(type_url="type.googleapis.com/test.Answer", value=text.encode())


def partition(**fields: str) -> pb.SemanticPartition:
    """Returns a partition."""
    return pb.SemanticPartition(**({"embedding_model_digest": DIGEST} | fields))


def entry_of(question: str, **changes: Any) -> SemanticEntry:
    """Returns an entry that is valid for an hour."""
    now_ms = int(SystemClock().now() * 1000)
    fields = {
        "scope": Scope("default"),
        "form": form_digest(question, partition_id="p", pepper=PEPPER),
        "version": b"version1",
        "question": question,
        "created_ms": now_ms,
        "expires_ms": now_ms + 3_600_000,
        "tags": (),
        "savings": NOTHING,
    }
    return SemanticEntry(**(fields | changes))


async def until(condition: Callable[[], bool]) -> None:
    """Waits until something holds that no event tells of."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass
class SemanticReplica:
    """One replica.

    Attributes:
        layer: Its semantic layer.
        calls: What it serves.
        epochs: Its invalidations.
        store: Its Redis.
        notices: What it hears of others.
        metrics: What it measures.
        stop: Ends it.
    """

    layer: SemanticLayer
    calls: SemanticCalls
    epochs: Epochs
    store: RedisStore
    notices: Notices
    metrics: Metrics
    stop: Callable[[], Awaitable[None]]

    async def look_up(
        self,
        query: str,
        components: np.ndarray | None = None,
        *,
        tenant: str = "default",
        **fields: Any,
    ) -> pb.LookupSemanticResponse:
        """Looks up a question."""
        fields = {"partition": partition()} | fields
        request = pb.LookupSemanticRequest(query=query, **fields)
        if components is not None:
            request.vector.CopyFrom(vector(components))
        return await self._as(tenant, self.calls.look_up_semantic, request)

    async def keep(
        self,
        query: str,
        components: np.ndarray,
        text: str = "because",
        *,
        tenant: str = "default",
        **fields: Any,
    ) -> pb.StoreSemanticResponse:
        """Stores an answer."""
        fields = {"partition": partition(), "answer": answer(text)} | fields
        request = pb.StoreSemanticRequest(query=query, vector=vector(components), **fields)
        return await self._as(tenant, self.calls.store_semantic, request)

    async def report(
        self, entry_id: str, *, tenant: str = "default", **fields: Any
    ) -> pb.ReportOutcomeResponse:
        """Reports on a match."""
        fields = {
            "partition": partition(),
            "similarity": 0.97,
            "verdict": pb.MATCH_VERDICT_RIGHT,
            "judge": pb.MATCH_JUDGE_RECOMPUTATION,
        } | fields
        request = pb.ReportOutcomeRequest(entry_id=entry_id, **fields)
        return await self._as(tenant, self.calls.report_outcome, request)

    async def prove(self, similarity: float, count: int = 320, **verdicts: Any) -> None:
        """Counts right verdicts, so that matches as similar are served."""
        where = self.where(**verdicts)
        number = bin_of(similarity)
        assert number is not None
        for _ in range(count):
            assert await self.layer.calibration.count(where.subject, number, Finding.RIGHT)

    def where(self, *, tenant: str = "default", **fields: str) -> Where:
        """Returns a partition as the layer knows it."""
        return semantic_convert.where(partition(**fields), tenant_id=tenant, pepper=PEPPER)

    def known(self, **fields: str) -> int:
        """Returns how many entries of a partition are in memory."""
        return len(self.layer.feed.partition(self.where(**fields).name))

    def metric(self, name: str, **labels: str) -> float | None:
        """Returns a sample."""
        return self.metrics.registry.get_sample_value(name, labels)

    async def _as(self, tenant: str, call: Callable[..., Awaitable[Any]], request: Any) -> Any:
        token = current_identity.set(Identity(tenant))
        try:
            return await call(request)
        finally:
            current_identity.reset(token)


StartReplica = Callable[..., Awaitable[SemanticReplica]]


@pytest.fixture
async def start_replica() -> AsyncIterator[StartReplica]:
    """Starts replicas; all of them stop with the test."""

    async with AsyncExitStack() as everything:

        async def start_one(
            url: str,
            *,
            policy: dict[str, float] | None = None,
            memory_limit_bytes: int = 64 << 20,
            tenant_entry_limit: int = 20_000,
            timeout_seconds: float = 5.0,
            draw: Callable[[], float] = lambda: 0.5,
            listening: bool = True,
        ) -> SemanticReplica:
            one = AsyncExitStack()
            everything.push_async_callback(one.aclose)
            clock = SystemClock()
            store = RedisStore(
                url,
                databases=(0, 1),
                timeout_seconds=timeout_seconds,
                connect_timeout_seconds=timeout_seconds,
                connection_limit=8,
                tracer=NoOpTracer(),
            )
            one.push_async_callback(store.close)
            metrics = Metrics(CATALOGUE, version="test")
            local = {layer: LocalLevel(1 << 24) for layer in Layer}
            recorder = Recorder(metrics, local, clock)
            shared = SharedLevel(
                store,
                databases=dict.fromkeys(Layer, 1),
                timeout_seconds=timeout_seconds,
                remaining_seconds=lambda: None,
                clock=clock,
                recorder=recorder,
                policy=BreakerPolicy(),
            )
            store_clock = StoreClock(lambda: clock.now() * 1000)
            epochs = Epochs(
                shared, store_clock=store_clock, clock=clock, remaining_seconds=lambda: None
            )
            layer = make_semantic_layer(
                Levels(
                    local=local,
                    shared=shared,
                    epochs=epochs,
                    store_clock=store_clock,
                    pepper=PEPPER,
                    clock=clock,
                    draw=draw,
                    recorder=recorder,
                ),
                policy=SemanticPolicy(
                    **(
                        {
                            "threshold": 0.95,
                            "error_budget_ratio": 0.01,
                            "verification_ratio": 0.0,
                        }
                        | (policy or {})
                    )
                ),
                memory_limit_bytes=memory_limit_bytes,
                tenant_entry_limit=tenant_entry_limit,
                remaining_seconds=lambda: None,
                wait_seconds=timeout_seconds,
            )
            notices = Notices(store, clock=clock)
            notices.on(EPOCH_CHANNEL, epochs.on_notice)
            notices.on_gap(epochs.on_gap)
            shared.on_recovered(epochs.recover)
            layer.connect(notices)
            loops = [shared.watch(), epochs.run(), layer.run()]
            if listening:
                loops.append(notices.run())
            await one.enter_async_context(in_background(*loops))
            if listening:
                await until(lambda: notices.connected)
            return SemanticReplica(
                layer, SemanticCalls(layer), epochs, store, notices, metrics, one.aclose
            )

        yield start_one
