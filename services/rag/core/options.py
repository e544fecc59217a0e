"""How passages are found and how questions are answered."""

from dataclasses import dataclass, field
from enum import Enum

from services.rag.core.conversation import Sampling
from services.rag.core.filters import ANYONE, Access, DocumentFilter
from services.rag.core.fusion import FusionMethod

__all__ = [
    "AnswerPolicy",
    "CachePolicy",
    "ExpansionPolicy",
    "Mode",
    "OutputFormat",
    "Question",
    "RerankPolicy",
    "RetrievalOptions",
    "SearchArms",
    "Turn",
    "WebPolicy",
]


class Mode(Enum):
    """How a question is answered; the values label metrics."""

    DIRECT = "direct"
    RAG = "rag"
    DEEP = "deep"
    AGENT = "agent"


class SearchArms(Enum):
    """How passages are searched for."""

    HYBRID = "hybrid"
    VECTOR = "vector"
    KEYWORD = "keyword"


class RerankPolicy(Enum):
    """Whether a cross-encoder orders the best candidates."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class ExpansionPolicy(Enum):
    """Whether other wordings of the question are searched for as well."""

    AUTO = "auto"
    NONE = "none"
    MULTI_QUERY = "multi_query"
    HYDE = "hyde"
    STEP_BACK = "step_back"
    DECOMPOSE = "decompose"


class AnswerPolicy(Enum):
    """What an answer may stand on."""

    GROUNDED_ONLY = "grounded_only"
    ALLOW_MODEL_KNOWLEDGE = "allow_model_knowledge"
    EXTRACTIVE = "extractive"


class WebPolicy(Enum):
    """Whether the web is searched."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


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
        filter: Which documents count.
        access: Which documents the caller may read.
        arms: How passages are searched for.
        rerank: Whether a cross-encoder orders the best candidates.
        expansion: Whether other wordings are searched for as well.
        relevance_weight_ratio: Weight of relevance against variety, 0 to 1; None: near duplicates
            are left out and nothing else.
        merge_neighbors: Whether passages that follow each other in a document are joined.
        prefer_recent: Whether newer documents come first among equals.
    """

    passage_count: int = 8
    candidate_count: int = 100
    fusion: FusionMethod = FusionMethod.CONVEX
    vector_weight_ratio: float = 0.5
    filter: DocumentFilter = field(default_factory=DocumentFilter)
    access: Access = ANYONE
    arms: SearchArms = SearchArms.HYBRID
    rerank: RerankPolicy = RerankPolicy.AUTO
    expansion: ExpansionPolicy = ExpansionPolicy.AUTO
    relevance_weight_ratio: float | None = None
    merge_neighbors: bool = True
    prefer_recent: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The form of an answer: JSON, and following a schema where one is given as JSON text."""

    json_schema: str = ""


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
        answer_policy: What the answer may stand on.
        web: Whether the web is searched.
        output_format: Form of the answer; None for text with citations.
        history: What was said before, oldest first.
        shows_passage_texts: Whether the caller wants to see the passages' texts.
    """

    collection: str
    text: str
    mode: Mode = Mode.RAG
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    model: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    cache_policy: CachePolicy = CachePolicy.USE
    answer_policy: AnswerPolicy = AnswerPolicy.GROUNDED_ONLY
    web: WebPolicy = WebPolicy.AUTO
    output_format: OutputFormat | None = None
    history: tuple[Turn, ...] = ()
    shows_passage_texts: bool = True
