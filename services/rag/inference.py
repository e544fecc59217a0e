"""One prompt on its way to an answer."""

from dataclasses import dataclass

from services.rag.cache_port import CachedInference, Dependencies, InferenceKey, InferenceLookup
from services.rag.core.draft import Draft
from services.rag.core.passages import PassageOrigin
from services.rag.core.query_record import CacheEntry
from services.rag.core.reuse import question_digest
from services.rag.generation import known_failure
from services.rag.ports import ModelFacts
from services.rag.task import AnswerTask
from services.rag.worth import Worth

__all__ = ["Inference", "dependencies_of", "limit_seconds"]

_RESERVE_SECONDS = 0.5
_RESERVE_RATIO = 0.25


@dataclass(slots=True, kw_only=True)
class Inference:
    """One prompt on its way to an answer.

    Attributes:
        task: The question it belongs to.
        model: The model, as the fleet lists it.
        key: What decides the answer.
        draft: The answer so far, as far as it was passed on.
        dependencies: What the prompt was made from.
        worth: What the answer is worth to others, once it was checked.
        lease: The right to compute the answer, as long as nothing makes use of it; else empty.
        found: The answer of the cache, once it is complete.
        is_interrupted: Whether the one who was computing it has failed.
    """

    task: AnswerTask
    model: ModelFacts
    key: InferenceKey
    draft: Draft
    dependencies: Dependencies
    worth: Worth
    lease: str = ""
    found: CachedInference | None = None
    is_interrupted: bool = False

    @property
    def may_be_kept(self) -> bool:
        """Whether the cache would see each document change that the answer is made from."""
        return self.dependencies.may_be_kept

    def take_lease(self) -> str:
        """Hands the lease over to whoever makes use of it or gives it back."""
        lease, self.lease = self.lease, ""
        return lease

    def note_kept(self) -> None:
        """Notes that the cache has the answer, for when its user finds it wrong."""
        recorder = self.task.recorder
        if recorder.cache_entry is None:
            recorder.cache_entry = CacheEntry(question_digest=self.dependencies.question_digest)

    def note(self, lookup: InferenceLookup) -> None:
        """Takes over what a lookup came to.

        Raises:
            RelayedError: It is known that there will be no answer.
        """
        self.lease = lookup.lease
        self.task.note_read_time(lookup.read_time_ns)
        self.task.must_be_anew |= lookup.must_be_anew
        self.task.is_coalesced = lookup.outcome == "hit_coalesced"
        if lookup.degraded:
            self.task.lose_cache("inference_lookup", entirely=False)
        if lookup.failure is not None:
            raise known_failure(lookup.failure, self.model.name)


def dependencies_of(task: AnswerTask, draft: Draft) -> Dependencies:
    """Returns what the prompt of a draft is made from."""
    documents = tuple(
        each.passage.document_id
        for each in draft.passages
        if each.passage.origin is PassageOrigin.CORPUS
    )
    return Dependencies(
        task.question.collection if documents else "",
        documents,
        question_digest(task.question.text),
    )


def limit_seconds(remaining_seconds: float | None) -> float | None:
    """Leaves time before the caller's deadline to end the answer, or to find another."""
    if remaining_seconds is None:
        return None
    return remaining_seconds - min(_RESERVE_SECONDS, remaining_seconds * _RESERVE_RATIO)
