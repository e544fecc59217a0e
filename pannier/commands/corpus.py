"""`pannier documents`, `document`, `delete`, `collections`: what is stored."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import typer

from pannier.commands.connection import (
    AddressOption,
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

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Name of a collection.")]


async def _pages(call: Callable[[str], Any]) -> AsyncIterator[Any]:
    """Yields the pages of a listing."""
    token = ""
    while True:
        page = await call(token)
        yield page
        token = page.next_page_token
        if not token:
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

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
            pages = _pages(
                lambda token: stub.ListDocuments(
                    corpus_service_pb2.ListDocumentsRequest(
                        collection=collection, page_size=_PAGE_SIZE, page_token=token
                    ),
                    timeout=timeout,
                )
            )
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

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
            response = await stub.GetDocument(
                corpus_service_pb2.GetDocumentRequest(
                    collection=collection,
                    document_id=document_id,
                    view=corpus_service_pb2.DocumentView.Value(view),
                ),
                timeout=timeout,
            )
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

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
            response = await stub.DeleteDocument(
                corpus_service_pb2.DeleteDocumentRequest(
                    collection=collection, document_id=document_id
                ),
                timeout=timeout,
            )
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

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
            pages = _pages(
                lambda token: stub.ListCollections(
                    corpus_service_pb2.ListCollectionsRequest(
                        page_size=_PAGE_SIZE, page_token=token
                    ),
                    timeout=timeout,
                )
            )
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
