"""The rules that requests must keep; all breaches are reported at once."""

import re
from collections.abc import Iterator
from itertools import islice

from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.cache.core.vectors import vector_fault
from services.common.errors import MAXIMUM_VIOLATIONS, FieldViolation, InvalidRequest
from services.common.sampling import sampling_violations

__all__ = ["MAXIMUM_BATCH", "validate"]

MAXIMUM_BATCH = 512

_MAXIMUM_FINGERPRINT_LENGTH = 200
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")

_REQUIRED = "Must be set."
_NOT_EMPTY = "Must not be empty."

Request = (
    pb.LookupEmbeddingsRequest
    | pb.StoreEmbeddingsRequest
    | pb.LookupInferenceRequest
    | pb.StoreInferenceRequest
    | pb.LookupChunksRequest
    | pb.StoreChunksRequest
)
Violations = Iterator[FieldViolation]


def validate(request: Request) -> None:
    """Checks a request.

    Raises:
        InvalidRequest: Fields break rules; the first 16 of them are named.
    """
    violations = tuple(islice(_violations(request), MAXIMUM_VIOLATIONS))
    if violations:
        raise InvalidRequest(*violations)


def _violations(request: Request) -> Violations:
    match request:
        case pb.LookupEmbeddingsRequest():
            yield from _space(request.space)
            yield from _batch("texts", len(request.texts))
            for index, text in enumerate(request.texts):
                if not text:
                    yield FieldViolation(f"texts[{index}]", _NOT_EMPTY)
        case pb.StoreEmbeddingsRequest():
            yield from _space(request.space)
            yield from _batch("entries", len(request.entries))
            for index, entry in enumerate(request.entries):
                yield from _entry(f"entries[{index}]", entry)
        case pb.LookupInferenceRequest():
            yield from _inference_key(request.key)
        case pb.StoreInferenceRequest():
            yield from _inference_key(request.key)
            yield from _inference(request.inference)
        case pb.LookupChunksRequest():
            yield from _chunks_key(request.key)
        case pb.StoreChunksRequest():
            yield from _chunks_key(request.key)
            if not request.HasField("chunks"):
                yield FieldViolation("chunks", _REQUIRED)
            for index, span in enumerate(request.chunks.spans):
                yield from _span(f"chunks.spans[{index}]", span)


def _space(space: pb.EmbeddingSpace) -> Violations:
    yield from _digest("space.model_digest", space.model_digest)


def _digest(field: str, digest: str) -> Violations:
    if not _DIGEST.fullmatch(digest):
        yield FieldViolation(field, "Must be 64 hexadecimal digits.")


def _batch(field: str, count: int) -> Violations:
    if not 1 <= count <= MAXIMUM_BATCH:
        yield FieldViolation(field, f"Must be from 1 to {MAXIMUM_BATCH}; there are {count}.")


def _entry(field: str, entry: pb.EmbeddingEntry) -> Violations:
    if not entry.text:
        yield FieldViolation(f"{field}.text", _NOT_EMPTY)
    if not entry.HasField("vector"):
        yield FieldViolation(f"{field}.vector", _REQUIRED)
        return
    fault = vector_fault(entry.vector.float32_le, entry.vector.dimension)
    if fault is not None:
        part, rule = fault
        yield FieldViolation(f"{field}.vector.{part}", rule)


def _inference_key(key: pb.InferenceKey) -> Violations:
    yield from _digest("key.model_digest", key.model_digest)
    kind = key.WhichOneof("input")
    if kind is None:
        yield FieldViolation("key.input", "Either prompt or conversation must be set.")
    elif kind == "prompt" and not key.prompt.text:
        yield FieldViolation("key.prompt.text", _NOT_EMPTY)
    elif kind == "conversation":
        yield from _messages(key.conversation)
    yield from sampling_violations(key.sampling, field="key.sampling")


def _messages(conversation: pb.Conversation) -> Violations:
    if not conversation.messages:
        yield FieldViolation("key.conversation.messages", "Must hold at least one message.")
    for index, message in enumerate(conversation.messages):
        field = f"key.conversation.messages[{index}]"
        if message.role == generation_pb2.CHAT_ROLE_UNSPECIFIED:
            yield FieldViolation(f"{field}.role", _REQUIRED)
        if not (message.content or message.images or message.tool_calls):
            yield FieldViolation(f"{field}.content", _NOT_EMPTY)


def _inference(inference: pb.Inference) -> Violations:
    if not inference.text:
        yield FieldViolation("inference.text", _NOT_EMPTY)
    if inference.finish_reason == generation_pb2.FINISH_REASON_UNSPECIFIED:
        yield FieldViolation("inference.finish_reason", _REQUIRED)
    if inference.usage.prompt_token_count < 0:
        yield FieldViolation("inference.usage.prompt_token_count", "Must not be negative.")
    if inference.usage.completion_token_count < 0:
        yield FieldViolation("inference.usage.completion_token_count", "Must not be negative.")
    if not _is_elapsed_time(inference.generation_time):
        yield FieldViolation("inference.generation_time", "Must be a duration of 0 or more.")


def _is_elapsed_time(duration: Duration) -> bool:
    return duration.seconds >= 0 and 0 <= duration.nanos < 1_000_000_000


def _chunks_key(key: pb.ChunksKey) -> Violations:
    yield from _digest("key.content_digest", key.content_digest)
    if not 1 <= len(key.chunker_fingerprint) <= _MAXIMUM_FINGERPRINT_LENGTH:
        yield FieldViolation(
            "key.chunker_fingerprint", f"Must have 1 to {_MAXIMUM_FINGERPRINT_LENGTH} characters."
        )


def _span(field: str, span: pb.ChunkSpan) -> Violations:
    if span.char_start < 0:
        yield FieldViolation(f"{field}.char_start", "Must not be negative.")
    if span.char_end <= span.char_start:
        yield FieldViolation(f"{field}.char_end", "Must lie behind char_start.")
    if span.token_count < 1:
        yield FieldViolation(f"{field}.token_count", "Must be at least 1.")
