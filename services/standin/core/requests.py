"""The bodies of `/api/generate`, `/api/chat`, `/api/embed` and `/api/embeddings`, checked."""

from dataclasses import dataclass
from typing import Any

from services.standin.core.decode import DecodeError, Fields, clean_text, decode_object
from services.standin.core.times import parse_keep_alive

_THINK_LEVELS = {"low", "medium", "high", "max"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """A request for an answer.

    Args:
        model: The model as the client wrote it.
        messages: The conversation; of a generate request, its system text and prompt.
        chat: Whether it is a chat request.
        raw: Whether the reply leaves the context out.
        stream: Whether to answer line by line.
        truncate: Whether a prompt that is too long may be cut.
        think: Whether thinking is asked for.
        tools: Whether tools are offered.
        suffix: Text after the place to fill, or "".
        output_format: None, `"json"` or a JSON schema; unchecked.
        keep_alive_seconds: How long to keep the model loaded, or None.
        options: The options object, unchecked.
    """

    model: str
    messages: tuple[Message, ...]
    chat: bool
    raw: bool
    stream: bool
    truncate: bool
    think: bool
    tools: bool
    suffix: str
    output_format: Any
    keep_alive_seconds: float | None
    options: dict[str, Any]

    @property
    def is_empty(self) -> bool:
        """Whether it only loads or unloads the model."""
        return not self.messages if self.chat else not self.messages[-1].content


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """A request for embeddings.

    Args:
        model: The model as the client wrote it.
        texts: What to embed.
        truncate: Whether texts that are too long may be cut.
        dimensions: Length to cut the vectors to; 0 leaves them whole.
        keep_alive_seconds: How long to keep the model loaded, or None.
        options: The options object, unchecked.
    """

    model: str
    texts: tuple[str, ...]
    truncate: bool
    dimensions: int
    keep_alive_seconds: float | None
    options: dict[str, Any]


def parse_generate(body: bytes) -> CompletionRequest:
    """Read a generate request.

    Raises:
        DecodeError: The body is not one.
    """
    fields = Fields(decode_object(body, "GenerateRequest"), "GenerateRequest")
    messages = (
        Message(role="system", content=fields.text("system")),
        Message(role="user", content=fields.text("prompt")),
    )
    return _completion(fields, messages, chat=False)


def parse_chat(body: bytes) -> CompletionRequest:
    """Read a chat request.

    Raises:
        DecodeError: The body is not one.
    """
    fields = Fields(decode_object(body, "ChatRequest"), "ChatRequest")
    return _completion(fields, tuple(map(_message, fields.items("messages"))), chat=True)


def parse_embed(body: bytes) -> EmbedRequest:
    """Read an embed request.

    Raises:
        DecodeError: The body is not one.
    """
    fields = Fields(decode_object(body, "EmbedRequest"), "EmbedRequest")
    value = fields.raw("input")
    if value is None or value == "":
        value = []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DecodeError("invalid input type")
    return _embedding(
        fields, tuple(map(clean_text, texts)), truncate=fields.flag("truncate", default=True)
    )


def parse_embeddings(body: bytes) -> EmbedRequest:
    """Read a request of the legacy endpoint, which embeds one prompt and cuts nothing.

    Raises:
        DecodeError: The body is not one.
    """
    fields = Fields(decode_object(body, "EmbeddingRequest"), "EmbeddingRequest")
    prompt = fields.text("prompt")
    return _embedding(fields, (prompt,) if prompt else (), truncate=False)


def _completion(fields: Fields, messages: tuple[Message, ...], *, chat: bool) -> CompletionRequest:
    return CompletionRequest(
        model=fields.text("model"),
        messages=messages,
        chat=chat,
        raw=chat or fields.flag("raw", default=False),
        stream=fields.flag("stream", default=True),
        truncate=fields.flag("truncate", default=True),
        think=_think(fields.raw("think")),
        tools=bool(fields.items("tools")),
        suffix=fields.text("suffix"),
        output_format=fields.raw("format"),
        keep_alive_seconds=_keep_alive(fields),
        options=fields.mapping("options"),
    )


def _embedding(fields: Fields, texts: tuple[str, ...], *, truncate: bool) -> EmbedRequest:
    return EmbedRequest(
        model=fields.text("model"),
        texts=texts,
        truncate=truncate,
        dimensions=max(0, fields.number("dimensions") or 0),
        keep_alive_seconds=_keep_alive(fields),
        options=fields.mapping("options"),
    )


def _message(value: Any) -> Message:
    if not isinstance(value, dict):
        raise DecodeError(
            "json: cannot unmarshal into Go struct field ChatRequest.messages of type api.Message"
        )
    names = {name.lower(): field for name, field in value.items()}
    fields = Fields(names, "ChatRequest.messages")
    return Message(role=fields.text("role").lower(), content=fields.text("content"))


def _keep_alive(fields: Fields) -> float | None:
    value = fields.raw("keep_alive")
    if value is None:
        return None
    try:
        return parse_keep_alive(value)
    except ValueError as error:
        raise DecodeError(str(error)) from error


def _think(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if value in _THINK_LEVELS:
        return True
    raise DecodeError(f'invalid think value: {value!r} (must be "high", "medium", "low" or "max")')
