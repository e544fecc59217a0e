"""`pannier cache`: what operators change about the cache."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from pannier.cache.v1 import (
    cache_admin_service_pb2,
    cache_admin_service_pb2_grpc,
    cache_service_pb2_grpc,
    control_pb2,
)
from pannier.cache.v1 import invalidation_pb2 as pb
from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.output import Output
from pannier.commands.plain import to_plain

__all__ = ["application"]

application = typer.Typer(
    help="Make entries of the cache unreadable; set how alike questions must be.",
    no_args_is_help=True,
)


@application.command()
def invalidate(
    *,
    everything: Annotated[
        bool, typer.Option("--everything", help="All entries of the tenant.")
    ] = False,
    namespace: Annotated[
        list[str] | None, typer.Option(help="Those of a namespace; repeatable.")
    ] = None,
    model_digest: Annotated[
        list[str] | None, typer.Option(help="Those of a model, by its digest; repeatable.")
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="Those made from a collection; repeatable."),
    ] = None,
    document: Annotated[
        list[str] | None,
        typer.Option(help="Those made from a document, COLLECTION/DOCUMENT; repeatable."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Those that carry a tag of your own; repeatable.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; else it is only shown.")] = False,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Make entries unreadable, on all replicas and however many there are."""
    selectors = [
        *([pb.Selector(everything=True)] if everything else []),
        *(pb.Selector(namespace=each) for each in namespace or ()),
        *(pb.Selector(model_digest=each) for each in model_digest or ()),
        *(pb.Selector(tag=control_pb2.Tag(collection=each)) for each in collection or ()),
        *(pb.Selector(tag=control_pb2.Tag(document=_document(each))) for each in document or ()),
        *(pb.Selector(tag=control_pb2.Tag(custom=each)) for each in tag or ()),
    ]
    if not selectors:
        raise typer.BadParameter(
            "say what: --everything, --namespace, --model-digest, --collection, --document, --tag"
        )
    request = pb.InvalidateRequest(selectors=selectors, dry_run=not apply, tenant_id=tenant)

    async def main(output: Output) -> int:
        async with connect("cache", address=address, tenant=tenant) as connection:
            stub: Any = cache_service_pb2_grpc.CacheServiceStub(connection.channel)
            response = await stub.Invalidate(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
        else:
            _show(output, response)
        return 0

    run(main)


@application.command()
def threshold(
    value: Annotated[float, typer.Argument(help="Least cosine similarity, at most 1.")],
    *,
    namespace: Annotated[str, typer.Option(help="Namespace of the entries.")] = "",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Set how alike questions must be to share an answer; the service's own value is the least."""
    request = cache_admin_service_pb2.SetSimilarityThresholdRequest(
        namespace=namespace, threshold=value
    )

    async def main(output: Output) -> int:
        async with _open_admin(address, tenant) as admin:
            response = await admin.SetSimilarityThreshold(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
        else:
            output.line(f"{response.previous_threshold:g} before, {value:g} now")
        return 0

    run(main)


@asynccontextmanager
async def _open_admin(address: str, tenant: str) -> AsyncIterator[Any]:
    async with connect("cache", address=address, tenant=tenant) as connection:
        yield cache_admin_service_pb2_grpc.CacheAdminServiceStub(connection.channel)


def _document(text: str) -> control_pb2.DocumentTag:
    collection, slash, document_id = text.partition("/")
    if not (collection and slash and document_id):
        raise typer.BadParameter("must be COLLECTION/DOCUMENT", param_hint="--document")
    return control_pb2.DocumentTag(collection=collection, document_id=document_id)


def _show(output: Output, response: pb.InvalidateResponse) -> None:
    output.table(
        ("entries", ">in this replica's memory", "invalidated before"),
        [
            (
                _describe(each.selector),
                "" if response.applied else str(each.local_entry_count),
                each.previous_invalidation_time.ToJsonString()
                if each.HasField("previous_invalidation_time")
                else "",
            )
            for each in response.effects
        ],
    )
    when = response.invalidation_time.ToJsonString()
    if response.applied:
        output.line(f"unreadable if computed up to {when}, in the shared store as well")
    else:
        output.line("nothing was done; repeat with --apply to do it", style="dim")


def _describe(selector: pb.Selector) -> str:
    match selector.WhichOneof("kind"):
        case "everything":
            return "everything"
        case "namespace":
            return f"namespace {selector.namespace or '(none)'}"
        case "model_digest":
            return f"model {selector.model_digest[:12]}"
        case _:
            tag = selector.tag
    match tag.WhichOneof("kind"):
        case "document":
            return f"document {tag.document.collection}/{tag.document.document_id}"
        case "collection":
            return f"collection {tag.collection}"
        case _:
            return f"tag {tag.custom}"
