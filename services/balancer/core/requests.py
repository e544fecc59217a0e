"""Requests to the fleet, together with what comes back of them."""

from dataclasses import dataclass
from enum import Enum

from services.balancer.core.answers import (
    Completed,
    Completion,
    Delta,
    EmbeddingReply,
    EmbeddingResult,
    FinishReason,
    LogprobsDelta,
    PullProgress,
    Resumed,
    Started,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    ToolCallsDelta,
    Vectors,
)
from services.balancer.core.demand import Priority

__all__ = [
    "Completed",
    "Completion",
    "Delta",
    "EmbeddingReply",
    "EmbeddingRequest",
    "EmbeddingResult",
    "FinishReason",
    "GenerationRequest",
    "LogprobsDelta",
    "Message",
    "Operation",
    "OutputFormat",
    "PullProgress",
    "Resumed",
    "Role",
    "Routing",
    "Sampling",
    "Started",
    "TextDelta",
    "Thinking",
    "ThinkingDelta",
    "TokenLogprob",
    "ToolCall",
    "ToolCallsDelta",
    "ToolDefinition",
    "Vectors",
    "can_resume",
]

# Above it the rest of an answer owes too little to its beginning to be taken for the same answer.
_HIGHEST_RESUMABLE_TEMPERATURE = 1.0


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
    TOOL = "tool"


class Thinking(Enum):
    """Whether a model that can is to think first, by Ollama's values; None leaves it to it."""

    DEFAULT = None
    OFF = False
    ON = True
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    MAX = "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDefinition:
    """A tool that a model may ask for.

    Attributes:
        name: Its name.
        description: What it does; may be empty.
        parameters_json_schema: JSON Schema of its arguments, an object as JSON text.
    """

    name: str
    description: str = ""
    parameters_json_schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: What is said; may be empty beside images or tool calls.
        images: Pictures that belong to it, PNG or JPEG files.
        thinking: What the model thought before; with ASSISTANT only.
        tool_calls: Tools the model asked for; with ASSISTANT only.
        tool_name: Tool that the content is the result of; with TOOL only.
        tool_call_id: Call that the content is the result of; with TOOL only.
    """

    role: Role
    content: str
    images: tuple[bytes, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; None leaves a choice to the model's own default.

    Attributes:
        temperature: Randomness, [0, 2].
        top_p: Probability mass considered, (0, 1].
        top_k: Tokens considered, at least 1.
        min_p: Least probability relative to the likeliest token, [0, 1].
        seed: Seed of the random choice.
        max_output_token_count: Most tokens to generate, at least 1.
        context_token_count: Context window that the request needs, at least 256; what a backend
            is told is decided by who sends the request there.
        stop_sequences: Texts that end the answer.
        repeat_penalty: How strongly repeated tokens are made less likely, [0, 10].
        repeat_last_token_count: How many last tokens count as repeated, at least -1 for all.
        presence_penalty: What a token loses that occurred at all, [-2, 2].
        frequency_penalty: What a token loses for each time it occurred, [-2, 2].
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    max_output_token_count: int | None = None
    context_token_count: int | None = None
    stop_sequences: tuple[str, ...] = ()
    repeat_penalty: float | None = None
    repeat_last_token_count: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The form an answer must have: JSON.

    Attributes:
        json_schema: JSON Schema that it follows, an object as JSON text; empty for any JSON.
    """

    json_schema: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How a request is to be treated.

    Attributes:
        priority: Who goes first.
        model_digest: The one variant of the model that will do; None where any does.
        resume: Whether another backend is to go on where one broke off after its first token.
        maximum_wait_seconds: Longest predicted wait that the caller accepts; None for any.
    """

    priority: Priority = Priority.INTERACTIVE
    model_digest: str | None = None
    resume: bool = False
    maximum_wait_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Asks for text: the continuation of a prompt, or the next message of a conversation.

    Attributes:
        operation: GENERATE or CHAT.
        model: Name as the caller wrote it.
        prompt: What to continue; empty with CHAT.
        system: System prompt that replaces the model's own; empty with CHAT.
        suffix: What follows the place to fill in; empty with CHAT.
        raw: Whether the prompt goes to the model without its template; not with CHAT.
        images: Pictures that belong to the prompt, PNG or JPEG files; empty with CHAT.
        messages: The conversation; empty with GENERATE.
        tools: Tools that the model may ask for; empty with GENERATE.
        sampling: How tokens are chosen.
        output_format: What form the answer must have; None for any.
        thinking: Whether the model is to think first.
        top_logprob_count: How many alternatives to report for each token, [0, 20]; None for no
            report at all.
        routing: How the request is to be treated.
    """

    operation: Operation
    model: str
    prompt: str = ""
    system: str = ""
    suffix: str = ""
    raw: bool = False
    images: tuple[bytes, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
    sampling: Sampling = Sampling()
    output_format: OutputFormat | None = None
    thinking: Thinking = Thinking.DEFAULT
    top_logprob_count: int | None = None
    routing: Routing = Routing()


def can_resume(request: GenerationRequest) -> bool:
    """Tells whether another backend may go on where one broke off, as far as the request says.

    The caller must have asked for it, and a beginning of the answer must be something that a model
    can go on from: a parser of tool calls or thoughts, or a grammar, would begin afresh. A model
    that was left the choice may have thought all the same, which only its answer shows.
    """
    sampling = request.sampling
    return (
        request.routing.resume
        and (request.raw or request.operation is Operation.CHAT)
        and not request.tools
        and not request.suffix
        and request.output_format is None
        and request.thinking in (Thinking.DEFAULT, Thinking.OFF)
        and (sampling.temperature or 0.0) <= _HIGHEST_RESUMABLE_TEMPERATURE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Asks for the vectors of texts.

    Attributes:
        model: Name as the caller wrote it.
        texts: The texts, at least one.
        dimension: Length to cut the vectors to, at least 1; None leaves them whole.
        routing: How the request is to be treated; `resume` means nothing.
    """

    model: str
    texts: tuple[str, ...]
    dimension: int | None = None
    routing: Routing = Routing()
