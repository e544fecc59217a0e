"""What is said to a model and what comes back."""

from dataclasses import dataclass

__all__ = [
    "ChatCompleted",
    "ChatMessage",
    "ChatStarted",
    "Sampling",
    "TokenUsage",
    "ToolCall",
    "ToolDefinition",
]


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that a model may ask for; the parameters are a JSON Schema as JSON text."""

    name: str
    description: str
    parameters_json_schema: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to have a tool called, with the arguments as JSON text."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        content: What is said.
        tool_calls: Tools that an assistant asked for.
        tool_name: Tool that the content of a `tool` is the result of.
        tool_call_id: Id of the call that it is the result of.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; None leaves it to the model.

    Attributes:
        temperature: Randomness, 0 to 2.
        top_p: Probability mass considered, above 0 to 1.
        top_k: Tokens considered, at least 1.
        seed: Seed of the random choice.
        max_output_token_count: Most tokens to generate.
        context_token_count: Context window in tokens.
        stop_sequences: Texts that end the answer.
        min_p: Least probability relative to the likeliest token, 0 to 1.
        repeat_penalty: How strongly repeated tokens are made less likely, 0 to 10.
        repeat_last_token_count: How many last tokens count as repeated, -1 for all.
        presence_penalty: What a token loses that occurred at all, -2 to 2.
        frequency_penalty: What a token loses for each time it occurred, -2 to 2.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_output_token_count: int | None = None
    context_token_count: int | None = None
    stop_sequences: tuple[str, ...] = ()
    min_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_token_count: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens read and generated."""

    prompt_token_count: int = 0
    completion_token_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatStarted:
    """The first token has come; says who answers."""

    model: str
    model_digest: str
    backend_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompleted:
    """The answer is complete; `finish_reason` is `stop` or `length`."""

    finish_reason: str
    usage: TokenUsage
    generation_seconds: float
