"""A finished answer and the events on the way to it."""

from dataclasses import dataclass, field
from enum import Enum

from services.rag.core.citations import Citation
from services.rag.core.conversation import TokenUsage
from services.rag.core.options import Mode
from services.rag.core.passages import RankedPassage
from services.rag.core.quality import Quality
from services.rag.core.retrieved import Confidence
from services.rag.core.tools import ToolExecution
from services.rag.core.verification import SentenceSupport

__all__ = ["Answer", "AnswerEvent", "AnswerOrigin", "EarlierQuestion", "PassagesFound"]


class AnswerOrigin(Enum):
    """How an answer came about."""

    GENERATED = "generated"
    CACHED = "cached"
    CACHED_SIMILAR = "cached_similar"
    EXTRACTIVE = "extractive"
    NO_MATCH = "no_match"
    REFUSED = "refused"

    @property
    def is_given_again(self) -> bool:
        """Whether the answer was made for an earlier question."""
        return self in (AnswerOrigin.CACHED, AnswerOrigin.CACHED_SIMILAR)


@dataclass(frozen=True, slots=True)
class PassagesFound:
    """The passages an answer will be made from, in the order of their markers."""

    passages: tuple[RankedPassage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierQuestion:
    """The question that an answer was first given to.

    Attributes:
        text: The question.
        similarity: Cosine similarity to the one asked, -1 to 1; 1 for the same words.
        age_seconds: Time since the answer was made.
    """

    text: str
    similarity: float
    age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished answer.

    Attributes:
        text: The answer.
        citations: What it stands on.
        passages: What it was made from; the first has marker 1.
        origin: How it came about.
        mode: How it was asked for.
        model: Full name of the model; empty where none answered.
        backend_id: Backend that generated it now; empty where none did.
        finish_reason: `stop`, `length`, or empty where no model answered.
        usage: Tokens it cost when it was generated.
        generation_seconds: How long it took when it was generated.
        earlier: Where it was found by its question, what that was.
        sentences: What checking it against its sources found, in order.
        quality: How good it is; None in mode DIRECT.
        confidence: How likely its passages hold the answer; None where none were looked for now.
        rewritten_query: The question as it was understood; empty where it was taken as it is.
        expansions: Other wordings that were searched for as well.
        tool_executions: Tools that a model asked for on the way, in the order they ended.
    """

    text: str
    citations: tuple[Citation, ...] = ()
    passages: tuple[RankedPassage, ...] = ()
    origin: AnswerOrigin
    mode: Mode
    model: str = ""
    backend_id: str = ""
    finish_reason: str = ""
    usage: TokenUsage = field(default_factory=TokenUsage)
    generation_seconds: float = 0.0
    earlier: EarlierQuestion | None = None
    sentences: tuple[SentenceSupport, ...] = ()
    quality: Quality | None = None
    confidence: Confidence | None = None
    rewritten_query: str = ""
    expansions: tuple[str, ...] = ()
    tool_executions: tuple[ToolExecution, ...] = ()


AnswerEvent = PassagesFound | str | Citation | Answer
"""Passages at most once, then texts to append and citations, then the answer."""
