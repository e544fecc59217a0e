"""How passages are found and how questions are answered."""

from dataclasses import dataclass, field
from enum import Enum

from services.rag.core.conversation import Sampling
from services.rag.core.fusion import FusionMethod

__all__ = ["CachePolicy", "Mode", "Question", "RetrievalOptions"]


class Mode(Enum):
    """How a question is answered; the values label metrics."""

    DIRECT = "direct"
    RAG = "rag"


class CachePolicy(Enum):
    """What may come from the cache."""

    USE = "use"
    BYPASS = "bypass"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalOptions:
    """How passages are found.

    Attributes:
        passage_count: Passages to return, 1 to 50.
        candidate_count: Candidates of each arm, 1 to 500.
        fusion: How the arms are merged.
        vector_weight_ratio: Weight of meaning in convex fusion, 0 to 1.
    """

    passage_count: int = 8
    candidate_count: int = 100
    fusion: FusionMethod = FusionMethod.CONVEX
    vector_weight_ratio: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and how it is to be answered.

    Attributes:
        collection: Where to look; empty in mode DIRECT.
        text: The question.
        mode: How to answer.
        retrieval: How passages are found.
        model: Model that answers; empty for the default.
        sampling: How tokens are chosen; None is filled with the service's defaults.
        cache_policy: What may come from the cache.
    """

    collection: str
    text: str
    mode: Mode = Mode.RAG
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    cache_policy: CachePolicy = CachePolicy.USE
