"""From a request to the tokens of its answer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.standin.core import extract, synthetic
from services.standin.core.options import Options
from services.standin.core.prompt_cache import Prompt
from services.standin.core.requests import CompletionRequest, Message
from services.standin.core.tokens import TokenCodec, cut_at_stop, cut_middle

_SEPARATOR = "\n\n"
# A generation without a limit of its own ends after so many contexts.
_MAX_CONTEXTS = 10


class TooLongError(ValueError):
    """The prompt exceeds the context and may not be cut."""


class FormatError(ValueError):
    """The `format` is neither absent, `"json"` nor a schema; the server answers 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer before it is given.

    Args:
        prompt: The prompt that the model reads.
        rendered: Its text.
        texts: The tokens of the answer.
        contents: What each of them adds to what the slot holds.
        thinking_tokens: How many of them, the first ones, are thinking.
        tool_calls: The tools that it calls; then the other tokens are no text for the client.
        context: Token ids of prompt and answer, where the reply tells them.
        done_reason: `stop`, or `length` where the token limit cut it.
    """

    prompt: Prompt
    rendered: str
    texts: list[str]
    contents: list[str]
    thinking_tokens: int = 0
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    context: list[int]
    done_reason: str

    def content_after(self, tokens: int) -> str:
        """What the slot holds after so many tokens of the answer; thinking is not kept."""
        return self.prompt.content + "".join(self.contents[self.thinking_tokens : tokens])


def check_format(value: Any) -> None:
    """Check a request's output format.

    Raises:
        FormatError: It is none that the server knows.
    """
    if value not in (None, "", "json") and not isinstance(value, dict):
        raise FormatError(
            f'invalid format: {json.dumps(value)}; expected "json" or a valid JSON Schema object'
        )


def complete_extractive(
    request: CompletionRequest, options: Options, codec: TokenCodec, context_tokens: int
) -> Completion:
    """Answer from the prompt; takes milliseconds to tens of milliseconds for long prompts.

    Args:
        request: The request; not an empty one.
        options: Its checked options.
        codec: The tokenizer.
        context_tokens: The context length that the model runs with.

    Raises:
        TooLongError: The prompt is too long and the request forbids to cut it.
    """
    counts = [codec.count(message.content) for message in request.messages]
    kept = _fit(request, counts, context_tokens)
    rendered = _render(kept)
    prompt_ids = [*request.context, *codec.split(rendered).ids]
    system = _SEPARATOR.join(message.content for message in kept if message.role == "system")
    prompt = _last_user_message(kept).content
    if len(prompt_ids) >= context_tokens:
        pieces = codec.split(f"{system}{_SEPARATOR}{prompt}")
        prompt = cut_middle(pieces, context_tokens=context_tokens, keep_tokens=options.keep_tokens)
        system = ""
        prompt_ids = codec.split(prompt).ids
    text = extract.answer(prompt, system)
    if request.output_format:
        text = json.dumps(_conform(request.output_format, text), ensure_ascii=False)
    pieces = codec.split(cut_at_stop(text, options.stop))
    limit = _limit(options, context_tokens, len(prompt_ids))
    ids = pieces.ids[:limit]
    return Completion(
        prompt=Prompt(content=_as_text(prompt_ids)),
        rendered=rendered,
        texts=pieces.texts[:limit],
        contents=list(_as_text(ids)),
        context=[] if request.chat or request.raw else prompt_ids + ids,
        done_reason="length" if len(pieces.ids) > limit else "stop",
    )


def complete_synthetic(
    request: CompletionRequest, options: Options, context_tokens: int, *, thinks: bool
) -> Completion:
    """Answer with words of no meaning, as many as the prompt orders.

    Args:
        request: The request; not an empty one.
        options: Its checked options.
        context_tokens: The context length that the model runs with.
        thinks: Whether the model can think.

    Raises:
        TooLongError: The prompt is too long and the request forbids to cut it.
    """
    counts = [synthetic.count_tokens(_full_text(message)) for message in request.messages]
    kept = _fit(request, counts, context_tokens)
    content = synthetic.decode_ids(list(request.context)) + _render(kept, tools=request.tools)
    if synthetic.count_tokens(content) >= context_tokens:
        content = _cut_text(content, context_tokens, options.keep_tokens)
    prompt = Prompt(content=content, characters_per_token=synthetic.CHARACTERS_PER_TOKEN)
    limit = _limit(options, context_tokens, prompt.tokens)
    script = synthetic.read_script(_last_user_message(kept).content)
    may_think = thinks and request.think is not False
    thinking = synthetic.write_words(
        script.seed + 1, min(script.thinking_tokens, limit + 1) if may_think else 0
    )
    calls = _call_tool(script, request) if kept[-1].role == "user" else ()
    if calls:
        texts = synthetic.split_text(json.dumps(calls))
    else:
        texts = _write(script, request, options.stop, limit + 1)
    tokens = (thinking + texts)[:limit]
    separator = _SEPARATOR if request.chat else ""
    contents = [*tokens]
    if len(contents) > len(thinking):
        contents[len(thinking)] = separator + contents[len(thinking)]
    is_cut = len(thinking) + len(texts) > limit
    answer = "".join(tokens[len(thinking) :])
    return Completion(
        prompt=prompt,
        rendered=content,
        texts=tokens,
        contents=contents,
        thinking_tokens=min(len(thinking), limit),
        tool_calls=() if is_cut else calls,
        context=[] if request.chat or request.raw else synthetic.encode_ids(content + answer),
        done_reason="length" if is_cut else "stop",
    )


def repeat(completion: Completion, times: int) -> Completion:
    """The same answer as a model that repeats one token gives it."""
    text = completion.texts[-1] if completion.texts else " and"
    return replace(
        completion, texts=[text] * times, contents=[text] * times, thinking_tokens=0, tool_calls=()
    )


def _write(
    script: synthetic.Script, request: CompletionRequest, stop: tuple[str, ...], limit: int
) -> list[str]:
    if request.output_format:
        text = "".join(synthetic.write_words(script.seed, min(script.tokens, 8))).strip()
        return synthetic.split_text(json.dumps(_conform(request.output_format, text)))
    words = synthetic.write_words(script.seed, min(script.tokens, limit))
    return synthetic.split_text(cut_at_stop("".join(words), stop)) if stop else words


def _call_tool(
    script: synthetic.Script, request: CompletionRequest
) -> tuple[Mapping[str, Any], ...]:
    if script.tool is None or not request.tools:
        return ()
    name, arguments = script.tool
    number = hashlib.blake2b(name.encode(), key=script.seed.to_bytes(8), digest_size=4).hexdigest()
    function = {"index": 0, "name": name, "arguments": arguments}
    return ({"id": f"call_{number}", "function": function},)


def _fit(request: CompletionRequest, counts: list[int], context_tokens: int) -> list[Message]:
    """Drop the oldest messages, except system texts and the last one, until the rest fits."""
    excess = sum(counts) - context_tokens + 1
    if excess > 0 and not request.truncate:
        raise TooLongError
    kept = []
    for index, (message, count) in enumerate(zip(request.messages, counts, strict=True)):
        is_last = index == len(counts) - 1
        if excess > 0 and message.role != "system" and not is_last:
            excess -= count
        else:
            kept.append(message)
    return kept


def _render(messages: list[Message], tools: tuple[Any, ...] = ()) -> str:
    texts = [json.dumps(tools)] if tools else []
    texts += [_full_text(message) for message in messages]
    return _SEPARATOR.join(text for text in texts if text)


def _full_text(message: Message) -> str:
    if not message.images and not message.tool_calls:
        return message.content
    return "".join(map(_image_text, message.images)) + message.content + message.tool_calls


def _image_text(image: bytes) -> str:
    """As many characters as the tokens of an image take, and different for different images."""
    mark = hashlib.sha256(image).hexdigest()
    return mark * (synthetic.IMAGE_TOKENS * synthetic.CHARACTERS_PER_TOKEN // len(mark))


def _last_user_message(messages: list[Message]) -> Message:
    return next((message for message in reversed(messages) if message.role == "user"), messages[-1])


def _cut_text(text: str, context_tokens: int, keep_tokens: int) -> str:
    keep = min(keep_tokens, context_tokens // 2)
    tail = max(1, (context_tokens - keep) // 2)
    width = synthetic.CHARACTERS_PER_TOKEN
    return text[: keep * width] + text[-tail * width :]


def _limit(options: Options, context_tokens: int, prompt_tokens: int) -> int:
    """The most tokens that the answer may have."""
    longest = _MAX_CONTEXTS * context_tokens
    if not options.shift:
        longest = max(1, context_tokens - prompt_tokens)
    return min(options.max_tokens or longest, longest)


def _as_text(ids: list[int]) -> str:
    """Token ids as a text of one character each; the vocabulary ends below the surrogates."""
    return "".join([chr(number % 0xD800) for number in ids])


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
