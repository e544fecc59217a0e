"""What the rag service needs of models and documents, as its use cases see it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    ToolCall,
    ToolDefinition,
)
from services.rag.core.documents import (
    Vector,
)
from services.rag.core.expansion import Variant
from services.rag.core.options import ExpansionPolicy, OutputFormat
from services.rag.core.passages import (
    RankedPassage,
)
from services.rag.recorder import Recorder

__all__ = [
    "Embedded",
    "Expander",
    "LikelihoodPort",
    "ModelFacts",
    "ModelsPort",
    "Reranker",
    "RerankerUnavailable",
    "ToolModels",
    "WebSearch",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model of the fleet.

    Attributes:
        name: Full name with tag.
        digest: 64 hexadecimal digits.
        generates: Whether it generates text.
        embeds: Whether it turns texts into vectors.
        context_token_count: Tokens it reads at a time; 0 where that is not known.
    """

    name: str
    digest: str
    generates: bool
    embeds: bool
    context_token_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Vectors in the order of their texts.

    Attributes:
        vectors: One per text.
        model_digest: Digest of the model that made them.
        token_count: Tokens that it read; 0 where that is not known.
    """

    vectors: tuple[Vector, ...]
    model_digest: str
    token_count: int = 0


class ModelsPort(Protocol):
    """The balancer service.

    Every method raises `PeerUnavailable` where it cannot be asked, else `RelayedError` with what
    it said.
    """

    async def list_models(self) -> tuple[ModelFacts, ...]:
        """Lists the models of the fleet by name."""
        ...

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
    ) -> Embedded:
        """Turns 1 to 512 texts into vectors; `urgent` where a person waits for it."""
        ...

    def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
        output_format: OutputFormat | None = None,
    ) -> AsyncGenerator[ChatStarted | str | ChatCompleted, None]:
        """Answers a conversation: started, then texts to append, then completed.

        `urgent` where a person waits for it; with an `output_format` the text is JSON.
        """
        ...


class WebSearch(Protocol):
    """Finds passages outside of the documents."""

    async def search(
        self, question: str, recorder: Recorder, *, limit: int, time_limit_seconds: float
    ) -> tuple[RankedPassage, ...]:
        """Returns passages of the web, best first; raises `ServiceError` where it cannot search.

        Args:
            question: The question.
            recorder: Receives the stages.
            limit: Most passages.
            time_limit_seconds: Longest time to take.
        """
        ...


class Expander(Protocol):
    """Words a question in other ways."""

    async def expand(
        self,
        question: str,
        kind: ExpansionPolicy,
        recorder: Recorder,
        *,
        time_limit_seconds: float,
    ) -> tuple[Variant, ...]:
        """Returns other wordings, none where a model cannot give them; that is then a degradation.

        Args:
            question: The question.
            kind: Which wordings; never `NONE`, and `AUTO` stands for `MULTI_QUERY`.
            recorder: Receives the stage and the degradation.
            time_limit_seconds: Longest time to take.
        """
        ...


class LikelihoodPort(Protocol):
    """Says how likely a model is to say something, where that is all one wants to know."""

    async def first_token_logprobs(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        *,
        alternative_count: int,
        time_limit_seconds: float | None = None,
    ) -> Mapping[str, float]:
        """Returns the likeliest first tokens of an answer with their logarithmic probabilities.

        Args:
            model: The model.
            messages: The conversation.
            alternative_count: How many tokens, 1 to 20.
            time_limit_seconds: Longest time to take.

        Raises:
            PeerUnavailable: The balancer cannot be asked.
            RelayedError: It could not have the model answer.
        """
        ...


class ToolModels(Protocol):
    """Models that may ask for tools."""

    def chat_with_tools(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        tools: Sequence[ToolDefinition],
        *,
        time_limit_seconds: float | None = None,
    ) -> AsyncGenerator[ChatStarted | str | tuple[ToolCall, ...] | ChatCompleted, None]:
        """Answers a conversation: started, then texts and calls of tools, then completed.

        Raises:
            PeerUnavailable: The balancer cannot be asked.
            RelayedError: It could not have the model answer; INVALID_ARGUMENT where the model
                cannot ask for tools.
        """
        ...


class RerankerUnavailable(Exception):
    """Passages cannot be judged; the text says why and what to do. It never reaches a caller."""


class Reranker(Protocol):
    """Judges passages by reading them together with the question."""

    @property
    def name(self) -> str:
        """What judges, as it is shown to operators."""
        ...

    async def score(
        self, question: str, texts: Sequence[str], *, time_limit_seconds: float
    ) -> Sequence[float | None]:
        """Returns a logit for each text in their order, None where the time did not suffice.

        The likelihood that a text answers the question is the logistic function of its logit.

        Args:
            question: The question.
            texts: The texts, the most promising first.
            time_limit_seconds: Longest time to take; what is scored by then is returned.

        Raises:
            RerankerUnavailable: It can score nothing.
        """
        ...
