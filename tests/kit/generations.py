"""Requests for text, and what is read of their streams."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.common.errors import RelayedError
from services.common.status import error_from_call
from tests.kit.standin import CHAT_MODEL

__all__ = ["PROMPT", "chat", "generation", "kinds", "read", "read_all", "text_of", "unrelated"]

PROMPT = (
    "Sources:\n[1] The llama carries two baskets. A basket is called a pannier.\n\n"
    "Question: What does the llama carry?"
)


def unrelated(number: int) -> str:
    """Makes a prompt that has nothing in common with the others, for a memory to prefer."""
    return f"{number} is what this is about. Say something of number {number}."


def generation(prompt: str = PROMPT, model: str = CHAT_MODEL, **fields: Any) -> pb.GenerateRequest:
    """Makes a request to continue a prompt."""
    return pb.GenerateRequest(model=model, prompt=prompt, **fields)


def chat(content: str = PROMPT, model: str = CHAT_MODEL, **fields: Any) -> pb.ChatRequest:
    """Makes a request to answer one message."""
    message = generation_pb2.ChatMessage(role=generation_pb2.CHAT_ROLE_USER, content=content)
    return pb.ChatRequest(model=model, messages=[message], **fields)


async def read(call: Any) -> tuple[list[Any], RelayedError | None]:
    """Reads a stream to its end, and returns its events and what it failed with."""
    events: list[Any] = []
    try:
        while (event := await call.read()) is not grpc.aio.EOF:
            events.append(event)
    except grpc.aio.AioRpcError as error:
        return events, error_from_call(error)
    return events, None


async def read_all(*calls: Any) -> list[tuple[list[Any], RelayedError | None]]:
    """Reads streams at the same time, so that no backend is left out that has nothing to do."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(call)) for call in calls]
    return [task.result() for task in tasks]


def kinds(events: Sequence[Any]) -> list[str]:
    """Returns what kinds of events they are."""
    return [event.WhichOneof("event") for event in events]


def text_of(events: Sequence[Any]) -> str:
    """Returns the text that the deltas make."""
    return "".join(event.text_delta for event in events)
