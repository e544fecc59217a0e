"""`pannier eval`: how good search is, on a set of documents with judged queries."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated

import grpc
import typer

from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.evaluation import (
    VARIANTS,
    EvaluationFailed,
    delete_scratch,
    evaluate,
    fill_scratch,
    new_scratch_name,
    queries_of,
    variant_of,
)
from pannier.commands.evaluation_view import draw_plot, show_report
from pannier.commands.ingest import show_progress
from pannier.commands.ingestion import Tally
from pannier.commands.judged_sets import BadJudgedSet, JudgedSet, open_judged_set
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.progress import count_bars
from pannier.rag.v1 import evaluation_service_pb2

__all__ = ["evaluate_folder"]

_DEFAULT_VARIANTS = ("keyword", "vector", "hybrid-convex", "hybrid-rrf")


def evaluate_folder(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder with corpus.jsonl, queries.jsonl and qrels/*.tsv, as BEIR's."),
    ],
    *,
    collection: Annotated[
        str,
        typer.Option(
            "--collection",
            "-c",
            help="Collection that holds the documents already. Default: they are taken into a "
            "collection of their own, which is deleted in the end.",
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Which file of qrels/. Default: test.")] = "",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Way of searching; repeatable. There are {', '.join(VARIANTS)}. Default: "
            f"{', '.join(_DEFAULT_VARIANTS)}."
        ),
    ] = None,
    vector_weight: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, help="Compare convex fusion with this weight, too; repeatable."),
    ] = None,
    depth: Annotated[int, typer.Option("-k", min=1, max=100, help="Depth of the measures.")] = 10,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many queries.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Searches at a time.")] = 4,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the collection of its own.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write the report, with each query, to this file as JSON, and a plot beside it."
        ),
    ] = None,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Measure search on documents with judged queries."""
    names = list(dict.fromkeys(variant or _DEFAULT_VARIANTS))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise typer.BadParameter(f"there is no {unknown[0]}", param_hint="--variant")
    variants = [variant_of(name, **VARIANTS[name]) for name in names]
    variants += [
        variant_of(f"hybrid-convex-{weight:g}", vector_weight_ratio=weight)
        for weight in dict.fromkeys(vector_weight or ())
    ]

    async def main(output: Output) -> int:
        try:
            judged_set = await asyncio.to_thread(open_judged_set, folder, split=split, limit=limit)
            async with (
                connect("rag", address=address, tenant=tenant) as connection,
                _documents(
                    output, connection.channel, judged_set, collection, timeout, keep=keep
                ) as name,
            ):
                request = evaluation_service_pb2.EvaluateRequest(
                    collection=name,
                    queries=queries_of(judged_set),
                    variants=variants,
                    depth=depth,
                    include_queries=report is not None,
                    concurrency=concurrency,
                )
                with _show_searches(output) as progressed:
                    found = await evaluate(
                        connection.channel,
                        request,
                        timeout_seconds=timeout,
                        progressed=progressed,
                    )
        except (BadJudgedSet, EvaluationFailed) as error:
            output.problem(str(error))
            return EXIT_FAILED
        if report is not None:
            await asyncio.to_thread(_write, output, found, report)
        if as_json:
            output.json(to_plain(found))
        else:
            show_report(output, found)
        return EXIT_FAILED if any(each.failed_count for each in found.variants) else 0

    run(main)


@asynccontextmanager
async def _documents(
    output: Output,
    channel: grpc.aio.Channel,
    judged_set: JudgedSet,
    collection: str,
    timeout_seconds: float,
    *,
    keep: bool,
) -> AsyncIterator[str]:
    """Yields the collection that holds the documents."""
    if collection:
        yield collection
        return
    scratch, tally = new_scratch_name(), Tally(judged_set.document_count)
    try:
        with show_progress(output, tally) as progressed:
            await fill_scratch(
                channel,
                scratch,
                judged_set,
                tally,
                timeout_seconds=timeout_seconds,
                progressed=progressed,
            )
        if keep:
            output.notice(f"The documents stay in collection {scratch}.")
        yield scratch
    finally:
        if not keep:
            await asyncio.shield(delete_scratch(channel, scratch))


@contextmanager
def _show_searches(output: Output) -> Iterator[Callable[[int, int], None]]:
    bars = count_bars(output)
    with bars:
        searches = bars.add_task("searches", total=None)
        yield lambda done, total: bars.update(searches, completed=done, total=total)


def _write(output: Output, found: evaluation_service_pb2.EvaluationReport, path: Path) -> None:
    path.write_text(json.dumps(to_plain(found), indent=2, ensure_ascii=False) + "\n")
    plot = path.with_suffix(".png")
    if draw_plot(found, plot):
        output.notice(f"Report in {path}, plot in {plot}.")
    else:
        output.notice(f"Report in {path}; no plot, since matplotlib is not installed.")
