"""What the rag service needs of the cache, as its use cases see it.

Every method raises `PeerUnavailable` where the cache cannot be asked, whatever the cause; the work
is then done without it.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from services.rag.core.conversation import ChatMessage, Sampling, TokenUsage
from services.rag.core.documents import Vector
from services.rag.core.invalidation import Invalidation
from services.rag.core.options import OutputFormat

__all__ = [
    "MOST_DEPENDENCIES",
    "CachePort",
    "CachedInference",
    "ChunkSpan",
    "Dependencies",
    "EmbeddingLookups",
    "Failure",
    "FailureKind",
    "Fill",
    "FillInterrupted",
    "InferenceKey",
    "InferenceLookup",
]

MOST_DEPENDENCIES = 15
"""Documents that can be noted with a value: the cache takes 16 tags, one is the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceKey:
    """Everything that decides what a model answers, and the compartment of the cache."""

    model_digest: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    output_format: OutputFormat | None = None
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedInference:
    """A complete answer of a model.

    Attributes:
        text: The answer.
        finish_reason: `stop` or `length`.
        usage: Tokens it cost.
        generation_seconds: How long it took.
    """

    text: str
    finish_reason: str
    usage: TokenUsage
    generation_seconds: float


class FailureKind(Enum):
    """Why a computation came to nothing."""

    TRANSIENT = "transient"
    MODEL_NOT_FOUND = "model_not_found"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A computation that is known to fail.

    Attributes:
        kind: What kind of failure it was.
        message: What to tell those who ask.
        remaining_seconds: How long it is still remembered.
    """

    kind: FailureKind
    message: str
    remaining_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceLookup:
    """What the cache knows of a prompt.

    Attributes:
        outcome: `hit_local`, `hit_shared`, `hit_coalesced`, `hit_negative`, `miss` or `bypassed`.
        inference: The answer on a hit, unless it is streamed.
        degraded: Whether the shared store could not be asked.
        lease: On a miss, the right to compute the answer; on a hit, the wish to compute it anew.
        failure: On a negative hit, why there is no answer.
        read_time_ns: When this was looked up, by the store's clock, nanoseconds since 1970; None
            where that is not known.
        must_be_anew: Whether the answer depends on when or by whom it is asked for, so that none
            is looked up, and none may be kept.
    """

    outcome: str
    inference: CachedInference | None = None
    degraded: bool = False
    lease: str = ""
    failure: Failure | None = None
    read_time_ns: int | None = None
    must_be_anew: bool = False

    @property
    def is_hit(self) -> bool:
        """Whether there is an answer."""
        return self.outcome in ("hit_local", "hit_shared", "hit_coalesced")


@dataclass(frozen=True, slots=True)
class FillInterrupted:
    """Whoever computed the answer has failed; with a lease this caller is to do it."""

    lease: str = ""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a value was made from.

    Attributes:
        collection: The collection; empty for none.
        document_ids: Documents of it, the most important ones first.
        question_digest: The question, where its answers are to be forgotten together.
    """

    collection: str = ""
    document_ids: tuple[str, ...] = ()
    question_digest: str = ""

    @property
    def may_be_kept(self) -> bool:
        """Whether the cache can note them all; else it would not see each of them change."""
        return len(set(self.document_ids)) <= MOST_DEPENDENCIES


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingLookups:
    """What the cache knows of texts, in their order; None where it knows nothing."""

    vectors: tuple[Vector | None, ...]
    outcome: str
    degraded: bool


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """Where a chunk lies in a document's stored text."""

    char_start: int
    char_end: int
    heading_path: tuple[str, ...]
    token_estimate: int


class Fill(Protocol):
    """An answer handed to the cache while it is generated; only `commit` waits for the cache."""

    def send(self, text: str) -> None:
        """Hands over text to append to what came before."""
        ...

    async def commit(self, inference: CachedInference) -> bool:
        """Says that the answer is complete.

        Returns:
            Whether it counts; not where the lease was lost meanwhile.
        """
        ...

    def hand_over(self, inference: CachedInference) -> None:
        """Says that the answer is complete, for those who wait for it, and not worth keeping."""
        ...

    def abort(self, failure: Failure) -> None:
        """Says that there is no answer, for others to know."""
        ...

    def discard(self) -> None:
        """Gives the lease back; does nothing after an end."""
        ...


class CachePort(Protocol):
    """The layers that are asked with exactly what was computed: embeddings, inferences, chunks."""

    async def lookup_embeddings(self, model_digest: str, texts: Sequence[str]) -> EmbeddingLookups:
        """Looks up the vectors of 1 to 512 texts."""
        ...

    async def store_embeddings(
        self, model_digest: str, texts: Sequence[str], vectors: Sequence[Vector]
    ) -> None:
        """Keeps the vectors of texts."""
        ...

    async def lookup_inference(
        self,
        key: InferenceKey,
        *,
        mode: str,
        wait_seconds: float,
        questions: Sequence[str] = (),
    ) -> InferenceLookup:
        """Looks up an answer; on a miss waits for whoever computes it, or gives a lease.

        Args:
            key: What decides the answer.
            mode: Label that the lookup is counted under.
            wait_seconds: Longest wait.
            questions: What a person asks with it, for `must_be_anew`; at most 8, each of 1 to
                8,000 characters.
        """
        ...

    async def bypass_inference(
        self, key: InferenceKey, *, mode: str, questions: Sequence[str] = ()
    ) -> InferenceLookup:
        """Looks nowhere; says what time it is for an answer computed from now on."""
        ...

    def stream_inference(
        self,
        key: InferenceKey,
        *,
        mode: str,
        wait_seconds: float,
        time_limit_seconds: float | None,
        questions: Sequence[str] = (),
    ) -> AsyncGenerator[InferenceLookup | str | CachedInference | FillInterrupted, None]:
        """Does the same and gives the text as it comes.

        First what the lookup came to; on a hit then texts to append, and last the whole answer or
        the interruption.
        """
        ...

    def fill_inference(
        self,
        key: InferenceKey,
        lease: str,
        dependencies: Dependencies | None,
        *,
        basis_time_ns: int | None,
    ) -> Fill:
        """Begins to hand over an answer; never raises.

        Args:
            key: What it is the answer to.
            lease: The right to compute it.
            dependencies: What it is made from, such as may be kept.
            basis_time_ns: `read_time_ns` of a lookup from before it was made.
        """
        ...

    async def store_inference(
        self,
        key: InferenceKey,
        inference: CachedInference,
        dependencies: Dependencies | None,
        *,
        basis_time_ns: int | None,
    ) -> None:
        """Keeps a complete answer that was computed without a lease; see `fill_inference`."""
        ...

    async def lookup_chunks(
        self, content_digest: str, fingerprint: str
    ) -> tuple[ChunkSpan, ...] | None:
        """Looks up how a content was cut; None where that is not known."""
        ...

    async def store_chunks(
        self,
        content_digest: str,
        fingerprint: str,
        spans: Sequence[ChunkSpan],
        dependencies: Dependencies,
    ) -> None:
        """Keeps how a content was cut."""
        ...

    async def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        """Makes what depends on 1 to 64 changes of documents unreadable."""
        ...

    async def forget_answers(self, question_digest: str) -> None:
        """Makes all answers to a question unreadable, however they were made."""
        ...
