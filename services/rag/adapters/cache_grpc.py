"""The exact layers of the cache service, over gRPC."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import grpc

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2, invalidation_pb2
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from services.common.channels import cancelled_at_end
from services.rag.adapters.cache_calls import (
    SignsOfLife,
    answer_of,
    must_be_anew,
    question_tag,
    to_store_control,
    to_tags,
)
from services.rag.adapters.cache_fill import FAILURE_KINDS, GrpcFill, to_inference
from services.rag.adapters.protocol import (
    finish_reason_of,
    to_messages,
    to_output_format,
    to_sampling,
    to_vector,
    usage_of,
    vector_of,
)
from services.rag.cache_port import (
    CachedInference,
    ChunkSpan,
    Dependencies,
    EmbeddingLookups,
    Failure,
    FailureKind,
    FillInterrupted,
    InferenceKey,
    InferenceLookup,
)
from services.rag.core.documents import Vector
from services.rag.core.invalidation import Invalidation, InvalidationKind

__all__ = ["GrpcCache"]

_OUTCOMES = {
    pb.LOOKUP_OUTCOME_HIT_LOCAL: "hit_local",
    pb.LOOKUP_OUTCOME_HIT_SHARED: "hit_shared",
    pb.LOOKUP_OUTCOME_HIT_COALESCED: "hit_coalesced",
    pb.LOOKUP_OUTCOME_HIT_NEGATIVE: "hit_negative",
}
_INFERENCE_OUTCOMES = {**_OUTCOMES, pb.LOOKUP_OUTCOME_BYPASSED: "bypassed"}
_FAILURE_KINDS = {number: kind for kind, number in FAILURE_KINDS.items()}


class GrpcCache:
    """Asks the cache service.

    Args:
        channel: Channel to the service.
        time_limit_seconds: Longest time of one call, but for those that wait for another caller.
    """

    def __init__(self, channel: grpc.aio.Channel, *, time_limit_seconds: float) -> None:
        self._stub = CacheServiceStub(channel)
        self._limit = time_limit_seconds
        self._signs = SignsOfLife(channel, time_limit_seconds=time_limit_seconds)

    async def lookup_embeddings(self, model_digest: str, texts: Sequence[str]) -> EmbeddingLookups:
        """Looks up the vectors of 1 to 512 texts."""
        request = pb.LookupEmbeddingsRequest(
            space=pb.EmbeddingSpace(model_digest=model_digest), texts=texts
        )
        response = await answer_of(self._stub.LookupEmbeddings(request, timeout=self._limit))
        outcomes = [_OUTCOMES.get(each.outcome, "miss") for each in response.lookups]
        return EmbeddingLookups(
            vectors=tuple(
                None if outcome == "miss" else vector_of(each.vector)
                for each, outcome in zip(response.lookups, outcomes, strict=True)
            ),
            outcome=_worst(outcomes),
            degraded=response.degraded,
        )

    async def store_embeddings(
        self, model_digest: str, texts: Sequence[str], vectors: Sequence[Vector]
    ) -> None:
        """Keeps the vectors of texts."""
        request = pb.StoreEmbeddingsRequest(
            space=pb.EmbeddingSpace(model_digest=model_digest),
            entries=[
                pb.EmbeddingEntry(text=text, vector=to_vector(vector))
                for text, vector in zip(texts, vectors, strict=True)
            ],
        )
        await answer_of(self._stub.StoreEmbeddings(request, timeout=self._limit))

    async def lookup_inference(
        self,
        key: InferenceKey,
        *,
        mode: str,
        wait_seconds: float,
        questions: Sequence[str] = (),
    ) -> InferenceLookup:
        """Looks up an answer; on a miss waits for whoever computes it, or gives a lease."""
        request = pb.LookupInferenceRequest(
            key=_to_key(key), mode=mode, flight=_flight(wait_seconds), questions=questions
        )
        call = self._stub.LookupInference(request, timeout=wait_seconds + self._limit)
        return _lookup_of(await self._signs.watch(call))

    async def bypass_inference(
        self, key: InferenceKey, *, mode: str, questions: Sequence[str] = ()
    ) -> InferenceLookup:
        """Looks nowhere; says what time it is for an answer computed from now on."""
        request = pb.LookupInferenceRequest(
            key=_to_key(key),
            mode=mode,
            control=control_pb2.LookupControl(bypass=True),
            questions=questions,
        )
        call = self._stub.LookupInference(request, timeout=self._limit)
        return _lookup_of(await answer_of(call))

    async def stream_inference(
        self,
        key: InferenceKey,
        *,
        mode: str,
        wait_seconds: float,
        time_limit_seconds: float | None,
        questions: Sequence[str] = (),
    ) -> AsyncGenerator[InferenceLookup | str | CachedInference | FillInterrupted, None]:
        """Does the same and gives the text as it comes."""
        request = pb.StreamInferenceRequest(
            key=_to_key(key), mode=mode, flight=_flight(wait_seconds), questions=questions
        )
        call = self._stub.StreamInference(request, timeout=time_limit_seconds)
        async with aclosing(cancelled_at_end(call)) as events:
            limit: float | None = wait_seconds + self._limit
            while True:
                event = await self._signs.watch(anext(events, None), time_limit_seconds=limit)
                if event is None:
                    return
                # Once there is text, whoever generates it sets the pace.
                limit = None
                kind = event.WhichOneof("event")
                if kind == "started":
                    yield _lookup_of(event.started)
                elif kind == "text_delta":
                    yield event.text_delta
                elif kind == "completed":
                    yield _inference_of(event.completed)
                elif kind == "interrupted":
                    yield FillInterrupted(event.interrupted.lease.token)

    def fill_inference(
        self,
        key: InferenceKey,
        lease: str,
        dependencies: Dependencies | None,
        *,
        basis_time_ns: int | None,
    ) -> GrpcFill:
        """Begins to hand over an answer."""
        opening = pb.FillOpening(
            key=_to_key(key),
            lease_token=lease,
            control=to_store_control(dependencies, basis_time_ns),
        )
        return GrpcFill(self._stub, opening, time_limit_seconds=self._limit)

    async def store_inference(
        self,
        key: InferenceKey,
        inference: CachedInference,
        dependencies: Dependencies | None,
        *,
        basis_time_ns: int | None,
    ) -> None:
        """Keeps a complete answer that was computed without a lease."""
        request = pb.StoreInferenceRequest(
            key=_to_key(key),
            inference=to_inference(inference),
            control=to_store_control(dependencies, basis_time_ns),
        )
        await answer_of(self._stub.StoreInference(request, timeout=self._limit))

    async def lookup_chunks(
        self, content_digest: str, fingerprint: str
    ) -> tuple[ChunkSpan, ...] | None:
        """Looks up how a content was cut; None where that is not known."""
        request = pb.LookupChunksRequest(key=_chunks_key(content_digest, fingerprint))
        response = await answer_of(self._stub.LookupChunks(request, timeout=self._limit))
        if response.outcome not in _OUTCOMES:
            return None
        return tuple(
            ChunkSpan(span.char_start, span.char_end, tuple(span.heading_path), span.token_count)
            for span in response.chunks.spans
        )

    async def store_chunks(
        self,
        content_digest: str,
        fingerprint: str,
        spans: Sequence[ChunkSpan],
        dependencies: Dependencies,
    ) -> None:
        """Keeps how a content was cut."""
        request = pb.StoreChunksRequest(
            key=_chunks_key(content_digest, fingerprint),
            chunks=pb.ChunkSet(
                spans=[
                    pb.ChunkSpan(
                        char_start=span.char_start,
                        char_end=span.char_end,
                        heading_path=span.heading_path,
                        token_count=span.token_estimate,
                    )
                    for span in spans
                ]
            ),
            control=control_pb2.StoreControl(tags=to_tags(dependencies)),
        )
        await answer_of(self._stub.StoreChunks(request, timeout=self._limit))

    async def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        """Makes what depends on 1 to 64 changes of documents unreadable."""
        request = invalidation_pb2.InvalidateRequest(
            selectors=[_to_selector(each) for each in invalidations], dry_run=False
        )
        await answer_of(self._stub.Invalidate(request, timeout=self._limit))

    async def forget_answers(self, question_digest: str) -> None:
        """Makes all answers to a question unreadable, however they were made."""
        selector = invalidation_pb2.Selector(tag=question_tag(question_digest))
        request = invalidation_pb2.InvalidateRequest(selectors=[selector], dry_run=False)
        await answer_of(self._stub.Invalidate(request, timeout=self._limit))


def _to_key(key: InferenceKey) -> pb.InferenceKey:
    return pb.InferenceKey(
        model_digest=key.model_digest,
        conversation=pb.Conversation(messages=to_messages(key.messages)),
        sampling=to_sampling(key.sampling),
        format=to_output_format(key.output_format),
        namespace=key.namespace,
    )


def _flight(wait_seconds: float) -> pb.FlightOptions:
    flight = pb.FlightOptions()
    flight.wait_limit.FromNanoseconds(int(wait_seconds * 1e9))
    return flight


def _lookup_of(response: pb.LookupInferenceResponse) -> InferenceLookup:
    failure: Failure | None = None
    if response.outcome == pb.LOOKUP_OUTCOME_HIT_NEGATIVE:
        failure = Failure(
            kind=_FAILURE_KINDS.get(response.failure.kind, FailureKind.TRANSIENT),
            message=response.failure.message,
            remaining_seconds=response.failure.remaining.ToNanoseconds() / 1e9,
        )
    return InferenceLookup(
        outcome=_INFERENCE_OUTCOMES.get(response.outcome, "miss"),
        inference=_inference_of(response.inference) if response.HasField("inference") else None,
        degraded=response.degraded,
        lease=response.lease.token,
        failure=failure,
        read_time_ns=(
            response.read_time.ToNanoseconds() if response.HasField("read_time") else None
        ),
        must_be_anew=must_be_anew(response.scope),
    )


def _inference_of(message: pb.Inference) -> CachedInference:
    return CachedInference(
        text=message.text,
        finish_reason=finish_reason_of(message.finish_reason),
        usage=usage_of(message.usage),
        generation_seconds=message.generation_time.ToNanoseconds() / 1e9,
    )


def _to_selector(invalidation: Invalidation) -> invalidation_pb2.Selector:
    collection = invalidation.collection
    if invalidation.kind is InvalidationKind.GROWTH:
        return invalidation_pb2.Selector(grown_collection=collection)
    if invalidation.kind is InvalidationKind.COLLECTION:
        return invalidation_pb2.Selector(tag=control_pb2.Tag(collection=collection))
    document = control_pb2.DocumentTag(collection=collection, document_id=invalidation.document_id)
    return invalidation_pb2.Selector(tag=control_pb2.Tag(document=document))


def _chunks_key(content_digest: str, fingerprint: str) -> pb.ChunksKey:
    return pb.ChunksKey(content_digest=content_digest, chunker_fingerprint=fingerprint)


def _worst(outcomes: Sequence[str]) -> str:
    """Names a batch after its slowest item, which is what its caller waits for."""
    return next((each for each in ("miss", "hit_shared") if each in outcomes), "hit_local")
