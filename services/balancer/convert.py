"""Requests as the protos have them, checked and turned into ours; and our events turned back."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2, vector_pb2
from services.balancer.core.names import is_model_name
from services.balancer.core.requests import (
    Completed,
    EmbeddingRequest,
    EmbeddingResult,
    FinishReason,
    GenerationRequest,
    Message,
    Operation,
    Role,
    Sampling,
    Started,
    TextDelta,
)
from services.balancer.core.selection import Reason
from services.common.errors import FieldViolation, InvalidRequest

__all__ = [
    "chat_request",
    "duration",
    "embed_response",
    "embedding_request",
    "fill_event",
    "generation_request",
    "page_size",
]

MAXIMUM_PROMPT_CHARACTERS = 1_000_000
MAXIMUM_SYSTEM_CHARACTERS = 100_000
MAXIMUM_MESSAGES = 256
MAXIMUM_TEXTS = 512
MAXIMUM_TEXT_CHARACTERS = 100_000
MAXIMUM_STOP_SEQUENCES = 8
MINIMUM_CONTEXT_TOKENS = 256
MAXIMUM_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100

_ROLES = {
    generation_pb2.CHAT_ROLE_SYSTEM: Role.SYSTEM,
    generation_pb2.CHAT_ROLE_USER: Role.USER,
    generation_pb2.CHAT_ROLE_ASSISTANT: Role.ASSISTANT,
}
_REASONS = {
    Reason.LOWEST_LOAD: pb.ROUTING_REASON_LOWEST_LOAD,
    Reason.ONLY_CANDIDATE: pb.ROUTING_REASON_ONLY_CANDIDATE,
    Reason.ROUND_ROBIN_FALLBACK: pb.ROUTING_REASON_ROUND_ROBIN_FALLBACK,
}
_FINISH_REASONS = {
    FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.OTHER: generation_pb2.FINISH_REASON_UNSPECIFIED,
}

Violations = Iterator[FieldViolation]
EventMessage = TypeVar("EventMessage", pb.GenerateResponse, pb.ChatResponse)


def generation_request(message: pb.GenerateRequest) -> GenerationRequest:
    """Reads a request to continue a prompt.

    Raises:
        InvalidRequest: Fields break the rules of the proto; all of them are named.
    """
    _refuse(
        (
            *_model_violations(message.model),
            *_length_violations("prompt", message.prompt, MAXIMUM_PROMPT_CHARACTERS),
            *_length_violations("system", message.system, MAXIMUM_SYSTEM_CHARACTERS, minimum=0),
            *_sampling_violations(message.sampling),
        )
    )
    return GenerationRequest(
        operation=Operation.GENERATE,
        model=message.model,
        prompt=message.prompt,
        system=message.system,
        sampling=_sampling(message.sampling),
    )


def chat_request(message: pb.ChatRequest) -> GenerationRequest:
    """Reads a request for the next message of a conversation.

    Raises:
        InvalidRequest: Fields break the rules of the proto; all of them are named.
    """
    _refuse(
        (
            *_model_violations(message.model),
            *_message_violations(message.messages),
            *_sampling_violations(message.sampling),
        )
    )
    return GenerationRequest(
        operation=Operation.CHAT,
        model=message.model,
        messages=tuple(
            Message(role=_ROLES[each.role], content=each.content) for each in message.messages
        ),
        sampling=_sampling(message.sampling),
    )


def embedding_request(message: pb.EmbedRequest) -> EmbeddingRequest:
    """Reads a request for vectors.

    Raises:
        InvalidRequest: Fields break the rules of the proto; all of them are named.
    """
    _refuse((*_model_violations(message.model), *_text_violations(message.texts)))
    return EmbeddingRequest(model=message.model, texts=tuple(message.texts))


def page_size(message: pb.ListModelsRequest) -> int:
    """Reads the size of a page.

    Raises:
        InvalidRequest: It is negative.
    """
    if message.page_size < 0:
        raise InvalidRequest(FieldViolation("page_size", "Must not be negative."))
    return min(message.page_size or DEFAULT_PAGE_SIZE, MAXIMUM_PAGE_SIZE)


def _refuse(violations: Iterable[FieldViolation]) -> None:
    found = tuple(violations)
    if found:
        raise InvalidRequest(*found)


def _model_violations(model: str) -> Violations:
    if not model:
        yield FieldViolation("model", "Must name a model; ListModels shows those there are.")
    elif not is_model_name(model):
        yield FieldViolation("model", 'Must be a model name such as "llama3.2" or "llama3.2:3b".')


def _length_violations(field: str, text: str, maximum: int, *, minimum: int = 1) -> Violations:
    if not minimum <= len(text) <= maximum:
        yield FieldViolation(
            field, f"Must have {minimum} to {maximum} characters, has {len(text)}."
        )


def _message_violations(messages: Iterable[generation_pb2.ChatMessage]) -> Violations:
    count = characters = 0
    for index, message in enumerate(messages):
        count += 1
        characters += len(message.content)
        if message.role not in _ROLES:
            yield FieldViolation(f"messages[{index}].role", "Must be SYSTEM, USER or ASSISTANT.")
        if not message.content:
            yield FieldViolation(f"messages[{index}].content", "Must not be empty.")
    if not 1 <= count <= MAXIMUM_MESSAGES:
        yield FieldViolation(
            "messages", f"Must be 1 to {MAXIMUM_MESSAGES} messages, there are {count}."
        )
    if characters > MAXIMUM_PROMPT_CHARACTERS:
        yield FieldViolation(
            "messages",
            f"Must have at most {MAXIMUM_PROMPT_CHARACTERS} characters in all, has {characters}.",
        )


def _text_violations(texts: Iterable[str]) -> Violations:
    count = 0
    for index, text in enumerate(texts):
        count += 1
        yield from _length_violations(f"texts[{index}]", text, MAXIMUM_TEXT_CHARACTERS)
    if not 1 <= count <= MAXIMUM_TEXTS:
        yield FieldViolation("texts", f"Must be 1 to {MAXIMUM_TEXTS} texts, there are {count}.")


def _sampling_violations(sampling: generation_pb2.SamplingOptions) -> Violations:
    # Written so that what is not a number fails too.
    if not 0 <= sampling.temperature <= 2:
        yield FieldViolation("sampling.temperature", "Must be from 0 to 2.")
    if sampling.HasField("top_p") and not 0 < sampling.top_p <= 1:
        yield FieldViolation("sampling.top_p", "Must be above 0 and at most 1.")
    if sampling.HasField("top_k") and sampling.top_k < 1:
        yield FieldViolation("sampling.top_k", "Must be at least 1.")
    if sampling.HasField("max_output_token_count") and sampling.max_output_token_count < 1:
        yield FieldViolation("sampling.max_output_token_count", "Must be at least 1.")
    if (
        sampling.HasField("context_token_count")
        and sampling.context_token_count < MINIMUM_CONTEXT_TOKENS
    ):
        yield FieldViolation(
            "sampling.context_token_count", f"Must be at least {MINIMUM_CONTEXT_TOKENS}."
        )
    if len(sampling.stop_sequences) > MAXIMUM_STOP_SEQUENCES:
        yield FieldViolation(
            "sampling.stop_sequences", f"Must be at most {MAXIMUM_STOP_SEQUENCES} texts."
        )
    for index, text in enumerate(sampling.stop_sequences):
        if not text:
            yield FieldViolation(f"sampling.stop_sequences[{index}]", "Must not be empty.")


def _sampling(message: generation_pb2.SamplingOptions) -> Sampling:
    return Sampling(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        seed=message.seed if message.HasField("seed") else None,
        max_output_token_count=(
            message.max_output_token_count if message.HasField("max_output_token_count") else None
        ),
        context_token_count=(
            message.context_token_count if message.HasField("context_token_count") else None
        ),
        stop_sequences=tuple(message.stop_sequences),
    )


def fill_event(message: EventMessage, event: Started | TextDelta | Completed) -> EventMessage:
    """Writes an event of a generation into a message, and returns the message."""
    match event:
        case TextDelta(text):
            message.text_delta = text
        case Started():
            message.started.CopyFrom(_started(event))
        case Completed():
            message.completed.CopyFrom(_completed(event))
    return message


def _started(event: Started) -> pb.GenerationStarted:
    return pb.GenerationStarted(
        model=event.model,
        model_digest=event.model_digest,
        backend_id=event.backend_id,
        attempt_count=event.attempt_count,
        routing_reason=_REASONS[event.reason],
    )


def _completed(event: Completed) -> pb.GenerationCompleted:
    completion = event.completion
    return pb.GenerationCompleted(
        finish_reason=_FINISH_REASONS[completion.finish_reason],
        usage=generation_pb2.TokenUsage(
            prompt_token_count=completion.prompt_token_count,
            completion_token_count=completion.output_token_count,
        ),
        timings=generation_pb2.GenerationTimings(
            total=duration(event.total_seconds),
            first_token=duration(event.first_token_seconds),
            model_load=duration(completion.load_seconds),
            prompt_evaluation=duration(completion.prompt_seconds),
            generation=duration(completion.output_seconds),
        ),
    )


def embed_response(result: EmbeddingResult) -> pb.EmbedResponse:
    """Writes vectors."""
    vectors = result.vectors.astype("<f4", copy=False)
    dimension = vectors.shape[1]
    return pb.EmbedResponse(
        vectors=[
            vector_pb2.EmbeddingVector(float32_le=vector.tobytes(), dimension=dimension)
            for vector in vectors
        ],
        model=result.model,
        model_digest=result.model_digest,
        backend_id=result.backend_id,
        attempt_count=result.attempt_count,
        usage=generation_pb2.TokenUsage(prompt_token_count=result.prompt_token_count),
    )


def duration(seconds: float) -> Duration:
    """Writes a duration of 0 s or more."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
