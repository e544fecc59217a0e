"""What an Ollama server answers: the lines of a generation, and the vectors of texts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from services.balancer.adapters.wire import (
    LineSplitter,
    broken_reply,
    check_model,
    count,
    parse_line,
    parse_object,
    seconds,
)
from services.balancer.core.failures import AttemptFailed
from services.balancer.core.requests import (
    Completion,
    Delta,
    EmbeddingReply,
    FinishReason,
    LogprobsDelta,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    ToolCallsDelta,
)
from services.balancer.core.vectors import FaultyVectors, checked_vectors

__all__ = ["GenerationReader", "embedding_reply"]

_FINISH_REASONS = {reason.value: reason for reason in FinishReason}


class GenerationReader:
    """Reads the stream of a generation.

    Args:
        model_name: The model that was asked for.
    """

    def __init__(self, model_name: str) -> None:
        self._model_name: str | None = model_name
        self._splitter = LineSplitter()

    def feed(self, data: bytes) -> Iterator[Delta | Completion]:
        """Takes what came next.

        What came together makes one delta of each kind: thoughts before text, tool calls after it,
        probabilities last. Lines that say nothing make an empty text, since they are a sign of
        life.

        Raises:
            AttemptFailed: The reply says that the generation failed, or makes no sense.
        """
        return self._read(self._splitter.feed(data))

    def end(self) -> Iterator[Delta | Completion]:
        """Takes the end of the reply."""
        return self._read(self._splitter.rest())

    def _read(self, lines: Sequence[bytes]) -> Iterator[Delta | Completion]:
        model_name = self._model_name
        if lines:
            # One stream is of one model.
            self._model_name = None
        return _read(lines, model_name)


def _read(lines: Sequence[bytes], model_name: str | None) -> Iterator[Delta | Completion]:
    text = thinking = ""
    calls: list[ToolCall] = []
    tokens: list[TokenLogprob] = []
    completion: Completion | None = None
    failure: AttemptFailed | None = None
    line_count = 0
    try:
        for line in lines:
            values = parse_line(line)
            if model_name is not None and line_count == 0:
                check_model(values, model_name)
            line_count += 1
            message = values.get("message")
            if isinstance(message, dict):
                said, thought = message.get("content"), message.get("thinking")
                if message.get("tool_calls"):
                    calls += _tool_calls(line)
            else:
                said, thought = values.get("response"), values.get("thinking")
            if said and isinstance(said, str):
                text += said
            if thought and isinstance(thought, str):
                thinking += thought
            if values.get("logprobs"):
                tokens += _logprobs(values["logprobs"])
            if values.get("done") is True:
                completion = _completion(values)
                break
    except AttemptFailed as error:
        failure = error
    # What came before a failure is passed on before it.
    if thinking:
        yield ThinkingDelta(thinking)
    if text or (line_count and not (thinking or calls or tokens)):
        yield TextDelta(text)
    if calls:
        yield ToolCallsDelta(tuple(calls))
    if tokens:
        yield LogprobsDelta(tuple(tokens))
    if failure is not None:
        raise failure
    if completion is not None:
        yield completion


def _tool_calls(line: bytes) -> list[ToolCall]:
    # Read once more, with every number as it was written: arguments are none of our business, and
    # among them are integers that fit no float.
    try:
        values = json.loads(line, parse_int=orjson.Fragment, parse_float=orjson.Fragment)
        calls = values["message"]["tool_calls"]
        return [_tool_call(each["function"], each.get("id")) for each in calls]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise broken_reply("a tool call of the reply makes no sense") from error


def _tool_call(function: Mapping[str, Any], call_id: object) -> ToolCall:
    name, arguments = function["name"], function.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict | None):
        raise TypeError("a name is a text, and arguments are an object")
    return ToolCall(
        id=call_id if isinstance(call_id, str) else "",
        name=name,
        arguments_json=orjson.dumps(arguments or {}).decode(),
    )


def _logprobs(entries: Any) -> list[TokenLogprob]:
    try:
        return [_logprob(each) for each in entries]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise broken_reply("a probability of the reply makes no sense") from error


def _logprob(values: Mapping[str, Any]) -> TokenLogprob:
    token, data = values["token"], values.get("bytes")
    if not isinstance(token, str):
        raise TypeError("a token is a text")
    return TokenLogprob(
        token=token,
        # Rounding may lift certainty above 0.
        logprob=min(0.0, float(values["logprob"])),
        token_bytes=bytes(data) if isinstance(data, list) else token.encode(),
        top=tuple([_logprob(each) for each in values.get("top_logprobs") or ()]),
    )


def _completion(values: Mapping[str, Any]) -> Completion:
    return Completion(
        finish_reason=_FINISH_REASONS.get(str(values.get("done_reason")), FinishReason.OTHER),
        prompt_token_count=count(values, "prompt_eval_count"),
        output_token_count=count(values, "eval_count"),
        load_seconds=seconds(values, "load_duration"),
        prompt_seconds=seconds(values, "prompt_eval_duration"),
        output_seconds=seconds(values, "eval_duration"),
    )


def embedding_reply(body: bytes, expected_count: int, model_name: str) -> EmbeddingReply:
    """Reads the reply of `/api/embed`.

    Args:
        body: The reply.
        expected_count: How many texts were sent.
        model_name: The model that was asked for.

    Raises:
        AttemptFailed: It does not hold one usable vector per text, or is of another model.
    """
    values = parse_object(body)
    check_model(values, model_name)
    try:
        vectors = checked_vectors(values.get("embeddings"), expected_count=expected_count)
    except FaultyVectors as error:
        raise broken_reply(str(error)) from error
    return EmbeddingReply(
        vectors=vectors,
        prompt_token_count=count(values, "prompt_eval_count"),
        load_seconds=seconds(values, "load_duration"),
    )
