"""From a request to the tokens of its answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.standin.core import extract
from services.standin.core.options import Options
from services.standin.core.requests import CompletionRequest, Message
from services.standin.core.tokens import Pieces, TokenCodec, cut_at_stop, cut_middle


class TooLongError(ValueError):
    """The prompt exceeds the context and may not be cut."""


class FormatError(ValueError):
    """The `format` is neither absent, `"json"` nor a schema; the server answers 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer before it is streamed.

    Args:
        prompt_ids: The tokens of the prompt that the model sees.
        pieces: The tokens of the answer.
        done_reason: `stop`, or `length` where the token limit cut it.
    """

    prompt_ids: list[int]
    pieces: Pieces
    done_reason: str


def check_format(value: Any) -> None:
    """Check a request's output format.

    Raises:
        FormatError: It is none that the server knows.
    """
    if value not in (None, "", "json") and not isinstance(value, dict):
        raise FormatError(
            f'invalid format: {json.dumps(value)}; expected "json" or a valid JSON Schema object'
        )


def complete(
    request: CompletionRequest, options: Options, codec: TokenCodec, context_tokens: int
) -> Completion:
    """Answer a request; takes milliseconds to tens of milliseconds for long prompts.

    Args:
        request: The request; not an empty one.
        options: Its checked options.
        codec: The tokenizer.
        context_tokens: The context length that the model runs with.

    Raises:
        TooLongError: The prompt is too long and the request forbids to cut it.
    """
    counts = [codec.count(message.content) for message in request.messages]
    if sum(counts) >= context_tokens and not request.truncate:
        raise TooLongError
    kept = _drop_oldest(request.messages, counts, context_tokens)
    prompt_ids = codec.encode(["\n\n".join(message.content for message in kept)])[0][1:-1]
    system = "\n\n".join(message.content for message in kept if message.role == "system")
    prompt = next(
        (message.content for message in reversed(kept) if message.role == "user"), kept[-1].content
    )
    if len(prompt_ids) >= context_tokens:
        pieces = codec.split(f"{system}\n\n{prompt}")
        prompt = cut_middle(pieces, context_tokens=context_tokens, keep_tokens=options.keep_tokens)
        system = ""
        prompt_ids = codec.split(prompt).ids
    text = extract.answer(prompt, system)
    if request.output_format:
        text = json.dumps(_conform(request.output_format, text), ensure_ascii=False)
    pieces = codec.split(cut_at_stop(text, options.stop))
    limit = min(options.max_tokens or 10 * context_tokens, 10 * context_tokens)
    return Completion(
        prompt_ids=prompt_ids,
        pieces=Pieces(ids=pieces.ids[:limit], texts=pieces.texts[:limit]),
        done_reason="length" if len(pieces.ids) > limit else "stop",
    )


def _drop_oldest(
    messages: tuple[Message, ...], counts: list[int], context_tokens: int
) -> list[Message]:
    """Drop the oldest messages, except system texts and the last one, until the rest fits."""
    kept = list(messages)
    excess = sum(counts) - context_tokens + 1
    for message, count in zip(messages[:-1], counts[:-1], strict=True):
        if excess > 0 and message.role != "system":
            kept.remove(message)
            excess -= count
    return kept


def _conform(schema: Any, text: str) -> Any:
    """The smallest value that a JSON schema allows, with the answer as its texts."""
    if not isinstance(schema, Mapping):
        return {"answer": text}
    if options := schema.get("enum"):
        return options[0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _conform(entry, text) for name, entry in properties.items()}
        case "array":
            return [_conform(schema.get("items", {"type": "string"}), text)]
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case _:
            return text
