"""`pannier collections`: sets of documents that are searched together."""

from typing import Annotated

import typer

from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.corpus_connection import open_corpus, pages_of
from pannier.commands.deletion import describe_receipt
from pannier.commands.listing_group import LISTING_COMMAND, ListingGroup
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import corpus_service_pb2 as pb

__all__ = ["application"]

_PAGE_SIZE = 500

NameArgument = Annotated[str, typer.Argument(help="Name of the collection.")]

application = typer.Typer(cls=ListingGroup, help="List, make and delete collections.")


@application.command(LISTING_COMMAND)
def list_collections(
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the collections of the tenant. So does no command at all."""
    request = pb.ListCollectionsRequest(page_size=_PAGE_SIZE)

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            pages = pages_of(corpus.ListCollections, request, timeout)
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


@application.command("create")
def create(
    name: NameArgument,
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Make sure that a collection exists; ingesting documents makes it, too."""

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            response = await corpus.CreateCollection(
                pb.CreateCollectionRequest(collection=name), timeout=timeout
            )
        if as_json:
            output.json(to_plain(response.collection))
        else:
            output.line(f"{name} has {response.collection.document_count} documents.")
        return 0

    run(main)


@application.command("delete")
def delete(
    name: NameArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Really do it.")] = False,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Delete a collection with all it holds."""

    async def main(output: Output) -> int:
        if not yes:
            output.problem(f"Nothing was deleted: say --yes to delete all of {name}.")
            return EXIT_FAILED
        async with open_corpus(address, tenant) as corpus:
            response = await corpus.DeleteCollection(
                pb.DeleteCollectionRequest(collection=name, confirm=name), timeout=timeout
            )
        if as_json:
            output.json(to_plain(response))
        else:
            output.line(f"Deleted {name} with {describe_receipt(response.receipt)}.")
        return 0

    run(main)
