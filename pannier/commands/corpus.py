"""`pannier documents`, `document`, `delete`, `collections`: what is stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from pannier.commands.connection import (
    AddressOption,
    CollectionOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.formatting import shorten
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import corpus_service_pb2, corpus_service_pb2_grpc

__all__ = ["collections", "delete", "document", "documents"]

_PAGE_SIZE = 500


@asynccontextmanager
async def _corpus(address: str, tenant: str) -> AsyncIterator[Any]:
    """Connects to the service that keeps the documents."""
    async with connect("rag", address=address, tenant=tenant) as connection:
        yield corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)


async def _pages(method: Any, request: Any, timeout_seconds: float) -> AsyncIterator[Any]:
    """Yields the pages of a listing; the request is made to ask for each in turn."""
    while True:
        page = await method(request, timeout=timeout_seconds)
        yield page
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


def documents(
    *,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the documents of a collection."""
    request = corpus_service_pb2.ListDocumentsRequest(collection=collection, page_size=_PAGE_SIZE)

    async def main(output: Output) -> int:
        async with _corpus(address, tenant) as corpus:
            pages = _pages(corpus.ListDocuments, request, timeout)
            found = [each async for page in pages for each in page.documents]
        if as_json:
            output.json([to_plain(each) for each in found])
            return 0
        output.table(
            ("document", "title", "kind", ">characters", ">chunks", "stored"),
            [
                (
                    each.document_id,
                    shorten(each.title, 40),
                    each.media_type,
                    str(each.character_count),
                    str(each.chunk_count),
                    each.update_time.ToJsonString()[:19],
                )
                for each in found
            ],
        )
        output.line(f"{len(found)} documents")
        return 0

    run(main)


def document(
    document_id: str,
    *,
    text: Annotated[bool, typer.Option("--text", help="Show the stored text.")] = False,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show a document."""
    view = "DOCUMENT_VIEW_FULL" if text else "DOCUMENT_VIEW_BASIC"
    request = corpus_service_pb2.GetDocumentRequest(
        collection=collection,
        document_id=document_id,
        view=corpus_service_pb2.DocumentView.Value(view),
    )

    async def main(output: Output) -> int:
        async with _corpus(address, tenant) as corpus:
            response = await corpus.GetDocument(request, timeout=timeout)
        found = response.document
        if as_json:
            output.json(to_plain(found))
        elif text:
            output.line(found.text)
        else:
            for name, value in to_plain(found).items():
                if name != "text":
                    output.line(f"{name:16} {value}")
        return 0

    run(main)


def delete(
    document_id: str,
    *,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Delete a document with everything made from it."""
    request = corpus_service_pb2.DeleteDocumentRequest(
        collection=collection, document_id=document_id
    )

    async def main(output: Output) -> int:
        async with _corpus(address, tenant) as corpus:
            response = await corpus.DeleteDocument(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
        else:
            output.line(
                f"Deleted {document_id}: {response.chunk_count} chunks, "
                f"{response.posting_count} entries of the word index, "
                f"{response.embedding_count} vectors."
            )
        return 0

    run(main)


def collections(
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the collections of the tenant."""
    request = corpus_service_pb2.ListCollectionsRequest(page_size=_PAGE_SIZE)

    async def main(output: Output) -> int:
        async with _corpus(address, tenant) as corpus:
            pages = _pages(corpus.ListCollections, request, timeout)
            found = [each async for page in pages for each in page.collections]
        if as_json:
            output.json([to_plain(each) for each in found])
            return 0
        output.table(
            ("collection", ">documents", ">chunks", "embedding model", ">dimension"),
            [
                (
                    each.name,
                    str(each.document_count),
                    str(each.chunk_count),
                    each.embedding_model,
                    str(each.embedding_dimension),
                )
                for each in found
            ],
        )
        return 0

    run(main)
