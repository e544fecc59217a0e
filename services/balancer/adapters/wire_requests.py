"""What an Ollama server is asked for: the bodies of `/api/generate`, `/api/chat`, `/api/embed`."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from services.balancer.core.requests import (
    GenerationRequest,
    Message,
    Operation,
    OutputFormat,
    Role,
    Sampling,
    ToolCall,
    ToolDefinition,
)

__all__ = ["embedding_body", "generation_body", "image_bytes", "without_absent"]

# A multiple of 3, so that the pieces fit together without padding.
_BASE64_PIECE_BYTES = 3 * 65_536


def generation_body(
    request: GenerationRequest,
    model_name: str,
    *,
    keep_alive: str | int | None,
    context_token_count: int | None,
    continuation: str = "",
) -> bytes:
    """Writes the body of `/api/generate` or `/api/chat`.

    JSON that the caller gave as text goes out as it came: the order of a schema's properties is
    that of the answer, and no number loses digits.

    Args:
        request: What to generate.
        model_name: The model by the server's own name for it.
        keep_alive: How long the model stays loaded; None leaves it as it is.
        context_token_count: Context window to ask for, which loads the model anew where it is
            loaded with another; None leaves it to the server.
        continuation: Beginning of the answer, to go on from; only for a request that `can_resume`.
    """
    # A server answers `logprobs` without `top_logprobs`, never the other way round.
    body: dict[str, Any] = {
        "model": model_name,
        "stream": True,
        "format": _format(request.output_format),
        "think": request.thinking.value,
        "logprobs": None if request.top_logprob_count is None else True,
        "top_logprobs": request.top_logprob_count,
        "keep_alive": keep_alive,
        "options": _options(request.sampling, context_token_count) or None,
    }
    if request.operation is Operation.CHAT:
        body["messages"] = _messages(request.messages, continuation)
        body["tools"] = [_tool(each) for each in request.tools] or None
    else:
        body["prompt"] = request.prompt + continuation
        body["system"] = request.system or None
        body["suffix"] = request.suffix or None
        body["raw"] = request.raw or None
        body["images"] = _images(request.images) or None
    return orjson.dumps(without_absent(body))


def embedding_body(
    texts: Sequence[str],
    model_name: str,
    *,
    keep_alive: str | int | None,
    dimension: int | None,
    context_token_count: int | None = None,
) -> bytes:
    """Writes the body of `/api/embed`.

    Args:
        texts: The texts.
        model_name: The model by the server's own name for it.
        keep_alive: How long the model stays loaded; None leaves it as it is.
        dimension: Length to cut the vectors to; None leaves them whole.
        context_token_count: Context window that a chat model is loaded with, lest it be loaded
            anew; None for embedding models.
    """
    body = {
        "model": model_name,
        "input": list(texts),
        "truncate": True,
        "dimensions": dimension,
        "keep_alive": keep_alive,
        "options": without_absent({"num_ctx": context_token_count}) or None,
    }
    return orjson.dumps(without_absent(body))


def image_bytes(request: GenerationRequest) -> int:
    """Returns the size of all images of a request."""
    images = [*request.images, *(image for each in request.messages for image in each.images)]
    return sum(len(image) for image in images)


def without_absent(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out what is None; what is 0 or empty says something."""
    return {name: value for name, value in values.items() if value is not None}


def _options(sampling: Sampling, context_token_count: int | None) -> dict[str, Any]:
    return without_absent(
        {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "seed": sampling.seed,
            "num_predict": sampling.max_output_token_count,
            "num_ctx": context_token_count,
            "stop": list(sampling.stop_sequences) or None,
            "repeat_penalty": sampling.repeat_penalty,
            "repeat_last_n": sampling.repeat_last_token_count,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
        }
    )


def _messages(messages: Sequence[Message], continuation: str) -> list[dict[str, Any]]:
    written = [_message(each) for each in messages]
    if not continuation:
        return written
    if messages and messages[-1].role is Role.ASSISTANT:
        # The caller gave a beginning already; a second message of the model would end it.
        written[-1]["content"] += continuation
    else:
        written.append({"role": Role.ASSISTANT.value, "content": continuation})
    return written


def _message(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.images:
        written["images"] = _images(message.images)
    if message.thinking:
        written["thinking"] = message.thinking
    if message.tool_calls:
        written["tool_calls"] = [_call(*each) for each in enumerate(message.tool_calls)]
    if message.tool_name:
        written["tool_name"] = message.tool_name
    if message.tool_call_id:
        written["tool_call_id"] = message.tool_call_id
    return written


def _call(index: int, call: ToolCall) -> dict[str, Any]:
    function = {
        "index": index,
        "name": call.name,
        "arguments": orjson.Fragment(call.arguments_json),
    }
    return without_absent({"id": call.id or None, "function": function})


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description or None,
        "parameters": orjson.Fragment(tool.parameters_json_schema),
    }
    return {"type": "function", "function": without_absent(function)}


def _format(output_format: OutputFormat | None) -> Any:
    if output_format is None:
        return None
    schema = output_format.json_schema
    return orjson.Fragment(schema) if schema else "json"


def _images(images: Sequence[bytes]) -> list[orjson.Fragment]:
    # Base64 needs no escaping, so megabytes of it are copied rather than looked through.
    return [orjson.Fragment(_base64(image)) for image in images]


def _base64(image: bytes) -> bytes:
    # Piece by piece, for one call keeps all other threads waiting until it returns.
    starts = range(0, len(image), _BASE64_PIECE_BYTES)
    pieces = (b64encode(image[start : start + _BASE64_PIECE_BYTES]) for start in starts)
    return b"".join((b'"', *pieces, b'"'))
