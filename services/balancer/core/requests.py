"""Requests to the fleet and what comes back of them."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from services.balancer.core.selection import Reason

__all__ = [
    "Completed",
    "Completion",
    "EmbeddingReply",
    "EmbeddingRequest",
    "EmbeddingResult",
    "FinishReason",
    "GenerationRequest",
    "Message",
    "Operation",
    "Role",
    "Sampling",
    "Started",
    "TextDelta",
    "Vectors",
]

Vectors = NDArray[np.float32]
"""Vectors of unit length, one per row."""


class Operation(Enum):
    """What is asked for; the values serve as labels of metrics."""

    GENERATE = "generate"
    CHAT = "chat"
    EMBED = "embed"


class Role(Enum):
    """Who speaks, by Ollama's names."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(Enum):
    """Why a generation ended, by Ollama's names."""

    STOP = "stop"
    LENGTH = "length"
    OTHER = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; None leaves a choice to the model's own default.

    Attributes:
        temperature: Randomness, [0, 2].
        top_p: Probability mass considered, (0, 1].
        top_k: Tokens considered, at least 1.
        seed: Seed of the random choice.
        max_output_token_count: Most tokens to generate, at least 1.
        context_token_count: Context window, at least 256.
        stop_sequences: Texts that end the answer.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_output_token_count: int | None = None
    context_token_count: int | None = None
    stop_sequences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Asks for text: the continuation of a prompt, or the next message of a conversation.

    Attributes:
        operation: GENERATE or CHAT.
        model: Name as the caller wrote it.
        prompt: What to continue; empty with CHAT.
        system: System prompt that replaces the model's own; empty with CHAT.
        messages: The conversation; empty with GENERATE.
        sampling: How tokens are chosen.
    """

    operation: Operation
    model: str
    prompt: str = ""
    system: str = ""
    messages: tuple[Message, ...] = ()
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Asks for the vectors of texts.

    Attributes:
        model: Name as the caller wrote it.
        texts: The texts, at least one.
    """

    model: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text to append to what came before; may be empty."""

    text: str


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
class Started:
    """A backend has produced its first token.

    Attributes:
        model: Full name of the model that serves.
        model_digest: Its digest; empty where the backend was never reached before.
        backend_id: Who serves.
        attempt_count: Backends tried.
        reason: Why this one.
    """

    model: str
    model_digest: str
    backend_id: str
    attempt_count: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A generation is complete.

    Attributes:
        completion: What the backend said at the end.
        total_seconds: From the request's arrival until the last byte.
        first_token_seconds: From the request's arrival until the first token.
    """

    completion: Completion
    total_seconds: float
    first_token_seconds: float


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
    """

    vectors: Vectors
    model: str
    model_digest: str
    backend_id: str
    attempt_count: int
    prompt_token_count: int
