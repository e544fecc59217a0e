"""Has calls that a program makes to models by itself counted with all others.

    async with tracking_model_call(stub, model="gpt-4o", mode="summary") as call:
        reply = await my_client.complete(prompt)
        call.prompt_token_count = reply.usage.input_tokens
        call.completion_token_count = reply.usage.output_tokens

Counting never makes the program fail: what cannot be counted, because the service is away or
refuses it, is left out, and `counted` says so.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc

from pannier.client.errors import RemoteError
from pannier.rag.v1 import usage_service_pb2 as pb

__all__ = ["ModelCall", "track_model_call", "tracking_model_call"]

_ATTEMPTS = 2


@dataclass(slots=True, kw_only=True)
class ModelCall:
    """A call to a model.

    Attributes:
        model: Name of the model.
        mode: What it was for; a-z, 0-9, '.', '_', '-'.
        prompt_token_count: Tokens read.
        completion_token_count: Tokens generated.
        cached: Whether the answer came from a cache; the tokens then count as saved.
        cost_nanos: What it cost, in billionths of the currency; None to go by the service's prices.
        idempotency_key: Name by which it is counted once, however often it is sent.
        counted: Whether it has been counted, this time or before; known afterwards.
        error: Why it has not.
    """

    model: str
    mode: str = ""
    prompt_token_count: int = 0
    completion_token_count: int = 0
    cached: bool = False
    cost_nanos: int | None = None
    idempotency_key: str = field(default_factory=lambda: str(uuid4()))
    counted: bool = False
    error: RemoteError | None = None


async def track_model_call(stub: Any, call: ModelCall, *, timeout_seconds: float = 5.0) -> None:
    """Has a call counted; sent again once where it is not known to have arrived.

    Args:
        stub: A `UsageServiceStub`.
        call: The call; learns what came of it.
        timeout_seconds: Longest time of an attempt.
    """
    request = pb.TrackModelCallRequest(
        model=call.model,
        mode=call.mode,
        prompt_token_count=call.prompt_token_count,
        completion_token_count=call.completion_token_count,
        cached=call.cached,
        cost_nanos=call.cost_nanos,
        idempotency_key=call.idempotency_key,
    )
    for _ in range(_ATTEMPTS):
        try:
            await stub.TrackModelCall(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            call.error = RemoteError.from_call(error)
            if error.code() not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            ):
                return
        else:
            call.counted, call.error = True, None
            return


@asynccontextmanager
async def tracking_model_call(
    stub: Any, *, model: str, mode: str = "", timeout_seconds: float = 5.0
) -> AsyncIterator[ModelCall]:
    """Has what happens inside the context counted as a call, also where it fails.

    Args:
        stub: A `UsageServiceStub`.
        model: Name of the model.
        mode: What the call is for.
        timeout_seconds: Longest time of an attempt to have it counted.
    """
    call = ModelCall(model=model, mode=mode)
    try:
        yield call
    finally:
        await track_model_call(stub, call, timeout_seconds=timeout_seconds)
