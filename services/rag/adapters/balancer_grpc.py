"""The balancer service, over gRPC."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerServiceStub
from pannier.common.v1 import generation_pb2
from services.common.channels import cancelled_at_end
from services.common.errors import PeerUnavailable
from services.rag.adapters.protocol import (
    answer_of,
    finish_reason_of,
    peer_error,
    to_messages,
    to_output_format,
    to_sampling,
    usage_of,
    vector_of,
)
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    ToolCall,
    ToolDefinition,
)
from services.rag.core.options import OutputFormat
from services.rag.core.windows import embedding_window
from services.rag.ports import Embedded, ModelFacts

__all__ = ["GrpcModels"]

_PAGE_SIZE = 1000
_LISTING_LIMIT_SECONDS = 2.0


class GrpcModels:
    """Asks the balancer service.

    Args:
        channel: Channel to the service.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = BalancerServiceStub(channel)

    async def list_models(self) -> tuple[ModelFacts, ...]:
        """Lists the models of the fleet by name."""
        models: list[ModelFacts] = []
        request = pb.ListModelsRequest(page_size=_PAGE_SIZE)
        while True:
            response = await answer_of(
                "balancer", self._stub.ListModels(request, timeout=_LISTING_LIMIT_SECONDS)
            )
            models += [
                ModelFacts(
                    name=each.name,
                    digest=each.digest,
                    generates=pb.MODEL_CAPABILITY_COMPLETION in each.capabilities,
                    embeds=pb.MODEL_CAPABILITY_EMBEDDING in each.capabilities,
                    context_token_count=embedding_window(each.name, each.context_token_count),
                )
                for each in response.models
            ]
            if not response.next_page_token:
                return tuple(models)
            request.page_token = response.next_page_token

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
    ) -> Embedded:
        """Turns 1 to 512 texts into vectors; `urgent` where a person waits for it."""
        request = pb.EmbedRequest(model=model, texts=texts, routing=_routing(urgent=urgent))
        response = await answer_of(
            "balancer", self._stub.Embed(request, timeout=time_limit_seconds)
        )
        vectors = [vector_of(each) for each in response.vectors]
        usable = tuple(each for each in vectors if each is not None)
        if len(usable) != len(texts) or len({len(each) for each in usable}) > 1:
            raise PeerUnavailable("balancer", "its vectors cannot be used")
        return Embedded(
            vectors=usable,
            model_digest=response.model_digest,
            token_count=response.usage.prompt_token_count,
        )

    async def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
        output_format: OutputFormat | None = None,
    ) -> AsyncGenerator[ChatStarted | str | ChatCompleted, None]:
        """Answers a conversation: started, then texts to append, then completed."""
        request = pb.ChatRequest(
            model=model,
            messages=to_messages(tuple(messages)),
            sampling=to_sampling(sampling),
            format=to_output_format(output_format),
            routing=_routing(urgent=urgent),
        )
        async with aclosing(self._chat(request, time_limit_seconds)) as events:
            async for event in events:
                if not isinstance(event, tuple):
                    yield event

    async def chat_with_tools(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        tools: Sequence[ToolDefinition],
        *,
        time_limit_seconds: float | None = None,
    ) -> AsyncGenerator[ChatStarted | str | tuple[ToolCall, ...] | ChatCompleted, None]:
        """Answers a conversation: started, then texts and calls of tools, then completed."""
        request = pb.ChatRequest(
            model=model,
            messages=to_messages(tuple(messages)),
            sampling=to_sampling(sampling),
            tools=[
                generation_pb2.ToolDefinition(
                    name=each.name,
                    description=each.description,
                    parameters_json_schema=each.parameters_json_schema,
                )
                for each in tools
            ],
        )
        async with aclosing(self._chat(request, time_limit_seconds)) as events:
            async for event in events:
                yield event

    async def _chat(
        self, request: pb.ChatRequest, time_limit_seconds: float | None
    ) -> AsyncGenerator[ChatStarted | str | tuple[ToolCall, ...] | ChatCompleted, None]:
        call = self._stub.Chat(request, timeout=time_limit_seconds)
        try:
            async with aclosing(cancelled_at_end(call)) as events:
                async for event in events:
                    kind = event.WhichOneof("event")
                    if kind == "text_delta":
                        yield event.text_delta
                    elif kind == "started":
                        started = event.started
                        yield ChatStarted(
                            model=started.model,
                            model_digest=started.model_digest,
                            backend_id=started.backend_id,
                        )
                    elif kind == "tool_calls":
                        yield tuple(
                            ToolCall(each.id, each.name, each.arguments_json)
                            for each in event.tool_calls.calls
                        )
                    elif kind == "completed":
                        yield _completed(event.completed)
        except grpc.aio.AioRpcError as error:
            raise peer_error("balancer", error) from error

    async def first_token_logprobs(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        *,
        alternative_count: int,
        time_limit_seconds: float | None = None,
    ) -> Mapping[str, float]:
        """Returns the likeliest first tokens of an answer with their logarithmic probabilities."""
        request = pb.ChatRequest(
            model=model,
            messages=to_messages(tuple(messages)),
            sampling=to_sampling(Sampling(temperature=0.0, max_output_token_count=1)),
            top_logprob_count=alternative_count,
        )
        call = self._stub.Chat(request, timeout=time_limit_seconds)
        try:
            async with aclosing(cancelled_at_end(call)) as events:
                async for event in events:
                    for token in event.logprobs.tokens:
                        alternatives = token.top or (token,)
                        return {each.token: each.logprob for each in alternatives}
        except grpc.aio.AioRpcError as error:
            raise peer_error("balancer", error) from error
        return {}


def _routing(*, urgent: bool) -> pb.RoutingOptions | None:
    return None if urgent else pb.RoutingOptions(priority=pb.PRIORITY_BATCH)


def _completed(message: pb.GenerationCompleted) -> ChatCompleted:
    return ChatCompleted(
        finish_reason=finish_reason_of(message.finish_reason),
        usage=usage_of(message.usage),
        generation_seconds=message.timings.total.ToNanoseconds() / 1e9,
    )
