"""Asks the questions of `pannier load`, and says what became of each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from pannier.client import TENANT_HEADER, RemoteError
from pannier.load.outcome import Outcome
from pannier.load.traffic import Ask
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1 import rag_service_pb2_grpc

__all__ = ["AskOptions", "Asker"]

_CACHED = frozenset({pb.ANSWER_ORIGIN_CACHED, pb.ANSWER_ORIGIN_CACHED_SIMILAR})
_CACHE_POLICIES = {
    "use": pb.CACHE_POLICY_USE,
    "bypass": pb.CACHE_POLICY_BYPASS,
    "refresh": pb.CACHE_POLICY_REFRESH,
}
_WEB_POLICIES = {
    "auto": pb.WEB_POLICY_UNSPECIFIED,
    "never": pb.WEB_POLICY_NEVER,
    "always": pb.WEB_POLICY_ALWAYS,
}
_MODES = {
    "direct": pb.QUERY_MODE_DIRECT,
    "rag": pb.QUERY_MODE_RAG,
    "deep": pb.QUERY_MODE_DEEP,
    "agent": pb.QUERY_MODE_AGENT,
}
_INCOMPLETE = "ANSWER_INCOMPLETE"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """How questions are asked.

    Attributes:
        collection: Collection they are about.
        streaming: Whether answers are streamed.
        deadline_seconds: How long an answer may take.
    """

    collection: str
    streaming: bool = True
    deadline_seconds: float = 120.0


class Asker:
    """Asks questions over one or more channels.

    Args:
        channels: Taken in turn; a connection of its own each.
        options: How questions are asked.
    """

    def __init__(self, channels: Sequence[grpc.aio.Channel], options: AskOptions) -> None:
        self._options = options
        self._stubs: list[Any] = [rag_service_pb2_grpc.RagServiceStub(each) for each in channels]
        self._next = 0

    async def send(
        self, ask: Ask, *, model: str = "", cache_policy: str = "use", web: str = "auto"
    ) -> Outcome:
        """Asks a question and returns what became of it.

        Args:
            ask: The question.
            model: Model that answers; empty for the service's.
            cache_policy: `use`, `bypass` or `refresh`.
            web: `auto`, `never` or `always`.
        """
        self._next = (self._next + 1) % len(self._stubs)
        stub = self._stubs[self._next]
        request = pb.QueryRequest(
            collection="" if ask.mode == "direct" else self._options.collection,
            query=ask.text,
            mode=_MODES[ask.mode],
            model=model,
            cache_policy=_CACHE_POLICIES[cache_policy],
            web=_WEB_POLICIES[web],
            include_passage_texts=False,
        )
        arguments: dict[str, Any] = {
            "timeout": self._options.deadline_seconds,
            "metadata": ((TENANT_HEADER, ask.tenant),),
        }
        try:
            if self._options.streaming:
                call = stub.StreamQuery(pb.StreamQueryRequest(query=request), **arguments)
                return await _read(call)
            response = await stub.Query(request, **arguments)
        except grpc.aio.AioRpcError as error:
            remote = RemoteError.from_call(error)
            return Outcome(error=remote.reason or remote.code.name)
        # It comes whole: that is when its first text is there.
        return _answered(response, time.monotonic() if response.answer else None)


async def _read(call: Any) -> Outcome:
    """Reads a stream to its end."""
    first_text_after: float | None = None
    completed: pb.QueryResponse | None = None
    try:
        async for event in call:
            kind = event.WhichOneof("event")
            if kind == "text_delta" and first_text_after is None:
                first_text_after = time.monotonic()
            elif kind == "completed":
                completed = event.completed
    except grpc.aio.AioRpcError as error:
        remote = RemoteError.from_call(error)
        return Outcome(error=remote.reason or remote.code.name, first_text_after=first_text_after)
    finally:
        call.cancel()
    if completed is None:
        return Outcome(error=_INCOMPLETE, first_text_after=first_text_after)
    return _answered(completed, first_text_after)


def _answered(response: pb.QueryResponse, first_text_after: float | None) -> Outcome:
    return Outcome(
        cached=response.origin in _CACHED,
        degraded=bool(response.degradations),
        first_text_after=first_text_after,
    )
