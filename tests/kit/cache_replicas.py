"""Replicas of the part of the cache that answers for models, in one process, without gRPC.

Each has everything of its own but the Redis server, as replicas in processes of their own have.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from opentelemetry import trace

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.cache.adapters.redis_store import RedisStore
from services.cache.core.breaker import BreakerPolicy
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.store_clock import StoreClock
from services.cache.epoch_scripts import CHANNEL
from services.cache.epochs import Bump, Epochs
from services.cache.inference_calls import InferenceCalls
from services.cache.levels import Levels
from services.cache.metrics import CATALOGUE
from services.cache.notices import Notices
from services.cache.recorder import FlightEvent, Recorder
from services.cache.shared_level import SharedLevel
from services.common.clock import SystemClock
from services.common.metrics import Metrics
from services.common.tasks import in_background

__all__ = [
    "ANSWER",
    "DIGEST",
    "Replica",
    "answer",
    "eventually",
    "fill_messages",
    "flight",
    "question",
    "running_replica",
]

DIGEST = "0123456789abcdef" * 4
PEPPER = b"a secret of the tests"


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


_DATABASES = {Layer.EMBEDDING: 0, Layer.INFERENCE: 1, Layer.CHUNK: 0, Layer.SEMANTIC: 1}


@dataclass(frozen=True)
class Replica:
    """One replica."""

    calls: InferenceCalls
    levels: Levels
    notices: Notices
    metrics: Metrics

    def count(self, event: FlightEvent) -> int:
        """Returns how often something happened to leases here."""
        return self.levels.recorder.flights.events[event]

    async def look_up(self, text: str = "why?", **wish: float) -> pb.LookupInferenceResponse:
        """Looks an answer up and takes part in computing it."""
        return await self.calls.look_up_inference(
            pb.LookupInferenceRequest(key=question(text), flight=flight(**wish))
        )

    async def look_up_afresh(self, text: str = "why?", **wish: float) -> pb.LookupInferenceResponse:
        """Does the same as a caller to whom nothing has happened yet."""
        loop = asyncio.get_running_loop()
        return await loop.create_task(self.look_up(text, **wish), context=Context())

    async def store(
        self, text: str = "why?", *, token: str = "", inference: pb.Inference | None = None
    ) -> pb.StoreInferenceResponse:
        """Stores an answer."""
        return await self.calls.store_inference(
            pb.StoreInferenceRequest(
                key=question(text), inference=inference or ANSWER, lease_token=token
            )
        )

    async def release(
        self, token: str, *, kind: int | None = None, message: str = "", text: str = "why?"
    ) -> pb.ReleaseLeaseResponse:
        """Gives a lease back, with a failure where a kind of it is named."""
        failure = None if kind is None else pb.Failure(kind=kind, message=message)
        return await self.calls.release_lease(
            pb.ReleaseLeaseRequest(key=question(text), lease_token=token, failure=failure)
        )

    async def stream(
        self, text: str = "why?", **wish: float
    ) -> AsyncIterator[pb.StreamInferenceResponse]:
        """Looks an answer up as it comes."""
        request = pb.StreamInferenceRequest(key=question(text), flight=flight(**wish))
        async for response in self.calls.stream_inference(request):
            yield response

    async def fill(
        self, messages: "AsyncIterator[pb.FillInferenceRequest]"
    ) -> pb.FillInferenceResponse:
        """Hands an answer over."""
        return await self.calls.fill_inference(messages)

    async def told_of(self, bump: Bump, field: str) -> None:
        """Waits until this replica knows of an invalidation."""
        epochs = self.levels.epochs
        await eventually(lambda: epochs.invalidated_at("default", field) >= bump.epoch_ms)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left of what callers wanted."""
        return not any(self.calls.under_way().values())


def question(text: str = "why?", **sampling: object) -> pb.InferenceKey:
    """Returns what an answer is an answer to."""
    return pb.InferenceKey(
        model_digest=DIGEST,
        prompt=pb.Prompt(text=text),
        sampling=generation_pb2.SamplingOptions(**sampling),
    )


def flight(*, wait: float = 10.0, lease: float | None = None) -> pb.FlightOptions:
    """Returns how a caller takes part, in seconds."""
    options = pb.FlightOptions(wait_limit=_duration(wait))
    if lease is not None:
        options.lease_time.CopyFrom(_duration(lease))
    return options


def answer(text: str = "because", *, seconds: float = 2.5, thinking: str = "") -> pb.Inference:
    """Returns a complete answer."""
    return pb.Inference(
        text=text,
        thinking=thinking,
        finish_reason=generation_pb2.FINISH_REASON_STOP,
        usage=generation_pb2.TokenUsage(prompt_token_count=7, completion_token_count=3),
        generation_time=_duration(seconds),
    )


ANSWER = answer()


async def fill_messages(
    token: str,
    deltas: Sequence[str],
    *,
    text: str = "why?",
    last: pb.FillInferenceRequest | None = None,
    before: Callable[[int], "asyncio.Future[None] | None"] = lambda _index: None,
) -> AsyncIterator[pb.FillInferenceRequest]:
    """Yields the messages of a fill; the last one commits unless told otherwise.

    `before` may return a future for an index, which is awaited before that message.
    """
    yield pb.FillInferenceRequest(open=pb.FillOpening(key=question(text), lease_token=token))
    for index, delta in enumerate(deltas):
        if (gate := before(index)) is not None:
            await gate
        yield pb.FillInferenceRequest(text_delta=delta)
    if (gate := before(len(deltas))) is not None:
        await gate
    yield last if last is not None else pb.FillInferenceRequest(commit=answer(""))


async def eventually(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Waits until something holds that nobody announces."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running_replica(
    url: str,
    *,
    draw: Callable[[], float] = random.random,
    remaining_seconds: Callable[[], float | None] = lambda: None,
    local_limit_bytes: int = 1 << 24,
    timeout_seconds: float = 5.0,
) -> AsyncIterator[Replica]:
    """Runs a replica; nothing it began goes on afterwards.

    It waits long for Redis, as the machine may be busy; a test that has Redis in trouble says less.
    """
    clock = SystemClock()
    store = RedisStore(
        url,
        databases=(0, 1),
        timeout_seconds=timeout_seconds,
        connect_timeout_seconds=max(0.25, timeout_seconds),
        connection_limit=32,
        tracer=trace.NoOpTracer(),
    )
    local = {layer: LocalLevel(local_limit_bytes) for layer in Layer if layer in _DATABASES}
    metrics = Metrics(CATALOGUE, version="test")
    recorder = Recorder(metrics, local, clock)
    shared = SharedLevel(
        store,
        databases=_DATABASES,
        timeout_seconds=timeout_seconds,
        remaining_seconds=remaining_seconds,
        clock=clock,
        recorder=recorder,
        policy=BreakerPolicy(),
    )
    store_clock = StoreClock(lambda: clock.now() * 1000)
    epochs = Epochs(
        shared, store_clock=store_clock, clock=clock, remaining_seconds=remaining_seconds
    )
    levels = Levels(
        local=local,
        shared=shared,
        epochs=epochs,
        store_clock=store_clock,
        pepper=PEPPER,
        clock=clock,
        draw=draw,
        recorder=recorder,
    )
    notices = Notices(store, clock=clock)
    notices.on(CHANNEL, epochs.on_notice)
    notices.on_gap(epochs.on_gap)
    shared.on_recovered(epochs.recover)
    calls = InferenceCalls(levels, notices, remaining_seconds=remaining_seconds)
    await shared.settle()
    try:
        async with in_background(shared.watch(), notices.run(), epochs.run()):
            await eventually(lambda: notices.connected or not shared.available)
            yield Replica(calls, levels, notices, metrics)
            await calls.close()
    finally:
        await store.close()
