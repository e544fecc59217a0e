"""What the rag service needs of the cache of answers to questions, as its use cases see it.

As in `cache_port`, every method raises `PeerUnavailable` where the cache cannot be asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from services.rag.cache_port import Dependencies
from services.rag.core.answer import Answer
from services.rag.core.documents import Vector
from services.rag.core.reuse import Evidence, ReusableAnswer, Verdict

__all__ = [
    "EntryReference",
    "Judge",
    "SemanticCachePort",
    "SemanticLookup",
    "SemanticMatch",
    "SemanticPartition",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticPartition:
    """What must be equal before two questions may share an answer; see the proto."""

    embedding_model_digest: str
    model_digest: str
    access_fingerprint: str
    configuration_fingerprint: str
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticMatch:
    """A kept answer that a question matches.

    Attributes:
        entry_id: The entry.
        query: The question it is the answer to.
        similarity: Cosine similarity of the questions; 1 for the same words.
        answer: The answer.
        age_seconds: Time since it was made.
        verification_wanted: Whether the answer is asked for anew, to see whether they agree.
    """

    entry_id: str
    query: str
    similarity: float
    answer: ReusableAnswer
    age_seconds: float
    verification_wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticLookup:
    """What the cache knows of a question.

    Attributes:
        outcome: `hit_exact`, `hit_similar`, `candidate`, `miss` or `bypassed`.
        match: The answer on a hit or a candidate.
        read_time_ns: Time of the lookup by the cache's clock; None where it is not known.
        degraded: Whether the shared store could not be asked.
        must_be_anew: Whether the answer depends on when or by whom the question is asked.
    """

    outcome: str
    match: SemanticMatch | None = None
    read_time_ns: int | None = None
    degraded: bool = False
    must_be_anew: bool = False


class Judge(Enum):
    """Who says whether a match was right."""

    EVIDENCE = "evidence"
    RECOMPUTATION = "recomputation"
    PERSON = "person"


class EntryReference(Protocol):
    """Names a kept answer."""

    @property
    def entry_id(self) -> str:
        """The entry."""
        ...

    @property
    def similarity(self) -> float:
        """Cosine similarity of its question to the one asked; 1 for the same words."""
        ...


class SemanticCachePort(Protocol):
    """The layer that is asked with a question."""

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
        """Looks up the answer to a question, with a vector to one like it.

        Args:
            partition: Where to look.
            query: The question.
            vector: Its embedding; without it the question's words must be the same.
            vector_follows: Whether the same is looked up with the vector if nothing is found.
            mode: Label that the lookup is counted under.
            collection: Where the answer comes from.
            bypass: Whether to learn the cache's time only.
        """
        ...

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
        """Keeps the answer to a question, and returns the entry; empty where it is not kept.

        Args:
            partition: Where it belongs.
            query: The question.
            vector: Its embedding.
            answer: The answer.
            warnings: What a careful reader should know of it.
            evidence: What it cites.
            dependencies: What it was made from.
            basis_time_ns: The cache's time before anything was read for it.
        """
        ...

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
        ...
