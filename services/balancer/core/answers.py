"""What comes back of requests to the fleet."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from services.balancer.core.plan import Reason

__all__ = [
    "Completed",
    "Completion",
    "Delta",
    "EmbeddingReply",
    "EmbeddingResult",
    "FinishReason",
    "LogprobsDelta",
    "PullProgress",
    "Resumed",
    "Started",
    "TextDelta",
    "ThinkingDelta",
    "TokenLogprob",
    "ToolCall",
    "ToolCallsDelta",
    "Vectors",
]

Vectors = NDArray[np.float32]
"""Vectors of unit length, one per row."""


class FinishReason(Enum):
    """Why a generation ended, by Ollama's names."""

    STOP = "stop"
    LENGTH = "length"
    OTHER = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A model's wish to have a tool called.

    Attributes:
        id: Id of the call; empty where the model gives none.
        name: Name of the tool.
        arguments_json: The arguments, an object as JSON text.
    """

    id: str = ""
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text to append to what came before; may be empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """Thought to append to what was thought before."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallsDelta:
    """Tools that the model asks for, in its order."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """How likely a token was.

    Attributes:
        token: Its text.
        logprob: Natural logarithm of its probability, at most 0.
        token_bytes: Its bytes.
        top: The most likely tokens in its place, the likeliest first; they have none themselves.
    """

    token: str
    logprob: float
    token_bytes: bytes
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class LogprobsDelta:
    """Probabilities of the tokens of the deltas before, one entry per token."""

    tokens: tuple[TokenLogprob, ...]


Delta = TextDelta | ThinkingDelta | ToolCallsDelta | LogprobsDelta
"""A part of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The last word of a backend on a generation.

    Attributes:
        finish_reason: Why it ended.
        prompt_token_count: Tokens of the prompt.
        output_token_count: Tokens generated.
        load_seconds: Until the model was there.
        prompt_seconds: Reading the prompt.
        output_seconds: Generating.
    """

    finish_reason: FinishReason
    prompt_token_count: int
    output_token_count: int
    load_seconds: float
    prompt_seconds: float
    output_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingReply:
    """What a backend returned for texts.

    Attributes:
        vectors: One row per text.
        prompt_token_count: Tokens read.
        load_seconds: Until the model was there.
    """

    vectors: Vectors
    prompt_token_count: int
    load_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """A step of a download.

    Attributes:
        status: What the backend says that it does.
        digest: Digest of the part being downloaded; empty where none is.
        completed_bytes: Bytes of the part that are there.
        total_bytes: Bytes of the part.
    """

    status: str
    digest: str = ""
    completed_bytes: int = 0
    total_bytes: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether this is the last step, and the model is there."""
        return self.status == "success"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A backend has produced its first token.

    Attributes:
        model: Full name of the model that serves.
        model_digest: Its digest; empty where the backend was never reached before.
        backend_id: Who serves.
        attempt_count: Backends tried.
        reason: Why this one.
        decision_id: Id of the decision.
        queue_seconds: How long the request waited in the queue.
        predicted_first_token_seconds: From the request's arrival, as predicted.
        context_token_count: Context window that the model has there; 0 where not known.
    """

    model: str
    model_digest: str
    backend_id: str
    attempt_count: int
    reason: Reason
    decision_id: str = ""
    queue_seconds: float = 0.0
    predicted_first_token_seconds: float = 0.0
    context_token_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Another backend goes on where the one before broke off.

    Attributes:
        backend_id: Who goes on.
        emitted_character_count: Characters of text passed on before.
        cause: What happened to the backend before.
    """

    backend_id: str
    emitted_character_count: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A generation is complete.

    Attributes:
        completion: What the backend said at the end.
        total_seconds: From the request's arrival until the last byte.
        first_token_seconds: From the request's arrival until the first token.
        queue_seconds: How long the request waited in the queue, over all attempts.
    """

    completion: Completion
    total_seconds: float
    first_token_seconds: float
    queue_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingResult:
    """The vectors of all texts of a request.

    Attributes:
        vectors: One row per text, in their order.
        model: Full name of the model that served.
        model_digest: Its digest; empty where the backend was never reached before.
        backend_id: Who served the first text.
        attempt_count: Most backends tried for any of the texts.
        prompt_token_count: Tokens read.
        backend_ids: Who served any of them, sorted.
        duplicate_text_count: Texts that occurred more than once and were computed once.
        decision_ids: The planner's decisions that sent the texts to their backends.
    """

    vectors: Vectors
    model: str
    model_digest: str
    backend_id: str
    attempt_count: int
    prompt_token_count: int
    backend_ids: tuple[str, ...] = ()
    duplicate_text_count: int = 0
    decision_ids: tuple[str, ...] = ()
