"""How good search is on Cranfield, and whether SQL's BM25 is the published formula."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import asyncpg

from pannier.commands.evaluation import VARIANTS, queries_of, variant_of
from pannier.commands.judged_sets import JudgedSet, open_judged_set
from pannier.rag.v1 import evaluation_service_pb2 as pb
from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.analysis import analyse_query
from services.rag.core.bm25 import score_chunks
from services.rag.core.documents import TermFrequencies
from tests.bench.cache.rows import Row
from tests.bench.rag.lance import against_lancedb
from tests.bench.rag.suite import COLLECTION, Source, Suite, ingest, running_suite, settle

__all__ = ["cranfield", "evaluate", "sources_of"]

_EVALUATE_SECONDS = 3600.0
_WAYS = ("keyword", "vector", "hybrid-convex", "hybrid-rrf")
_TOLERANCE = 1e-6


async def cranfield(
    folder: Path, quick: bool, *, data: Path, vectors: Path, lancedb: Path
) -> list[Row]:
    """Measures both arms, their fusion and LanceDB on the same documents and vectors."""
    source = data / "cranfield"
    if not source.is_dir():
        return [Row("Cranfield", f"left out: there is no {source}")]
    judged_set = await asyncio.to_thread(open_judged_set, source)
    async with running_suite(folder, minilm=vectors) as suite:
        await ingest(suite, sources_of(judged_set))
        await settle(suite)
        report = await evaluate(suite, judged_set, _WAYS)
        rows = [*_effectiveness(report), *await _formula(suite, judged_set, quick=quick)]
        rows += await against_lancedb(
            suite, judged_set, report, folder=folder, venv=lancedb, vectors=vectors
        )
    return rows


def sources_of(judged_set: JudgedSet) -> Sequence[Source]:
    """Returns a set's documents as they are taken in."""
    return [
        Source(each.document_id, each.text, title=each.title, media_type="text/plain")
        for each in judged_set.documents()
    ]


async def evaluate(
    suite: Suite, judged_set: JudgedSet, names: Sequence[str], *, collection: str = COLLECTION
) -> pb.EvaluationReport:
    """Asks a set's questions in several ways.

    Args:
        suite: What is asked.
        judged_set: The questions and what answers them.
        names: The ways, as `pannier eval` names them.
        collection: Where the documents are.

    Raises:
        RuntimeError: The evaluation did not come to its end.
    """
    call = suite.evaluation.Evaluate(
        pb.EvaluateRequest(
            collection=collection,
            queries=queries_of(judged_set),
            variants=[variant_of(name, **VARIANTS[name]) for name in names],
            include_queries=True,
            concurrency=2,
        ),
        timeout=_EVALUATE_SECONDS,
    )
    async for event in call:
        if event.HasField("completed"):
            completed: pb.EvaluationReport = event.completed
            return completed
    raise RuntimeError("the evaluation ended before it was complete")


def _effectiveness(report: pb.EvaluationReport) -> list[Row]:
    means = {each.name: each.figures[0].mean for each in report.variants}
    best_arm = max(means["keyword"], means["vector"])
    goals = {
        "keyword": (">= 0.39", means["keyword"] >= 0.39),
        "vector": ("", None),
        "hybrid-convex": (
            f">= 0.43, above both arms ({best_arm:.4f})",
            means["hybrid-convex"] >= 0.43 and means["hybrid-convex"] > best_arm,
        ),
        "hybrid-rrf": ("", None),
    }
    return [
        Row(
            f"Cranfield nDCG@{report.depth}, {variant.name}",
            f"{_figure(variant)}, halves {_halves(variant)}, failed {variant.failed_count}",
            *goals[variant.name],
        )
        for variant in report.variants
    ]


def _figure(variant: pb.VariantReport) -> str:
    ndcg = variant.figures[0]
    return f"{ndcg.mean:.4f} ({ndcg.low:.3f}-{ndcg.high:.3f})"


def _halves(variant: pb.VariantReport) -> str:
    """Means over every other query: a setting that suits chance suits one of them only."""
    values = [each.figures["ndcg"] for each in variant.queries]
    return f"{fmean(values[::2]):.3f} / {fmean(values[1::2]):.3f}"


async def _formula(suite: Suite, judged_set: JudgedSet, *, quick: bool) -> list[Row]:
    """Compares the score of every chunk that holds a term with the formula on the same postings."""
    chunks = await _analysed_chunks(suite)
    queries = judged_set.queries[: 40 if quick else None]
    worst, compared_count = 0.0, 0
    pool = PostgresPool(suite.database_url, size=2)
    await pool.open()
    try:
        store = PostgresDocumentStore(pool)
        for query in queries:
            terms = analyse_query(query.text)
            expected = score_chunks(terms, chunks)
            matches = await store.search_keyword(
                "default", COLLECTION, terms=terms, limit=len(chunks)
            )
            found = {hit.chunk_id: hit.score for hit in matches.hits}
            if found.keys() != expected.keys():
                raise RuntimeError(f"query {query.query_id} found other chunks than the formula")
            worst = max([worst, *(abs(found[key] - expected[key]) for key in found)])
            compared_count += len(found)
    finally:
        await pool.close()
    return [
        Row(
            f"SQL BM25 against the formula, {len(queries)} queries, {len(chunks)} chunks",
            f"{compared_count:,} scores, largest difference {worst:.1e}",
            f"<= {_TOLERANCE:g}",
            worst <= _TOLERANCE,
        )
    ]


async def _analysed_chunks(suite: Suite) -> Mapping[int, TermFrequencies]:
    connection = await asyncpg.connect(suite.database_url)
    try:
        postings = await connection.fetch(
            "SELECT chunk_id, term, frequency, chunk_length FROM rag.posting"
        )
    finally:
        await connection.close()
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    lengths: dict[int, int] = {}
    for chunk_id, term, frequency, length in postings:
        counts[chunk_id][term] = frequency
        lengths[chunk_id] = length
    return {key: TermFrequencies(each, lengths[key]) for key, each in counts.items()}
