"""Keeping the answer to a question, for all replicas or not at all."""

from dataclasses import dataclass

from services.cache.core.layers import Layer
from services.cache.core.model import Keeping, WriteOutcome
from services.cache.core.savings import Savings
from services.cache.core.semantic.entries import SemanticEntry, answer_version
from services.cache.core.semantic.index import FloatVector
from services.cache.core.semantic.scope import QuestionScope, scope_of
from services.cache.keep import prepare
from services.cache.ports import StoreFailure, StoreRefusal
from services.cache.semantic_layer import SemanticLayer, Where
from services.cache.semantic_store import OtherDimension

__all__ = ["Answered", "SemanticStored", "store_semantic"]

_LAYER = Layer.SEMANTIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question with its answer.

    Attributes:
        where: Its partition.
        query: Its words.
        vector: Its vector of length 1.
        payload: The answer and what it rests on, at most 1 MiB.
        savings: What the answer cost.
        keeping: How to keep it.
    """

    where: Where
    query: str
    vector: FloatVector
    payload: bytes
    savings: Savings
    keeping: Keeping


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticStored:
    """What became of an answer.

    Attributes:
        outcome: Whether it is kept; None where such answers are not.
        entry_id: The entry; empty where the answer is kept nowhere.
        question_scope: Why such answers are not kept.
        degraded: Whether the shared store could not be asked.
    """

    outcome: WriteOutcome | None
    entry_id: str = ""
    question_scope: QuestionScope | None = None
    degraded: bool = False


async def store_semantic(layer: SemanticLayer, answered: Answered) -> SemanticStored:
    """Keeps an answer; a store that is away drops it, which is no error.

    Args:
        layer: Where to keep it.
        answered: What to keep.

    Raises:
        OtherDimension: The partition's vectors have another number of components.
    """
    question_scope = scope_of(answered.query)
    if question_scope is not None:
        return SemanticStored(outcome=None, question_scope=question_scope)
    knowledge = await layer.ready(answered.where)
    if knowledge.degraded:
        return _recorded(layer, answered, WriteOutcome.DROPPED)
    dimension = layer.feed.partition(answered.where.name).dimension
    if dimension not in (None, len(answered.vector)):
        raise OtherDimension(dimension or 0)
    return await _keep(layer, answered)


async def _keep(layer: SemanticLayer, answered: Answered) -> SemanticStored:
    levels, where, keeping = layer.levels, answered.where, answered.keeping
    now_ms = levels.store_now_ms()
    # Who dates his answers ahead of time would make them proof against invalidation.
    created_ms = now_ms if keeping.basis_ms is None else min(keeping.basis_ms, now_ms)
    if not layer.is_valid(where, created_ms, keeping.tags):
        return _recorded(layer, answered, WriteOutcome.INVALIDATED)
    version = answer_version(answered.payload, pepper=levels.pepper)
    entry = SemanticEntry(
        scope=where.scope,
        form=layer.form(where, answered.query),
        version=version,
        question=answered.query,
        created_ms=created_ms,
        expires_ms=now_ms,
        tags=keeping.tags,
        savings=answered.savings,
    )
    # The answer first: nobody finds a question whose answer is not there yet.
    key = layer.answer_key(where, entry)
    write = prepare(
        levels,
        _LAYER,
        key,
        answered.payload,
        scope=where.scope,
        created_ms=created_ms,
        ttl_seconds=keeping.ttl_seconds,
        tags=keeping.tags,
        delta_ms=int(answered.savings.seconds * 1000),
    )
    outcome = WriteOutcome.DROPPED
    taken = await levels.shared.write(_LAYER, [write])
    if taken == [False]:
        outcome = WriteOutcome.REFUSED
    elif taken is not None:
        outcome = await _announce(layer, answered, entry.expiring(now_ms + write.ttl_ms))
    if outcome is not WriteOutcome.STORED:
        levels.local[_LAYER].discard(key.value)
        return _recorded(layer, answered, outcome)
    return _recorded(layer, answered, outcome, entry.entry_id)


async def _announce(layer: SemanticLayer, answered: Answered, entry: SemanticEntry) -> WriteOutcome:
    ttl_ms = entry.expires_ms - layer.levels.store_now_ms()
    try:
        await layer.feed.put(answered.where.name, entry, answered.vector, ttl_ms=max(1, ttl_ms))
    except StoreRefusal:
        return WriteOutcome.REFUSED
    except StoreFailure:
        return WriteOutcome.DROPPED
    return WriteOutcome.STORED


def _recorded(
    layer: SemanticLayer, answered: Answered, outcome: WriteOutcome, entry_id: str = ""
) -> SemanticStored:
    layer.levels.recorder.wrote(_LAYER, [outcome])
    if outcome is WriteOutcome.STORED:
        layer.levels.recorder.generated(_LAYER, answered.savings)
    return SemanticStored(
        outcome=outcome, entry_id=entry_id, degraded=outcome is WriteOutcome.DROPPED
    )
