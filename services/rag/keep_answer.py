"""Keeps an answer in the semantic cache, with all that would make it wrong."""

from services.common.errors import PeerUnavailable
from services.rag.cache_port import Dependencies
from services.rag.core.answer import Answer
from services.rag.core.documents import Vector
from services.rag.core.reuse import evidence_of, is_worth_keeping, question_digest
from services.rag.semantic_port import SemanticCachePort, SemanticPartition
from services.rag.task import AnswerTask

__all__ = ["keep_answer"]


async def keep_answer(
    cache: SemanticCachePort,
    partition: SemanticPartition,
    task: AnswerTask,
    answer: Answer,
    vector: Vector,
    *,
    basis_time_ns: int,
) -> str:
    """Keeps a new answer for others, if it is good enough.

    Args:
        cache: Where.
        partition: Who shares it.
        task: The question.
        answer: The answer.
        vector: The question's embedding.
        basis_time_ns: `read_time_ns` of a lookup from before the answer was made.

    Returns:
        Its entry; empty where it is not kept.
    """
    if not task.may_keep or task.is_coalesced or not is_worth_keeping(answer, reasons=task.reasons):
        return ""
    evidence = evidence_of(answer)
    documents = (
        *(each.document_id for each in evidence),
        *(each.passage.document_id for each in answer.passages),
    )
    dependencies = Dependencies(
        task.question.collection, documents, question_digest(task.question.text)
    )
    if not dependencies.may_be_kept:
        return ""
    with task.recorder.stage("semantic_store") as stage:
        try:
            return await cache.store(
                partition,
                task.question.text,
                vector,
                answer,
                warnings=task.recorder.warnings,
                evidence=evidence,
                dependencies=dependencies,
                basis_time_ns=basis_time_ns,
            )
        except PeerUnavailable:
            stage.failed = True
            task.lose_cache("semantic_store")
            return ""
