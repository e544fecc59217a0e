"""A balancer and a cache that do as a test says, over real gRPC.

They keep the contract of their protos; what is scripted is only what the fleet or the store behind
them would do.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b, sha256

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pannier.balancer.v1 import balancer_service_pb2 as balancer
from pannier.balancer.v1.balancer_service_pb2_grpc import (
    BalancerServiceServicer,
    add_BalancerServiceServicer_to_server,
)
from pannier.cache.v1.cache_service_pb2_grpc import add_CacheServiceServicer_to_server
from pannier.common.v1 import generation_pb2, vector_pb2
from services.common.errors import ServiceError
from services.common.identity import TENANT_HEADER
from services.common.server import PING_OPTIONS
from tests.kit.cache_peer import FakeCache, abort

__all__ = ["FakeBalancer", "FakeCache", "serving"]

DIMENSION = 64
EMBEDDING_DIGEST = sha256(b"embedding").hexdigest()
CHAT_DIGEST = sha256(b"chat").hexdigest()


Reply = Callable[[balancer.ChatRequest], str | balancer.ToolCalls | ServiceError | None]


def embed(text: str) -> bytes:
    """Makes a unit vector in which texts with common words are near each other."""
    vector = np.zeros(DIMENSION, dtype="<f4")
    for word in re.findall(r"\w+", text.lower()):
        vector[blake2b(word.encode(), digest_size=2).digest()[0] % DIMENSION] += 1
    norm = float(np.linalg.norm(vector)) or 1.0
    return (vector / norm).astype("<f4").tobytes()


class FakeBalancer(BalancerServiceServicer):
    """A fleet with one embedding model and one chat model.

    Attributes:
        models: Names and capabilities offered; may be changed.
        fault: Raised by Embed and Chat where set.
        embed_fault: Raised by Embed where set.
        answer: Text of an answer, sent word by word.
        reply: Gives the text of an answer to a request, the tools that it calls or what it fails
            with; None, or giving None, for `answer`.
        break_after: Words after which an answer breaks off with `break_error`; None never.
        finish_reason: Why an answer ends.
        prompt_token_count: Tokens it says it has read.
        chats: Requests to Chat.
        embedded: Texts embedded, with how often.
        hold: Chat waits for it after its first word.
        hold_listing: ListModels waits for it.
        hold_embedding: Embed waits for it.
        spoilt_vectors: Embed gives vectors that cannot be used.
        chat_ended: Gets a value whenever a Chat handler is left.
        first_tokens: Tells from the last message how likely each first token is, where asked for.
    """

    def __init__(self) -> None:
        self.models = [
            ("all-minilm:latest", EMBEDDING_DIGEST, balancer.MODEL_CAPABILITY_EMBEDDING),
            ("talker:latest", CHAT_DIGEST, balancer.MODEL_CAPABILITY_COMPLETION),
        ]
        self.fault: ServiceError | None = None
        self.embed_fault: ServiceError | None = None
        self.answer = "The first source says it [1]. Nothing else is known."
        self.reply: Reply | None = None
        self.break_after: int | None = None
        self.break_error: ServiceError | None = None
        self.finish_reason = generation_pb2.FINISH_REASON_STOP
        self.prompt_token_count = 100
        self.chats: list[balancer.ChatRequest] = []
        self.embedded: Counter[str] = Counter()
        self.tenants: Counter[str] = Counter()
        self.hold: asyncio.Event | None = None
        self.hold_listing: asyncio.Event | None = None
        self.hold_embedding: asyncio.Event | None = None
        self.spoilt_vectors = False
        self.chat_ended: asyncio.Queue[str] = asyncio.Queue()
        self.first_tokens: Callable[[str], Mapping[str, float]] = lambda prompt: {}

    async def ListModels(self, request, context):
        if self.hold_listing is not None:
            await self.hold_listing.wait()
        return balancer.ListModelsResponse(
            models=[
                balancer.Model(name=name, digest=digest, capabilities=[capability])
                for name, digest, capability in self.models
            ]
        )

    async def Embed(self, request, context):
        self._note(context)
        if self.hold_embedding is not None:
            await self.hold_embedding.wait()
        await abort(context, self.fault or self.embed_fault)
        self.embedded.update(request.texts)
        return balancer.EmbedResponse(
            vectors=[
                vector_pb2.EmbeddingVector(
                    float32_le=embed(text)[: 6 if self.spoilt_vectors else None],
                    dimension=DIMENSION,
                )
                for text in request.texts
            ],
            model=request.model,
            model_digest=EMBEDDING_DIGEST,
            backend_id="fake:1",
            attempt_count=1,
        )

    async def Chat(self, request, context):
        self._note(context)
        await abort(context, self.fault)
        self.chats.append(request)
        told = self.reply(request) if self.reply is not None else None
        if isinstance(told, ServiceError):
            await abort(context, told)
        if isinstance(told, balancer.ToolCalls):
            for event in _calling(told):
                yield event
            return
        words = re.findall(r"\S+\s*", self.answer if told is None else told)
        try:
            for number, word in enumerate(words):
                if number == self.break_after:
                    await abort(context, self.break_error)
                if number == 0:
                    started = balancer.GenerationStarted(
                        model="talker:latest", model_digest=CHAT_DIGEST, backend_id="fake:1"
                    )
                    yield balancer.ChatResponse(started=started)
                yield balancer.ChatResponse(text_delta=word)
                if number == 0 and request.HasField("top_logprob_count"):
                    yield balancer.ChatResponse(logprobs=self._likelihoods(request))
                if self.hold is not None:
                    await self.hold.wait()
            completed = balancer.GenerationCompleted(
                finish_reason=self.finish_reason,
                usage=generation_pb2.TokenUsage(
                    prompt_token_count=self.prompt_token_count,
                    completion_token_count=len(words),
                ),
            )
            yield balancer.ChatResponse(completed=completed)
        finally:
            self.chat_ended.put_nowait("chat")

    def _likelihoods(self, request):
        likely = sorted(
            self.first_tokens(request.messages[-1].content).items(), key=lambda item: -item[1]
        )
        top = [generation_pb2.TokenLogprob(token=word, logprob=log) for word, log in likely]
        first = generation_pb2.TokenLogprob(top=top[: request.top_logprob_count])
        return balancer.TokenLogprobs(tokens=[first])

    def _note(self, context):
        self.tenants[dict(context.invocation_metadata()).get(TENANT_HEADER, "")] += 1


def _calling(calls):
    """The events of an answer that is nothing but calls of tools."""
    started = balancer.GenerationStarted(
        model="talker:latest", model_digest=CHAT_DIGEST, backend_id="fake:1"
    )
    yield balancer.ChatResponse(started=started)
    yield balancer.ChatResponse(tool_calls=calls)
    usage = generation_pb2.TokenUsage(prompt_token_count=50, completion_token_count=10)
    completed = balancer.GenerationCompleted(
        finish_reason=generation_pb2.FINISH_REASON_STOP, usage=usage
    )
    yield balancer.ChatResponse(completed=completed)


class _Health(health.aio.HealthServicer):
    """Says that a peer serves, unless the peer is frozen."""

    def __init__(self, peer):
        super().__init__()
        self._peer = peer

    async def Check(self, request, context):
        if isinstance(self._peer, FakeCache) and self._peer.hold is not None:
            await self._peer.hold.wait()
        return await super().Check(request, context)


@asynccontextmanager
async def serving(servicer: FakeBalancer | FakeCache) -> AsyncIterator[str]:
    """Serves a peer on a free port and yields its address."""
    server = grpc.aio.server(options=PING_OPTIONS)
    if isinstance(servicer, FakeBalancer):
        add_BalancerServiceServicer_to_server(servicer, server)
    else:
        add_CacheServiceServicer_to_server(servicer, server)
    health_servicer = _Health(servicer)
    await health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
