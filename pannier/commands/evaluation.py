"""Takes a judged set into a collection of its own, and has rag evaluate it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import grpc

from pannier.commands.ingestion import Tally
from pannier.commands.judged_sets import JudgedDocument, JudgedSet
from pannier.rag.v1 import (
    corpus_service_pb2,
    corpus_service_pb2_grpc,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    rag_service_pb2,
)

__all__ = [
    "VARIANTS",
    "EvaluationFailed",
    "delete_scratch",
    "evaluate",
    "fill_scratch",
    "new_scratch_name",
    "queries_of",
    "variant_of",
]

_PART_BYTES = 512 * 1024
_DELETE_SECONDS = 60.0

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "keyword": {"arms": rag_service_pb2.SEARCH_ARMS_KEYWORD},
    "vector": {"arms": rag_service_pb2.SEARCH_ARMS_VECTOR},
    "hybrid-convex": {"fusion": rag_service_pb2.FUSION_METHOD_CONVEX},
    "hybrid-rrf": {"fusion": rag_service_pb2.FUSION_METHOD_RRF},
    "rerank": {"rerank": rag_service_pb2.RERANK_POLICY_ON},
    "multi-query": {"expansion": rag_service_pb2.EXPANSION_POLICY_MULTI_QUERY},
    "hyde": {"expansion": rag_service_pb2.EXPANSION_POLICY_HYDE},
    "step-back": {"expansion": rag_service_pb2.EXPANSION_POLICY_STEP_BACK},
    "decompose": {"expansion": rag_service_pb2.EXPANSION_POLICY_DECOMPOSE},
    "auto": {
        "rerank": rag_service_pb2.RERANK_POLICY_AUTO,
        "expansion": rag_service_pb2.EXPANSION_POLICY_AUTO,
    },
}
"""Ways of searching that can be asked for by name, as they differ from plain hybrid search."""


class EvaluationFailed(Exception):
    """The evaluation cannot go on."""


def variant_of(name: str, **options: Any) -> evaluation_service_pb2.EvaluationVariant:
    """Makes a way of searching: plain hybrid search, with some options changed."""
    plain: dict[str, Any] = {
        "rerank": rag_service_pb2.RERANK_POLICY_OFF,
        "expansion": rag_service_pb2.EXPANSION_POLICY_NONE,
        "merge_neighbors": False,
    }
    return evaluation_service_pb2.EvaluationVariant(
        name=name, options=rag_service_pb2.RetrievalOptions(**{**plain, **options})
    )


def new_scratch_name() -> str:
    """Returns a name for a collection that nobody else has."""
    return f"evaluation-{uuid4().hex[:12]}"


async def fill_scratch(
    channel: grpc.aio.Channel,
    collection: str,
    judged_set: JudgedSet,
    tally: Tally,
    *,
    timeout_seconds: float,
    progressed: Callable[[], None],
) -> None:
    """Takes the documents of a set into a collection.

    Args:
        channel: To rag.
        collection: Its name.
        judged_set: The documents.
        tally: Kept up to date.
        timeout_seconds: How long it may take.
        progressed: Called whenever the tally has changed.

    Raises:
        EvaluationFailed: Documents could not be stored.
        grpc.aio.AioRpcError: The call failed.
    """
    stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(channel)
    call = stub.IngestDocuments(_messages(collection, judged_set), timeout=timeout_seconds)
    async for event in call:
        tally.add(event)
        progressed()
    if tally.failures:
        first = tally.failures[0]
        raise EvaluationFailed(
            f"{len(tally.failures)} documents could not be stored, the first is "
            f"{first.document_id}: {first.failure.message}"
        )


async def delete_scratch(channel: grpc.aio.Channel, collection: str) -> None:
    """Deletes a collection, if it came to be.

    Raises:
        grpc.aio.AioRpcError: The call failed.
    """
    stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(channel)
    request = corpus_service_pb2.DeleteCollectionRequest(collection=collection, confirm=collection)
    try:
        await stub.DeleteCollection(request, timeout=_DELETE_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


async def evaluate(
    channel: grpc.aio.Channel,
    request: evaluation_service_pb2.EvaluateRequest,
    *,
    timeout_seconds: float,
    progressed: Callable[[int, int], None],
) -> evaluation_service_pb2.EvaluationReport:
    """Has rag evaluate a collection.

    Args:
        channel: To rag.
        request: What to evaluate.
        timeout_seconds: How long it may take.
        progressed: Called with the searches done and those to do.

    Raises:
        EvaluationFailed: The stream ended before it was complete.
        grpc.aio.AioRpcError: The call failed.
    """
    stub: Any = evaluation_service_pb2_grpc.EvaluationServiceStub(channel)
    call = stub.Evaluate(request, timeout=timeout_seconds)
    async for event in call:
        if event.HasField("progress"):
            progressed(event.progress.done_count, event.progress.total_count)
        elif event.HasField("completed"):
            report: evaluation_service_pb2.EvaluationReport = event.completed
            return report
    raise EvaluationFailed("the evaluation ended before it was complete")


def queries_of(judged_set: JudgedSet) -> Sequence[evaluation_service_pb2.EvaluationQuery]:
    """Writes the queries of a set as rag reads them."""
    return [
        evaluation_service_pb2.EvaluationQuery(
            query_id=query.query_id,
            text=query.text,
            judgements=[
                evaluation_service_pb2.RelevanceJudgement(document_id=document_id, grade=grade)
                for document_id, grade in query.grades.items()
            ],
        )
        for query in judged_set.queries
    ]


async def _messages(
    collection: str, judged_set: JudgedSet
) -> AsyncIterator[corpus_service_pb2.IngestDocumentsRequest]:
    message = corpus_service_pb2.IngestDocumentsRequest
    yield message(options=corpus_service_pb2.IngestOptions(collection=collection))
    documents = judged_set.documents()
    while (document := await asyncio.to_thread(next, documents, None)) is not None:
        for part in _parts(document):
            yield part


def _parts(document: JudgedDocument) -> Sequence[corpus_service_pb2.IngestDocumentsRequest]:
    message = corpus_service_pb2.IngestDocumentsRequest
    header = corpus_service_pb2.DocumentHeader(
        document_id=document.document_id, title=document.title[:500], media_type="text/plain"
    )
    content = document.text.encode()
    starts = range(0, len(content), _PART_BYTES)
    return [
        message(header=header),
        *(
            message(
                content=corpus_service_pb2.DocumentContent(
                    data=content[start : start + _PART_BYTES],
                    last=start + _PART_BYTES >= len(content),
                )
            )
            for start in starts
        ),
    ]
