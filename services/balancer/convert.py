"""Requests as the protos have them, checked and turned into ours."""

from collections.abc import Iterable
from itertools import chain, islice

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.balancer import convert_checks as checks
from services.balancer.convert_answers import duration, embed_response, fill_event
from services.balancer.convert_checks import PRIORITIES, RESUME_MODES, THINKING_LEVELS
from services.balancer.convert_contents import ROLES, conversation_violations, tool_violations
from services.balancer.core.requests import (
    EmbeddingRequest,
    GenerationRequest,
    Message,
    Operation,
    OutputFormat,
    Routing,
    Sampling,
    ToolCall,
    ToolDefinition,
)
from services.common.errors import MAXIMUM_VIOLATIONS, FieldViolation, InvalidRequest
from services.common.pagination import check_page_size
from services.common.sampling import sampling_violations
from services.common.validation import Violations

__all__ = [
    "chat_request",
    "duration",
    "embed_response",
    "embedding_request",
    "fill_event",
    "generation_request",
    "page_size",
]


def generation_request(message: pb.GenerateRequest) -> GenerationRequest:
    """Reads a request to continue a prompt.

    Raises:
        InvalidRequest: Fields break the rules of the proto; the first 16 are named.
    """
    _refuse(
        checks.model_violations(message.model),
        checks.prompt_violations(message),
        sampling_violations(message.sampling, field="sampling"),
        checks.answer_violations(message),
        checks.routing_violations(message.routing),
        checks.resume_violations(message.routing, structured=message.HasField("format")),
    )
    return GenerationRequest(
        operation=Operation.GENERATE,
        model=message.model,
        prompt=message.prompt,
        system=message.system,
        suffix=message.suffix,
        raw=message.raw,
        images=tuple(message.images),
        sampling=_sampling(message.sampling),
        output_format=_output_format(message),
        thinking=THINKING_LEVELS[message.thinking],
        top_logprob_count=_top_logprob_count(message),
        routing=_routing(message.routing),
    )


def chat_request(message: pb.ChatRequest) -> GenerationRequest:
    """Reads a request for the next message of a conversation.

    Raises:
        InvalidRequest: Fields break the rules of the proto; the first 16 are named.
    """
    structured = message.HasField("format") or len(message.tools) > 0
    _refuse(
        checks.model_violations(message.model),
        conversation_violations(message.messages),
        sampling_violations(message.sampling, field="sampling"),
        tool_violations(message.tools),
        checks.answer_violations(message),
        checks.routing_violations(message.routing),
        checks.resume_violations(message.routing, structured=structured),
    )
    return GenerationRequest(
        operation=Operation.CHAT,
        model=message.model,
        messages=tuple(_message(each) for each in message.messages),
        tools=tuple(
            ToolDefinition(
                name=each.name,
                description=each.description,
                parameters_json_schema=each.parameters_json_schema,
            )
            for each in message.tools
        ),
        sampling=_sampling(message.sampling),
        output_format=_output_format(message),
        thinking=THINKING_LEVELS[message.thinking],
        top_logprob_count=_top_logprob_count(message),
        routing=_routing(message.routing),
    )


def embedding_request(message: pb.EmbedRequest) -> EmbeddingRequest:
    """Reads a request for vectors.

    Raises:
        InvalidRequest: Fields break the rules of the proto; the first 16 are named.
    """
    _refuse(
        checks.model_violations(message.model),
        checks.text_violations(message.texts),
        checks.dimension_violations(message),
        checks.routing_violations(message.routing),
    )
    return EmbeddingRequest(
        model=message.model,
        texts=tuple(message.texts),
        dimension=message.dimension if message.HasField("dimension") else None,
        routing=_routing(message.routing),
    )


def page_size(message: pb.ListModelsRequest) -> int:
    """Reads the size of a page.

    Raises:
        InvalidRequest: It is negative.
    """
    violations = Violations()
    size = check_page_size(message.page_size, violations)
    violations.raise_found()
    return size


def _refuse(*checked: Iterable[FieldViolation]) -> None:
    # No more are looked for than can be told.
    found = tuple(islice(chain.from_iterable(checked), MAXIMUM_VIOLATIONS))
    if found:
        raise InvalidRequest(*found)


def _message(message: generation_pb2.ChatMessage) -> Message:
    return Message(
        role=ROLES[message.role],
        content=message.content,
        images=tuple(message.images),
        thinking=message.thinking,
        tool_calls=tuple(
            ToolCall(id=each.id, name=each.name, arguments_json=each.arguments_json)
            for each in message.tool_calls
        ),
        tool_name=message.tool_name,
        tool_call_id=message.tool_call_id,
    )


def _sampling(message: generation_pb2.SamplingOptions) -> Sampling:
    given = {field.name: value for field, value in message.ListFields()}
    given["stop_sequences"] = tuple(message.stop_sequences)
    return Sampling(**given)


def _output_format(message: pb.GenerateRequest | pb.ChatRequest) -> OutputFormat | None:
    return OutputFormat(message.format.json_schema) if message.HasField("format") else None


def _top_logprob_count(message: pb.GenerateRequest | pb.ChatRequest) -> int | None:
    return message.top_logprob_count if message.HasField("top_logprob_count") else None


def _routing(message: pb.RoutingOptions) -> Routing:
    seconds = message.maximum_wait.ToNanoseconds() / 1e9
    return Routing(
        priority=PRIORITIES[message.priority],
        model_digest=message.model_digest.lower() or None,
        resume=RESUME_MODES[message.resume],
        maximum_wait_seconds=seconds if message.HasField("maximum_wait") else None,
    )
