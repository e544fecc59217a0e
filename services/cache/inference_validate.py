"""The rules that requests for answers must keep; all breaches are reported at once."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.cache.core.failures import MAXIMUM_MESSAGE_LENGTH
from services.cache.core.layers import Layer
from services.cache.core.leases import LONGEST_LEASE_SECONDS
from services.cache.validate import (
    MAXIMUM_QUERY_LENGTH,
    Violations,
    check,
    control_violations,
    digest_violations,
    is_elapsed_time,
    keeping_violations,
    length_violations,
    namespace_violations,
    size_violations,
)
from services.common.errors import FieldViolation
from services.common.sampling import sampling_violations

__all__ = ["validate", "validate_event"]

_MAXIMUM_TOKEN_LENGTH = 64
_LONGEST_WAIT_SECONDS = 300.0
_SHORTEST_LEASE_SECONDS = 1.0
_MAXIMUM_LOGPROBS = 20
_MAXIMUM_QUESTIONS = 8

_REQUIRED = "Must be set."
_NOT_EMPTY = "Must not be empty."
_NOT_NEGATIVE = "Must not be negative."

Request = (
    pb.LookupInferenceRequest
    | pb.StreamInferenceRequest
    | pb.StoreInferenceRequest
    | pb.ExtendLeaseRequest
    | pb.ReleaseLeaseRequest
)


def validate(request: Request) -> None:
    """Checks a request for an answer.

    Raises:
        InvalidRequest: Fields break rules; the first 16 of them are named.
    """
    check(_violations(request))


def validate_event(event: pb.FillInferenceRequest) -> None:
    """Checks a message of a fill.

    Raises:
        InvalidRequest: Fields break rules; the first 16 of them are named.
    """
    check(_event(event))


def _violations(request: Request) -> Violations:
    yield from _key("key", request)
    match request:
        case pb.LookupInferenceRequest() | pb.StreamInferenceRequest():
            yield from control_violations("control", request.control)
            yield from _flight(request.flight)
            yield from _questions(request.questions)
        case pb.StoreInferenceRequest():
            yield from keeping_violations("control", request.control, layer=Layer.INFERENCE)
            yield from _inference(request.inference)
            if request.lease_token:
                yield from _token("lease_token", request.lease_token)
        case pb.ExtendLeaseRequest():
            yield from _token("lease_token", request.lease_token)
            if request.HasField("lease_time"):
                yield from _lease_time("lease_time", request.lease_time)
        case pb.ReleaseLeaseRequest():
            yield from _token("lease_token", request.lease_token)
            if request.HasField("failure"):
                yield from _failure("failure", request.failure)


def _event(event: pb.FillInferenceRequest) -> Violations:
    match event.WhichOneof("event"):
        case "open":
            yield from _key("open.key", event.open)
            yield from _token("open.lease_token", event.open.lease_token)
            yield from keeping_violations("open.control", event.open.control, layer=Layer.INFERENCE)
        case "text_delta" | "thinking_delta" as kind:
            if not getattr(event, kind):
                yield FieldViolation(kind, _NOT_EMPTY)
        case "commit" | "hand_over" as kind:
            inference = getattr(event, kind)
            for part in ("text", "thinking"):
                if getattr(inference, part):
                    yield FieldViolation(
                        f"{kind}.{part}", "Must be left out; it is what was streamed."
                    )
            yield from _cost(kind, inference)
        case "abort":
            yield from _failure("abort", event.abort)


def _key(field: str, request: Request | pb.FillOpening) -> Violations:
    if not request.HasField("key"):
        yield FieldViolation(field, _REQUIRED)
        return
    key = request.key
    yield from digest_violations(f"{field}.model_digest", key.model_digest)
    yield from namespace_violations(f"{field}.namespace", key.namespace)
    kind = key.WhichOneof("input")
    if kind is None:
        yield FieldViolation(f"{field}.input", "Either prompt or conversation must be set.")
    elif kind == "prompt" and not key.prompt.text:
        yield FieldViolation(f"{field}.prompt.text", _NOT_EMPTY)
    elif kind == "conversation":
        yield from _messages(f"{field}.conversation.messages", key.conversation)
    yield from sampling_violations(key.sampling, field=f"{field}.sampling")
    if key.HasField("top_logprob_count") and not 0 <= key.top_logprob_count <= _MAXIMUM_LOGPROBS:
        yield FieldViolation(f"{field}.top_logprob_count", f"Must be 0 to {_MAXIMUM_LOGPROBS}.")


def _messages(field: str, conversation: pb.Conversation) -> Violations:
    if not conversation.messages:
        yield FieldViolation(field, "Must hold at least one message.")
    for index, message in enumerate(conversation.messages):
        if message.role == generation_pb2.CHAT_ROLE_UNSPECIFIED:
            yield FieldViolation(f"{field}[{index}].role", _REQUIRED)
        if not (message.content or message.images or message.tool_calls):
            yield FieldViolation(f"{field}[{index}].content", _NOT_EMPTY)


def _questions(questions: Sequence[str]) -> Violations:
    if len(questions) > _MAXIMUM_QUESTIONS:
        yield FieldViolation("questions", f"Must be at most {_MAXIMUM_QUESTIONS}.")
    for index, question in enumerate(questions):
        yield from length_violations(f"questions[{index}]", question, MAXIMUM_QUERY_LENGTH)


def _flight(flight: pb.FlightOptions) -> Violations:
    if flight.HasField("wait_limit") and not (
        is_elapsed_time(flight.wait_limit) and _seconds(flight.wait_limit) <= _LONGEST_WAIT_SECONDS
    ):
        yield FieldViolation("flight.wait_limit", "Must be from 0 s to 300 s.")
    if flight.HasField("lease_time"):
        yield from _lease_time("flight.lease_time", flight.lease_time)


def _lease_time(field: str, duration: Duration) -> Violations:
    if not (
        is_elapsed_time(duration)
        and _SHORTEST_LEASE_SECONDS <= _seconds(duration) <= LONGEST_LEASE_SECONDS
    ):
        yield FieldViolation(field, "Must be from 1 s to 120 s.")


def _token(field: str, token: str) -> Violations:
    if not 1 <= len(token) <= _MAXIMUM_TOKEN_LENGTH:
        yield FieldViolation(
            field, f"Must be the token of a lease, 1 to {_MAXIMUM_TOKEN_LENGTH} characters."
        )


def _failure(field: str, failure: pb.Failure) -> Violations:
    if len(failure.message) > MAXIMUM_MESSAGE_LENGTH:
        yield FieldViolation(
            f"{field}.message", f"Must have at most {MAXIMUM_MESSAGE_LENGTH} characters."
        )


def _inference(inference: pb.Inference) -> Violations:
    if not (inference.text or inference.tool_calls):
        yield FieldViolation("inference.text", "Must not be empty where there are no tool calls.")
    yield from size_violations("inference", inference.ByteSize())
    yield from _cost("inference", inference)


def _cost(field: str, inference: pb.Inference) -> Violations:
    if inference.finish_reason == generation_pb2.FINISH_REASON_UNSPECIFIED:
        yield FieldViolation(f"{field}.finish_reason", _REQUIRED)
    if inference.usage.prompt_token_count < 0:
        yield FieldViolation(f"{field}.usage.prompt_token_count", _NOT_NEGATIVE)
    if inference.usage.completion_token_count < 0:
        yield FieldViolation(f"{field}.usage.completion_token_count", _NOT_NEGATIVE)
    if not is_elapsed_time(inference.generation_time):
        yield FieldViolation(f"{field}.generation_time", "Must be a duration of 0 or more.")


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
