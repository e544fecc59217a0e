"""Calls to the service that keeps documents."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pannier.commands.connection import connect
from pannier.rag.v1 import corpus_service_pb2_grpc

__all__ = ["open_corpus", "pages_of"]


@asynccontextmanager
async def open_corpus(address: str, tenant: str) -> AsyncIterator[Any]:
    """Connects to the service that keeps the documents."""
    async with connect("rag", address=address, tenant=tenant) as connection:
        yield corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)


async def pages_of(method: Any, request: Any, timeout_seconds: float) -> AsyncIterator[Any]:
    """Yields the pages of a listing; the request is made to ask for each in turn."""
    while True:
        page = await method(request, timeout=timeout_seconds)
        yield page
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return
