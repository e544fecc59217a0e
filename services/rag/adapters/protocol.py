"""Between the rag service's values and the messages that cache and balancer share."""

from collections.abc import Awaitable
from typing import TypeVar

import grpc
import numpy as np

from pannier.common.v1 import generation_pb2, vector_pb2
from services.common.errors import PeerUnavailable, RelayedError, StatusCode
from services.common.status import error_from_call
from services.rag.core.conversation import ChatMessage, Sampling, TokenUsage
from services.rag.core.model import Vector

__all__ = [
    "FINISH_REASONS",
    "answer_of",
    "peer_error",
    "to_messages",
    "to_sampling",
    "to_usage",
    "to_vector",
    "usage_of",
    "vector_of",
]

T = TypeVar("T")

_ROLES = {
    "system": generation_pb2.CHAT_ROLE_SYSTEM,
    "user": generation_pb2.CHAT_ROLE_USER,
    "assistant": generation_pb2.CHAT_ROLE_ASSISTANT,
}

FINISH_REASONS = {
    "stop": generation_pb2.FINISH_REASON_STOP,
    "length": generation_pb2.FINISH_REASON_LENGTH,
}


def to_messages(messages: tuple[ChatMessage, ...]) -> list[generation_pb2.ChatMessage]:
    """Writes a conversation."""
    return [
        generation_pb2.ChatMessage(role=_ROLES[each.role], content=each.content)
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
    )


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


def vector_of(message: vector_pb2.EmbeddingVector) -> Vector:
    """Reads a vector; the array is read-only and shares the message's bytes."""
    return np.frombuffer(message.float32_le, dtype="<f4")


def peer_error(peer: str, error: grpc.aio.AioRpcError) -> PeerUnavailable | RelayedError:
    """Says what a failed call to another service means for us.

    Args:
        peer: Name of the service called.
        error: The failure.
    """
    relayed = error_from_call(error)
    if relayed.error_reason != relayed.status_code.name:
        return relayed
    if relayed.status_code is StatusCode.DEADLINE_EXCEEDED:
        return RelayedError(
            f"The service {peer} did not answer in time. Set a longer deadline.",
            code=relayed.status_code,
            reason=relayed.error_reason,
            metadata={"peer": peer},
        )
    if relayed.status_code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
        return PeerUnavailable(peer, relayed.message)
    return relayed


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
