"""The bodies of `/api/generate`, `/api/chat`, `/api/embed` and `/api/embeddings`, checked."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any

from services.standin.core.decode import DecodeError, Fields, clean_text, decode_object
from services.standin.core.times import parse_keep_alive

_THINK_LEVELS = {"low", "medium", "high", "max"}
_MAX_TOP_LOGPROBS = 20
_BASE64_PREFIX = re.compile(r"[A-Za-z0-9+/]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a conversation.

    Args:
        role: `system`, `user`, `assistant` or `tool`.
        content: Its text.
        images: Its images, decoded.
        tool_calls: The tool calls that an assistant's message made, as JSON, or "".
    """

    role: str
    content: str
    images: tuple[bytes, ...] = ()
    tool_calls: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """A request for an answer.

    Args:
        model: The model as the client wrote it.
        messages: The conversation; of a generate request, its system text and prompt.
        chat: Whether it is a chat request.
        raw: Whether the prompt is taken as it is, and the reply leaves the context out.
        stream: Whether to answer line by line.
        truncate: Whether a prompt that is too long may be cut.
        shift: Whether the context may slide when it is full.
        think: Whether thinking is asked for; None leaves it to the model.
        tools: The tools that are offered, unchecked.
        suffix: Text after the place to fill, or "".
        template: Whether it brings a template.
        context: Token ids of an earlier reply to go on from.
        output_format: None, `"json"` or a JSON schema; unchecked.
        logprobs: Whether to tell how probable each token was.
        top_logprobs: How many alternatives to tell for each.
        render_only: Whether to reply with the rendered prompt instead of running it.
        keep_alive_seconds: How long to keep the model loaded, or None.
        options: The options object, unchecked.
    """

    model: str
    messages: tuple[Message, ...]
    chat: bool
    raw: bool
    stream: bool
    truncate: bool
    shift: bool
    think: bool | None
    tools: tuple[Any, ...]
    suffix: str
    template: bool
    context: tuple[int, ...]
    output_format: Any
    logprobs: bool
    top_logprobs: int
    render_only: bool
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
        Message(role="user", content=fields.text("prompt"), images=_images(fields)),
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
        raw=fields.flag("raw", default=False) and not chat,
        stream=fields.flag("stream", default=True),
        truncate=fields.flag("truncate", default=True),
        shift=fields.flag("shift", default=True),
        think=_think(fields.raw("think")),
        tools=tuple(fields.items("tools")) if chat else (),
        suffix="" if chat else fields.text("suffix"),
        template=bool(fields.text("template")) and not chat,
        context=() if chat else _context(fields),
        output_format=fields.raw("format"),
        logprobs=fields.flag("logprobs", default=False),
        top_logprobs=_top_logprobs(fields),
        render_only=fields.flag("_debug_render_only", default=False),
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
    calls = fields.items("tool_calls")
    return Message(
        role=fields.text("role").lower(),
        content=fields.text("content"),
        images=_images(fields),
        tool_calls=json.dumps(calls) if calls else "",
    )


def _images(fields: Fields) -> tuple[bytes, ...]:
    return tuple(map(_image, fields.items("images")))


def _image(value: Any) -> bytes:
    if not isinstance(value, str):
        raise DecodeError(
            "json: cannot unmarshal into Go struct field images of type api.ImageData"
        )
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        good = _BASE64_PREFIX.match(value)
        position = good.end() if good else 0
        raise DecodeError(f"illegal base64 data at input byte {position}") from None


def _context(fields: Fields) -> tuple[int, ...]:
    ids = fields.items("context")
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in ids):
        raise DecodeError(
            "json: cannot unmarshal into Go struct field GenerateRequest.context of type int"
        )
    return tuple(ids)


def _top_logprobs(fields: Fields) -> int:
    count = fields.number("top_logprobs") or 0
    if not 0 <= count <= _MAX_TOP_LOGPROBS:
        raise DecodeError(f"top_logprobs must be between 0 and {_MAX_TOP_LOGPROBS}")
    return count


def _keep_alive(fields: Fields) -> float | None:
    value = fields.raw("keep_alive")
    if value is None:
        return None
    try:
        return parse_keep_alive(value)
    except ValueError as error:
        raise DecodeError(str(error)) from error


def _think(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in _THINK_LEVELS:
        return True
    raise DecodeError(f'invalid think value: {value!r} (must be "high", "medium", "low" or "max")')
