"""`pannier delete`: documents with all that was made from them."""

from typing import Annotated, Any

import typer

from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    CollectionOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.corpus_connection import open_corpus
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
from pannier.rag.v1 import corpus_service_pb2 as pb

__all__ = ["delete", "describe_receipt"]


def delete(
    document_ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.")] = None,
    *,
    tags: TagOption = None,
    all_tags: AllTagsOption = None,
    source: SourceOption = "",
    where: WhereOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    languages: LanguageOption = None,
    media_types: MediaTypeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete what a filter finds; without it, only say so.")
    ] = False,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Delete documents with everything made from them, by ids or by a filter."""
    ids = document_ids or []
    request = pb.DeleteDocumentsRequest(
        collection=collection,
        document_ids=ids,
        dry_run=dry_run or not (ids or yes),
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
    if yes and not ids:
        request.confirm = collection
    filtered = bool(request.filter.ByteSize())

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            if len(ids) == 1 and not dry_run and not filtered:
                return await _delete_one(output, corpus)
            response = await corpus.DeleteDocuments(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
            return 0
        if request.dry_run:
            for each in response.document_ids:
                output.line(each)
            output.line(f"Would delete {describe_receipt(response.receipt)}.")
            if not dry_run:
                output.problem("Nothing was deleted: say --yes to delete what the filter finds.")
                return EXIT_FAILED
            return 0
        output.line(f"Deleted {describe_receipt(response.receipt)}.")
        return 0

    async def _delete_one(output: Output, corpus: Any) -> int:
        response = await corpus.DeleteDocument(
            pb.DeleteDocumentRequest(collection=collection, document_id=ids[0]), timeout=timeout
        )
        if as_json:
            output.json(to_plain(response))
        else:
            output.line(
                f"Deleted {ids[0]}: {response.chunk_count} chunks, "
                f"{response.posting_count} entries of the word index, "
                f"{response.embedding_count} vectors.{_cache_note(response.receipt)}"
            )
        return 0

    run(main)


def describe_receipt(receipt: pb.DeletionReceipt) -> str:
    """Writes what a deletion removes, in a few words."""
    dropped = (
        f", {receipt.dropped_document_count} not taken in yet"
        if receipt.dropped_document_count
        else ""
    )
    return (
        f"{receipt.document_count} documents{dropped}: {receipt.chunk_count} chunks, "
        f"{receipt.posting_count} entries of the word index, {receipt.embedding_count} vectors"
        f"{_conversations_note(receipt)}{_cache_note(receipt)}"
    )


def _conversations_note(receipt: pb.DeletionReceipt) -> str:
    count = receipt.conversation_count
    return f"; {count} conversations cite them no more" if count else ""


def _cache_note(receipt: pb.DeletionReceipt) -> str:
    if receipt.cache_invalidation != pb.CACHE_INVALIDATION_QUEUED:
        return ""
    return " The cache will be told when it can be reached; what it has is not used any more."
