"""The semantic layer of the cache service, over gRPC."""

from collections.abc import Sequence
from functools import lru_cache

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from pannier.cache.v1 import control_pb2
from pannier.cache.v1 import semantic_pb2 as pb
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from pannier.rag.v1 import rag_service_pb2
from services.rag.adapters.cache_calls import answer_of, must_be_anew, to_store_control
from services.rag.adapters.protocol import to_usage, to_vector
from services.rag.answer_convert import reusable_of, to_answer_message
from services.rag.cache_port import Dependencies
from services.rag.core.answer import Answer
from services.rag.core.documents import Vector
from services.rag.core.reuse import Evidence, ReusableAnswer, Verdict
from services.rag.semantic_port import (
    EntryReference,
    Judge,
    SemanticLookup,
    SemanticMatch,
    SemanticPartition,
)

__all__ = ["GrpcSemanticCache"]

# Answers that are asked for again and again; together they take a few MiB at most.
_MOST_KNOWN = 128
_MOST_KNOWN_BYTES = 32_768

_OUTCOMES = {
    pb.SEMANTIC_OUTCOME_HIT_EXACT: "hit_exact",
    pb.SEMANTIC_OUTCOME_HIT_SIMILAR: "hit_similar",
    pb.SEMANTIC_OUTCOME_CANDIDATE: "candidate",
    pb.SEMANTIC_OUTCOME_BYPASSED: "bypassed",
}
_VERDICTS = {
    Verdict.RIGHT: pb.MATCH_VERDICT_RIGHT,
    Verdict.WRONG: pb.MATCH_VERDICT_WRONG,
    Verdict.UNDECIDED: pb.MATCH_VERDICT_UNDECIDED,
}
_JUDGES = {
    Judge.EVIDENCE: pb.MATCH_JUDGE_EVIDENCE,
    Judge.RECOMPUTATION: pb.MATCH_JUDGE_RECOMPUTATION,
    Judge.PERSON: pb.MATCH_JUDGE_PERSON,
}


class GrpcSemanticCache:
    """Asks the cache service for answers to questions.

    Args:
        channel: Channel to the service.
        time_limit_seconds: Longest time of one call.
    """

    def __init__(self, channel: grpc.aio.Channel, *, time_limit_seconds: float) -> None:
        self._stub = CacheServiceStub(channel)
        self._limit = time_limit_seconds

    async def look_up(
        self,
        partition: SemanticPartition,
        query: str,
        *,
        vector: Vector | None,
        vector_follows: bool,
        mode: str,
        collection: str,
        bypass: bool,
    ) -> SemanticLookup:
        """Looks up the answer to a question, with a vector to one like it."""
        request = pb.LookupSemanticRequest(
            partition=_to_partition(partition),
            query=query,
            vector=None if vector is None else to_vector(vector),
            mode=mode,
            control=control_pb2.LookupControl(bypass=bypass),
            collections=[collection],
            vector_follows=vector_follows,
        )
        response = await answer_of(self._stub.LookupSemantic(request, timeout=self._limit))
        outcome = _OUTCOMES.get(response.outcome, "miss")
        match = _match_of(response.match, collection) if response.HasField("match") else None
        found = outcome in ("hit_exact", "hit_similar", "candidate")
        return SemanticLookup(
            outcome="miss" if found and match is None else outcome,
            match=match if found else None,
            read_time_ns=(
                response.read_time.ToNanoseconds() if response.HasField("read_time") else None
            ),
            degraded=response.degraded,
            must_be_anew=must_be_anew(response.scope),
        )

    async def store(
        self,
        partition: SemanticPartition,
        query: str,
        vector: Vector,
        answer: Answer,
        *,
        warnings: Sequence[str],
        evidence: Sequence[Evidence],
        dependencies: Dependencies,
        basis_time_ns: int,
    ) -> str:
        """Keeps the answer to a question, and returns the entry; empty where it is not kept."""
        packed = AnyMessage()
        packed.Pack(to_answer_message(answer, warnings))
        request = pb.StoreSemanticRequest(
            partition=_to_partition(partition),
            query=query,
            vector=to_vector(vector),
            answer=packed,
            evidence=[
                pb.Evidence(
                    document_id=each.document_id,
                    passage_id=each.passage_id,
                    content_digest=each.content_digest,
                )
                for each in evidence
            ],
            control=to_store_control(dependencies, basis_time_ns),
            usage=to_usage(answer.usage),
        )
        request.generation_time.FromNanoseconds(int(answer.generation_seconds * 1e9))
        response = await answer_of(self._stub.StoreSemantic(request, timeout=self._limit))
        return response.entry_id if response.stored else ""

    async def report(
        self,
        partition: SemanticPartition,
        match: EntryReference,
        verdict: Verdict,
        judge: Judge,
        *,
        served: bool,
        mode: str,
    ) -> None:
        """Says whether a match was right; `served` where a candidate's answer was given."""
        request = pb.ReportOutcomeRequest(
            partition=_to_partition(partition),
            entry_id=match.entry_id,
            similarity=match.similarity,
            verdict=_VERDICTS[verdict],
            judge=_JUDGES[judge],
            served=served,
            mode=mode,
        )
        await answer_of(self._stub.ReportOutcome(request, timeout=self._limit))


def _to_partition(partition: SemanticPartition) -> pb.SemanticPartition:
    return pb.SemanticPartition(
        embedding_model_digest=partition.embedding_model_digest,
        model_digest=partition.model_digest,
        access_fingerprint=partition.access_fingerprint,
        configuration_fingerprint=partition.configuration_fingerprint,
        namespace=partition.namespace,
    )


def _match_of(message: pb.SemanticMatch, collection: str) -> SemanticMatch | None:
    if not message.answer.Is(rag_service_pb2.QueryResponse.DESCRIPTOR):
        return None
    kept = message.answer.value
    read = _known_answer if len(kept) <= _MOST_KNOWN_BYTES else _read
    answer = read(kept, collection)
    if answer is None:
        return None
    return SemanticMatch(
        entry_id=message.entry_id,
        query=message.query,
        similarity=message.similarity,
        answer=answer,
        age_seconds=message.age.ToNanoseconds() / 1e9,
        verification_wanted=message.verification_wanted,
    )


def _read(kept: bytes, collection: str) -> ReusableAnswer | None:
    return reusable_of(rag_service_pb2.QueryResponse.FromString(kept), collection)


# What is kept says all there is to know, so that the same bytes are always the same answer.
_known_answer = lru_cache(maxsize=_MOST_KNOWN)(_read)
