"""The balancer service, over gRPC."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerServiceStub
from services.common.channels import cancelled_at_end
from services.common.errors import PeerUnavailable
from services.rag.adapters.protocol import (
    answer_of,
    finish_reason_of,
    peer_error,
    to_messages,
    to_sampling,
    usage_of,
    vector_of,
)
from services.rag.core.conversation import ChatCompleted, ChatMessage, ChatStarted, Sampling
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
        return Embedded(vectors=usable, model_digest=response.model_digest)

    async def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
    ) -> AsyncGenerator[ChatStarted | str | ChatCompleted, None]:
        """Answers a conversation: started, then texts to append, then completed."""
        request = pb.ChatRequest(
            model=model,
            messages=to_messages(tuple(messages)),
            sampling=to_sampling(sampling),
            routing=_routing(urgent=urgent),
        )
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
                    elif kind == "completed":
                        yield _completed(event.completed)
        except grpc.aio.AioRpcError as error:
            raise peer_error("balancer", error) from error


def _routing(*, urgent: bool) -> pb.RoutingOptions | None:
    return None if urgent else pb.RoutingOptions(priority=pb.PRIORITY_BATCH)


def _completed(message: pb.GenerationCompleted) -> ChatCompleted:
    return ChatCompleted(
        finish_reason=finish_reason_of(message.finish_reason),
        usage=usage_of(message.usage),
        generation_seconds=message.timings.total.ToNanoseconds() / 1e9,
    )
