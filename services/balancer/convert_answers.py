"""Our events and results, turned into what the protos have for them."""

from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2, vector_pb2
from services.balancer.core.requests import (
    Completed,
    Delta,
    EmbeddingResult,
    FinishReason,
    LogprobsDelta,
    Resumed,
    Started,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallsDelta,
)

__all__ = ["duration", "embed_response", "fill_event"]

_FINISH_REASONS = {
    FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.OTHER: generation_pb2.FINISH_REASON_UNSPECIFIED,
}

EventMessage = TypeVar("EventMessage", pb.GenerateResponse, pb.ChatResponse)


def fill_event(message: EventMessage, event: Started | Delta | Resumed | Completed) -> EventMessage:
    """Writes an event of a generation into a message, and returns the message."""
    match event:
        case TextDelta(text):
            message.text_delta = text
        case ThinkingDelta(text):
            message.thinking_delta = text
        case ToolCallsDelta():
            # Continuing a prompt knows no tools: nothing could ask for one.
            if isinstance(message, pb.ChatResponse):
                message.tool_calls.CopyFrom(_tool_calls(event))
        case LogprobsDelta(tokens):
            message.logprobs.tokens.extend([_token_logprob(each) for each in tokens])
        case Started():
            message.started.CopyFrom(_started(event))
        case Resumed():
            message.resumed.CopyFrom(
                pb.GenerationResumed(
                    backend_id=event.backend_id,
                    emitted_character_count=event.emitted_character_count,
                    cause=event.cause,
                )
            )
        case Completed():
            message.completed.CopyFrom(_completed(event))
    return message


def _tool_calls(event: ToolCallsDelta) -> pb.ToolCalls:
    return pb.ToolCalls(
        calls=[
            generation_pb2.ToolCall(id=each.id, name=each.name, arguments_json=each.arguments_json)
            for each in event.calls
        ]
    )


def _token_logprob(value: TokenLogprob) -> generation_pb2.TokenLogprob:
    return generation_pb2.TokenLogprob(
        token=value.token,
        logprob=value.logprob,
        token_bytes=value.token_bytes,
        top=[_token_logprob(each) for each in value.top],
    )


def _started(event: Started) -> pb.GenerationStarted:
    return pb.GenerationStarted(
        model=event.model,
        model_digest=event.model_digest,
        backend_id=event.backend_id,
        attempt_count=event.attempt_count,
        routing_reason=pb.RoutingReason.Value(f"ROUTING_REASON_{event.reason.name}"),
        decision_id=event.decision_id,
        queue_wait=duration(event.queue_seconds),
        predicted_first_token=duration(event.predicted_first_token_seconds),
        context_token_count=event.context_token_count,
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
            queue_wait=duration(event.queue_seconds),
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
        backend_ids=result.backend_ids,
        duplicate_text_count=result.duplicate_text_count,
        decision_ids=result.decision_ids,
    )


def duration(seconds: float) -> Duration:
    """Writes a duration of 0 s or more."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
