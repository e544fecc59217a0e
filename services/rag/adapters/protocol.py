"""Between the rag service's values and the messages that cache and balancer share."""

from collections.abc import Awaitable
from math import sqrt
from typing import TypeVar

import grpc
import numpy as np

from pannier.common.v1 import generation_pb2, vector_pb2
from services.common.errors import PeerUnavailable, RelayedError, StatusCode
from services.common.status import error_from_call
from services.rag.core.conversation import ChatMessage, Sampling, TokenUsage
from services.rag.core.documents import Vector
from services.rag.core.options import OutputFormat

__all__ = [
    "FINISH_REASONS",
    "answer_of",
    "finish_reason_of",
    "peer_error",
    "to_messages",
    "to_output_format",
    "to_sampling",
    "to_usage",
    "to_vector",
    "usage_of",
    "vector_of",
]

T = TypeVar("T")

# Squares of lengths between which vectors fit half precision, 6e-8 to 65,504, without losing much.
_LEAST_SQUARE, _MOST_SQUARE = 1e-2, 1e8

_ROLES = {
    "system": generation_pb2.CHAT_ROLE_SYSTEM,
    "user": generation_pb2.CHAT_ROLE_USER,
    "assistant": generation_pb2.CHAT_ROLE_ASSISTANT,
    "tool": generation_pb2.CHAT_ROLE_TOOL,
}

# What other reasons there may be one day is not known here.
FINISH_REASONS = {
    "stop": generation_pb2.FINISH_REASON_STOP,
    "length": generation_pb2.FINISH_REASON_LENGTH,
}


def finish_reason_of(number: generation_pb2.FinishReason.ValueType) -> str:
    """Reads why a generation ended; empty where that is not known."""
    return next((name for name, each in FINISH_REASONS.items() if each == number), "")


def to_messages(messages: tuple[ChatMessage, ...]) -> list[generation_pb2.ChatMessage]:
    """Writes a conversation."""
    return [
        generation_pb2.ChatMessage(
            role=_ROLES[each.role],
            content=each.content,
            tool_calls=[
                generation_pb2.ToolCall(
                    id=call.id, name=call.name, arguments_json=call.arguments_json
                )
                for call in each.tool_calls
            ],
            tool_name=each.tool_name,
            tool_call_id=each.tool_call_id,
        )
        for each in messages
    ]


def to_sampling(sampling: Sampling) -> generation_pb2.SamplingOptions:
    """Writes sampling options; what is None stays absent."""
    return generation_pb2.SamplingOptions(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        max_output_token_count=sampling.max_output_token_count,
        context_token_count=sampling.context_token_count,
        stop_sequences=sampling.stop_sequences,
        min_p=sampling.min_p,
        repeat_penalty=sampling.repeat_penalty,
        repeat_last_token_count=sampling.repeat_last_token_count,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
    )


def to_output_format(form: OutputFormat | None) -> generation_pb2.OutputFormat | None:
    """Writes the form that an answer must have; None stays absent."""
    if form is None:
        return None
    if form.json_schema:
        return generation_pb2.OutputFormat(json_schema=form.json_schema)
    return generation_pb2.OutputFormat(json=True)


def to_usage(usage: TokenUsage) -> generation_pb2.TokenUsage:
    """Writes token counts."""
    return generation_pb2.TokenUsage(
        prompt_token_count=usage.prompt_token_count,
        completion_token_count=usage.completion_token_count,
    )


def usage_of(message: generation_pb2.TokenUsage) -> TokenUsage:
    """Reads token counts."""
    return TokenUsage(message.prompt_token_count, message.completion_token_count)


def to_vector(vector: Vector) -> vector_pb2.EmbeddingVector:
    """Writes a vector."""
    return vector_pb2.EmbeddingVector(
        float32_le=vector.astype("<f4", copy=False).tobytes(), dimension=len(vector)
    )


def vector_of(message: vector_pb2.EmbeddingVector) -> Vector | None:
    """Reads a vector; the array is read-only and shares the message's bytes.

    Returns:
        The vector, scaled where half precision, in which it is stored, has no room for it; only
        its direction counts. None where the message does not hold one that can be compared.
    """
    if not message.dimension or len(message.float32_le) != 4 * message.dimension:
        return None
    vector = np.frombuffer(message.float32_le, dtype="<f4")
    # One pass: a sum of squares is finite and above 0 exactly where each part is finite and one
    # is not 0.
    square = float(np.dot(vector, vector))
    if not np.isfinite(square) or square <= 0:
        return None
    if _LEAST_SQUARE <= square <= _MOST_SQUARE:
        return vector
    return (vector / sqrt(square)).astype(np.float32)


def peer_error(peer: str, error: grpc.aio.AioRpcError) -> PeerUnavailable | RelayedError:
    """Says what a failed call to another service means for us.

    Args:
        peer: Name of the service called.
        error: The failure.
    """
    relayed = error_from_call(error)
    if relayed.error_reason:
        return relayed
    if relayed.status_code is StatusCode.DEADLINE_EXCEEDED:
        return RelayedError(
            f"The service {peer} did not answer in time. Set a longer deadline.",
            code=relayed.status_code,
            reason="DEADLINE_EXCEEDED",
            metadata={"peer": peer},
        )
    return PeerUnavailable(peer, relayed.message)


async def answer_of(peer: str, call: Awaitable[T]) -> T:
    """Awaits a call to another service.

    Raises:
        PeerUnavailable: The service did not answer.
        RelayedError: It answered with an error.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise peer_error(peer, error) from error
