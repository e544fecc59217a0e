"""Chunks cut where the text says so against chunks cut where its meaning changes, on Cranfield."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

from pannier.commands.judged_sets import open_judged_set
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import evaluation_service_pb2 as pb
from tests.bench.cache.rows import Row
from tests.bench.rag.quality import evaluate, sources_of
from tests.bench.rag.suite import Source, ingest, running_suite, settle

__all__ = ["strategies"]

_STRATEGIES = {
    "structure": corpus.CHUNKING_STRATEGY_STRUCTURE,
    "meaning": corpus.CHUNKING_STRATEGY_SEMANTIC,
}
_WAYS = ("keyword", "vector", "hybrid-convex")
_SENTENCE_START = re.compile(r"(^|[.?!]\s+)([a-z])")


async def strategies(folder: Path, quick: bool, *, data: Path, vectors: Path) -> list[Row]:
    """Takes the same documents in both ways and asks the same questions."""
    source = data / "cranfield"
    if quick or not source.is_dir():
        reason = "every sentence is embedded" if quick else f"there is no {source}"
        return [Row("chunks by structure and by meaning", f"left out: {reason}")]
    judged_set = await asyncio.to_thread(open_judged_set, source)
    rows = []
    async with running_suite(folder, minilm=vectors) as suite:
        for name, strategy in _STRATEGIES.items():
            await ingest(
                suite,
                (_with_capitals(each) for each in sources_of(judged_set)),
                collection=name,
                chunking=corpus.ChunkingOptions(strategy=strategy),
            )
            await settle(suite)
            report = await evaluate(suite, judged_set, _WAYS, collection=name)
            rows.append(Row(f"Cranfield nDCG@{report.depth}, chunks by {name}", _means(report)))
    return rows


def _with_capitals(source: Source) -> Source:
    """Begins sentences as people do; Cranfield has no capitals, so that none would be found."""
    text = _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), source.text)
    return replace(source, text=text)


def _means(report: pb.EvaluationReport) -> str:
    return ", ".join(f"{each.name} {each.figures[0].mean:.4f}" for each in report.variants)
