"""`pannier documents`, `document`, `chunks`, `label`: what is stored, and what is kept with it."""

from datetime import datetime
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from pannier.commands.connection import (
    AddressOption,
    CollectionOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.corpus_connection import open_corpus, pages_of
from pannier.commands.formatting import shorten
from pannier.commands.labels import DATES, read_facts
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.retrieval_options import (
    AllTagsOption,
    LanguageOption,
    MediaTypeOption,
    SinceOption,
    SourceOption,
    TagOption,
    UntilOption,
    WhereOption,
    filter_message,
)
from pannier.rag.v1 import corpus_service_pb2

__all__ = ["chunks", "document", "documents", "label"]

_PAGE_SIZE = 500


def documents(
    *,
    tags: TagOption = None,
    all_tags: AllTagsOption = None,
    source: SourceOption = "",
    where: WhereOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    languages: LanguageOption = None,
    media_types: MediaTypeOption = None,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the documents of a collection."""
    request = corpus_service_pb2.ListDocumentsRequest(
        collection=collection,
        page_size=_PAGE_SIZE,
        filter=filter_message(
            documents=None,
            tags=tags,
            all_tags=all_tags,
            source=source,
            where=where,
            since=since,
            until=until,
            languages=languages,
            media_types=media_types,
        ),
    )

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            pages = pages_of(corpus.ListDocuments, request, timeout)
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
        async with open_corpus(address, tenant) as corpus:
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


def chunks(
    document_id: str,
    *,
    text: Annotated[bool, typer.Option("--text", help="Show their whole texts.")] = False,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the chunks that a document was cut into."""
    request = corpus_service_pb2.ListChunksRequest(
        collection=collection, document_id=document_id, page_size=_PAGE_SIZE
    )

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            pages = pages_of(corpus.ListChunks, request, timeout)
            found = [each async for page in pages for each in page.chunks]
        if as_json:
            output.json([to_plain(each) for each in found])
            return 0
        if text:
            for each in found:
                output.line(f"#{each.ordinal} {each.header}", style="bold")
                output.line(each.text)
            return 0
        output.table(
            (">chunk", "characters", "pages", "headings", ">tokens", "vector", "text"),
            [
                (
                    str(each.ordinal),
                    f"{each.char_start}-{each.char_end}",
                    f"{each.page_start}-{each.page_end}" if each.page_start else "",
                    shorten(" / ".join(each.heading_path), 40),
                    str(each.token_count),
                    "yes" if each.embedded else "pending",
                    shorten(each.text, 60),
                )
                for each in found
            ],
        )
        return 0

    run(main)


def label(
    document_id: str,
    *,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="Its tags; an empty one for none.")
    ] = None,
    readers: Annotated[
        list[str] | None,
        typer.Option("--reader", help="Who may read it; an empty one for everyone."),
    ] = None,
    facts: Annotated[
        list[str] | None, typer.Option("--fact", help="Facts kept with it, key=value.")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=DATES, help="When it ceases to be found, UTC.")
    ] = None,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="Keep it.")] = False,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Change what is kept with a document, without reading it anew."""
    changes = corpus_service_pb2.DocumentLabels(
        tags=[each for each in tags or () if each],
        readers=[each for each in readers or () if each],
        metadata=read_facts(facts),
    )
    if expires is not None:
        changes.expire_time.FromDatetime(expires)
    given = {
        "tags": tags is not None,
        "readers": readers is not None,
        "metadata": facts is not None,
        "expire_time": expires is not None or never_expires,
    }
    request = corpus_service_pb2.UpdateDocumentRequest(
        collection=collection,
        document_id=document_id,
        labels=changes,
        update_mask=FieldMask(paths=[name for name, chosen in given.items() if chosen]),
    )

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            response = await corpus.UpdateDocument(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response.document))
        else:
            output.line(f"Labelled {document_id}.")
        return 0

    run(main)
