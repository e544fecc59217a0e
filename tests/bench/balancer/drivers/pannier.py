"""A client of the balancer: the generated stub, as an application would use it."""

from typing import Self

import grpc

from pannier.balancer.v1 import balancer_service_pb2 as messages
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerServiceStub
from pannier.common.v1 import generation_pb2 as generation
from services.common.identity import TENANT_HEADER
from tests.bench.balancer.drivers.port import Failed, Progress
from tests.bench.balancer.traces import Request

__all__ = ["PannierClient"]

_OPTIONS = [("grpc.max_receive_message_length", -1)]


class PannierClient:
    """Calls the balancer over one channel.

    Args:
        address: Host and port.
        deadline_wall_seconds: Deadline of each call.
        resume: Whether an answer may go on at another backend when one fails.
    """

    def __init__(self, address: str, *, deadline_wall_seconds: float, resume: bool = False) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stub = BalancerServiceStub(self._channel)
        self._deadline = deadline_wall_seconds
        mode = messages.RESUME_MODE_ONCE if resume else messages.RESUME_MODE_UNSPECIFIED
        self._routing = messages.RoutingOptions(resume=mode)

    async def __aenter__(self) -> Self:
        """Waits for the connection."""
        await self._channel.channel_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connection."""
        await self._channel.close(None)

    async def chat(self, request: Request, system: str, user: str, progress: Progress) -> None:
        """Has a conversation answered."""
        turns = [generation.ChatMessage(role=generation.CHAT_ROLE_USER, content=user)]
        if system:
            turns.insert(
                0, generation.ChatMessage(role=generation.CHAT_ROLE_SYSTEM, content=system)
            )
        call = self._stub.Chat(
            messages.ChatRequest(model=request.model, messages=turns, routing=self._routing),
            timeout=self._deadline,
            metadata=((TENANT_HEADER, request.tenant),),
        )
        completed = False
        try:
            async for event in call:
                if event.text_delta:
                    progress.note()
                elif event.HasField("completed"):
                    completed = True
                    progress.token_count = event.completed.usage.completion_token_count
        except grpc.aio.AioRpcError as error:
            raise Failed(f"grpc_{error.code().name.lower()}") from None
        finally:
            call.cancel()
        if not completed:
            raise Failed("stream_broken")

    async def embed(self, request: Request, texts: list[str], progress: Progress) -> None:
        """Has texts turned into vectors."""
        try:
            reply = await self._stub.Embed(
                messages.EmbedRequest(model=request.model, texts=texts),
                timeout=self._deadline,
                metadata=((TENANT_HEADER, request.tenant),),
            )
        except grpc.aio.AioRpcError as error:
            raise Failed(f"grpc_{error.code().name.lower()}") from None
        if len(reply.vectors) != len(texts):
            raise Failed("vectors_missing")
        progress.note()
        progress.token_count = reply.usage.prompt_token_count
