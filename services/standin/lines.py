"""The lines of a streamed answer, and the object of a whole one."""

import hashlib
from collections.abc import Sequence
from typing import Any

from services.common.clock import Clock
from services.standin.core.complete import Completion
from services.standin.core.requests import CompletionRequest
from services.standin.core.times import format_utc
from services.standin.wire import encode, encode_inner


class Lines:
    """Writes the objects of one reply.

    Args:
        request: The request.
        model: What to call the model.
        clock: Time.
    """

    def __init__(self, request: CompletionRequest, model: str, clock: Clock) -> None:
        self._request = request
        self._model = model
        self._clock = clock
        self._begin = b'{"model":"%b","created_at":"' % encode_inner(model)

    def line(self, text: str, *, done: bool, **more: Any) -> dict[str, Any]:
        """An object with some text.

        Args:
            text: The text.
            done: Whether it is the last.
            more: Fields of the message: `thinking` and `tool_calls`, left out where empty.
        """
        extra = {name: value for name, value in more.items() if value}
        content: dict[str, Any] = {"response": text} | extra
        if self._request.chat:
            content = {"message": {"role": "assistant", "content": text} | extra}
        created_at = format_utc(self._clock.now())
        return {"model": self._model, "created_at": created_at} | content | {"done": done}

    def tokens(self, completion: Completion, begin: int, end: int) -> bytes:
        """The lines of some tokens, written without a detour over objects: it is the hot path."""
        thinking = min(max(completion.thinking_tokens, begin), end)
        now = format_utc(self._clock.now()).encode()
        lines = self._token_lines(completion.texts[begin:thinking], now, thinking=True)
        if not completion.tool_calls:
            lines += self._token_lines(completion.texts[thinking:end], now, thinking=False)
        return lines

    def _token_lines(self, texts: Sequence[str], now: bytes, *, thinking: bool) -> bytes:
        if not texts:
            return b""
        if self._request.logprobs:
            return b"".join(self._line_with_logprobs(text, thinking=thinking) for text in texts)
        empty_then = b'","thinking":"' if thinking else b""
        if self._request.chat:
            before = b'","message":{"role":"assistant","content":"' + empty_then
            after = b'"},"done":false}\n'
        else:
            before = b'","response":"' + empty_then
            after = b'","done":false}\n'
        before = self._begin + now + before
        return b"".join([before + encode_inner(text) + after for text in texts if text])

    def _line_with_logprobs(self, text: str, *, thinking: bool) -> bytes:
        line = self.line("", done=False, thinking=text) if thinking else self.line(text, done=False)
        return encode(line | {"logprobs": [self.logprob(text)]}) + b"\n"

    def logprob(self, text: str) -> dict[str, Any]:
        """How probable a token was, and its alternatives; the same for the same token."""
        entry = _logprob(text)
        count = self._request.top_logprobs
        if count:
            others = [_logprob(f"{text}{number}") for number in range(count - 1)]
            entry["top_logprobs"] = [_logprob(text), *others]
        return entry


def _logprob(token: str) -> dict[str, Any]:
    data = token.encode()
    score = -hashlib.blake2b(data, digest_size=1).digest()[0] / 100
    return {"token": token, "logprob": score, "bytes": list(data)}
