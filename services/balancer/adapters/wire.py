"""Ollama's JSON: requests as it wants them, replies as it sends them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from services.balancer.core.failures import AttemptFailed, FailureKind, failure_of_status
from services.balancer.core.models import (
    Capability,
    InstalledModel,
    LoadedModel,
    ModelDescription,
)
from services.balancer.core.requests import (
    Completion,
    EmbeddingReply,
    FinishReason,
    GenerationRequest,
    Operation,
    Sampling,
    TextDelta,
)
from services.balancer.core.vectors import FaultyVectors, checked_vectors

__all__ = [
    "MAXIMUM_LINE_BYTES",
    "GenerationReader",
    "LineSplitter",
    "embedding_body",
    "embedding_reply",
    "error_reply",
    "generation_body",
    "installed_models",
    "loaded_models",
    "model_description",
    "parse_object",
]

# The final line of a long generation lists the tokens of its context.
MAXIMUM_LINE_BYTES = 8 * 1024 * 1024
_NANOSECONDS = 1e-9
_FINISH_REASONS = {reason.value: reason for reason in FinishReason}


def generation_body(request: GenerationRequest, model_name: str) -> bytes:
    """Writes the request body of `/api/generate` or `/api/chat`."""
    body: dict[str, Any] = {"model": model_name, "stream": True}
    if request.operation is Operation.CHAT:
        body["messages"] = [
            {"role": message.role.value, "content": message.content} for message in request.messages
        ]
    else:
        body["prompt"] = request.prompt
        if request.system:
            body["system"] = request.system
    options = _options(request.sampling)
    if options:
        body["options"] = options
    return orjson.dumps(body)


def _options(sampling: Sampling) -> dict[str, Any]:
    options = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "num_predict": sampling.max_output_token_count,
        "num_ctx": sampling.context_token_count,
        "stop": list(sampling.stop_sequences) or None,
    }
    return {name: value for name, value in options.items() if value is not None}


def embedding_body(texts: Sequence[str], model_name: str) -> bytes:
    """Writes the request body of `/api/embed`."""
    return orjson.dumps({"model": model_name, "input": list(texts), "truncate": True})


class LineSplitter:
    """Puts the lines of a reply together again, wherever the network cut them."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what came next and returns the lines it completes, without blank ones.

        Raises:
            AttemptFailed: A line grows beyond 8 MiB.
        """
        head, newline, tail = data.rpartition(b"\n")
        lines: list[bytes] = []
        if newline:
            lines = b"".join((*self._pieces, head)).split(b"\n")
            self._pieces, self._held_bytes = [], 0
        self._pieces.append(tail)
        self._held_bytes += len(tail)
        if self._held_bytes > MAXIMUM_LINE_BYTES:
            raise AttemptFailed(FailureKind.BROKEN_REPLY, "a line of the reply exceeds 8 MiB")
        return [line for line in lines if line.strip()]

    def rest(self) -> list[bytes]:
        """Returns the last line where it lacks its end."""
        rest = b"".join(self._pieces)
        self._pieces, self._held_bytes = [], 0
        return [rest] if rest.strip() else []


class GenerationReader:
    """Reads the stream of a generation."""

    def __init__(self) -> None:
        self._splitter = LineSplitter()

    def feed(self, data: bytes) -> Iterator[TextDelta | Completion]:
        """Takes what came next; text that came together makes one delta.

        Raises:
            AttemptFailed: The reply says that the generation failed, or makes no sense.
        """
        yield from self._read(self._splitter.feed(data))

    def end(self) -> Iterator[TextDelta | Completion]:
        """Takes the end of the reply."""
        yield from self._read(self._splitter.rest())

    def _read(self, lines: Sequence[bytes]) -> Iterator[TextDelta | Completion]:
        texts: list[str] = []
        completion: Completion | None = None
        failure: AttemptFailed | None = None
        for line in lines:
            try:
                values = _checked_line(line)
            except AttemptFailed as error:
                failure = error
                break
            texts.append(_text_of(values))
            if values.get("done") is True:
                completion = _completion(values)
                break
        # What came before a failure is passed on before it.
        if texts:
            yield TextDelta("".join(texts))
        if failure is not None:
            raise failure
        if completion is not None:
            yield completion


def _checked_line(line: bytes) -> Mapping[str, Any]:
    values = parse_object(line)
    if values.get("error"):
        raise failure_of_status(500, str(values["error"]))
    return values


def _text_of(values: Mapping[str, Any]) -> str:
    message = values.get("message")
    text = message.get("content") if isinstance(message, Mapping) else values.get("response")
    return text if isinstance(text, str) else ""


def _completion(values: Mapping[str, Any]) -> Completion:
    return Completion(
        finish_reason=_FINISH_REASONS.get(str(values.get("done_reason")), FinishReason.OTHER),
        prompt_token_count=_count(values, "prompt_eval_count"),
        output_token_count=_count(values, "eval_count"),
        load_seconds=_count(values, "load_duration") * _NANOSECONDS,
        prompt_seconds=_count(values, "prompt_eval_duration") * _NANOSECONDS,
        output_seconds=_count(values, "eval_duration") * _NANOSECONDS,
    )


def embedding_reply(body: bytes, expected_count: int) -> EmbeddingReply:
    """Reads the reply of `/api/embed`.

    Raises:
        AttemptFailed: It does not hold one usable vector per text.
    """
    values = parse_object(body)
    try:
        vectors = checked_vectors(values.get("embeddings"), expected_count=expected_count)
    except FaultyVectors as error:
        raise AttemptFailed(FailureKind.BROKEN_REPLY, str(error), status_code=200) from error
    return EmbeddingReply(
        vectors=vectors,
        prompt_token_count=_count(values, "prompt_eval_count"),
        load_seconds=_count(values, "load_duration") * _NANOSECONDS,
    )


def error_reply(status_code: int, body: bytes) -> AttemptFailed:
    """Reads a reply with a status other than 200."""
    try:
        message = str(parse_object(body).get("error", ""))
    except AttemptFailed:
        message = body.decode("utf-8", "replace").strip()
    return failure_of_status(status_code, message)


def installed_models(body: bytes) -> tuple[InstalledModel, ...]:
    """Reads the reply of `/api/tags`."""
    return tuple(_installed(each) for each in _models(body))


def _installed(values: Mapping[str, Any]) -> InstalledModel:
    details = _details(values)
    return InstalledModel(
        name=str(values["name"]),
        digest=str(values.get("digest", "")),
        size_bytes=_count(values, "size"),
        family=str(details.get("family") or ""),
        description=ModelDescription(
            capabilities=_capabilities(values),
            embedding_dimension=_count(details, "embedding_length"),
            context_token_count=_count(details, "context_length"),
        ),
    )


def loaded_models(body: bytes) -> tuple[LoadedModel, ...]:
    """Reads the reply of `/api/ps`."""
    return tuple(
        LoadedModel(name=str(each["name"]), vram_bytes=_count(each, "size_vram"))
        for each in _models(body)
    )


def model_description(body: bytes) -> ModelDescription:
    """Reads the reply of `/api/show`."""
    values = parse_object(body)
    info = values.get("model_info")
    info = info if isinstance(info, Mapping) else {}
    architecture = info.get("general.architecture", "")
    return ModelDescription(
        capabilities=_capabilities(values),
        embedding_dimension=_count(info, f"{architecture}.embedding_length"),
        context_token_count=_count(info, f"{architecture}.context_length"),
    )


def _models(body: bytes) -> list[Mapping[str, Any]]:
    models = parse_object(body).get("models")
    return [
        each
        for each in (models if isinstance(models, list) else [])
        if isinstance(each, Mapping) and each.get("name")
    ]


def _details(values: Mapping[str, Any]) -> Mapping[str, Any]:
    details = values.get("details")
    return details if isinstance(details, Mapping) else {}


def _capabilities(values: Mapping[str, Any]) -> frozenset[Capability] | None:
    named = values.get("capabilities")
    if not isinstance(named, list):
        return None
    return frozenset(capability for capability in Capability if capability.value in named)


def _count(values: Mapping[str, Any], name: str) -> int:
    # Ollama leaves out what is zero.
    value = values.get(name, 0)
    return max(0, value) if isinstance(value, int) else 0


def parse_object(data: bytes) -> Mapping[str, Any]:
    """Reads a JSON object.

    Raises:
        AttemptFailed: It is something else.
    """
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise AttemptFailed(FailureKind.BROKEN_REPLY, "the reply is no JSON") from error
    if not isinstance(values, dict):
        raise AttemptFailed(FailureKind.BROKEN_REPLY, "the reply is no JSON object")
    return values
