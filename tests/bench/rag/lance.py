"""LanceDB beside rag: the same chunks, the same vectors, the same questions."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from pannier.commands.judged_sets import JudgedSet
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import evaluation_service_pb2 as pb
from pannier.rag.v1 import rag_service_pb2
from services.rag.core.effectiveness import discounted_gain
from tests.bench.cache.rows import Row
from tests.bench.rag.peers import RememberedMiniLM
from tests.bench.rag.suite import COLLECTION, Suite, options
from tests.bench.rag.timing import Times, one_by_one

__all__ = ["against_lancedb", "python_with_lancedb", "run_lancedb"]

_RUNNER = Path(__file__).with_name("lance_runner.py")
_DEPTH = 10
_PAGE_SIZE = 1000
_CALL_SECONDS = 60.0
# One in a hundred chunks has the tag that is asked for.
_TAG_COUNT = 100


@dataclass(frozen=True, slots=True)
class _Chunks:
    """All chunks of the collection: their documents, and what is embedded of them."""

    document_ids: Sequence[str]
    texts: Sequence[str]


async def against_lancedb(
    suite: Suite,
    judged_set: JudgedSet,
    report: pb.EvaluationReport,
    *,
    folder: Path,
    venv: Path,
    vectors: Path,
) -> list[Row]:
    """Compares quality, speed and filtered recall.

    Args:
        suite: Holds the documents.
        judged_set: The documents and queries.
        report: What rag's own evaluation found.
        folder: For files.
        venv: An environment with lancedb.
        vectors: Where the vectors of MiniLM are kept.
    """
    python = python_with_lancedb(venv)
    if isinstance(python, Row):
        return [python]
    chunks = await _chunks(suite, judged_set)
    texts = [query.text for query in judged_set.queries]
    encoder = RememberedMiniLM(vectors)
    rows = await asyncio.to_thread(encoder.embed, chunks.texts)
    question_rows = await asyncio.to_thread(encoder.embed, texts)
    found = await _run(folder, python, chunks, rows, texts, question_rows)
    theirs = _quality(judged_set, chunks, found["rankings"])
    ours = {each.name: each.figures[0].mean for each in report.variants}["hybrid-convex"]
    their_times = Times(tuple(found["seconds"]))
    our_times = await _our_times(suite, texts)
    exact = rows[::_TAG_COUNT] @ question_rows.T
    return [
        Row(f"LanceDB {found['version']}, hybrid with RRF, nDCG@{_DEPTH}", f"{theirs:.4f}"),
        Row(f"pannier, hybrid, nDCG@{_DEPTH}", f"{ours:.4f}", f"> {theirs:.4f}", ours > theirs),
        Row(f"LanceDB hybrid search for {_DEPTH}, in process, vector given", their_times.text),
        Row(
            f"pannier Retrieve of {_DEPTH}, over gRPC and PostgreSQL, vector cached",
            our_times.text,
        ),
        Row(
            f"LanceDB recall@{_DEPTH} with a 1 % filter",
            f"{_filtered_recall(exact, found['filtered']['ids']):.4f}, "
            f"{Times(tuple(found['filtered']['seconds'])).text}",
        ),
    ]


def python_with_lancedb(venv: Path) -> Path | Row:
    """Returns the interpreter of an environment that has LanceDB, or what is said without."""
    python = venv / "bin" / "python"
    if python.is_file():
        return python
    return Row("beside LanceDB", f"left out: python -m venv {venv.name}; pip install lancedb")


async def run_lancedb(python: Path, *command: Path | str) -> dict[str, Any]:
    """Runs one of the programs that know LanceDB, and returns what its last line says.

    Raises:
        RuntimeError: It failed.
    """
    process = await asyncio.create_subprocess_exec(
        python,
        *command,
        stdout=asyncio.subprocess.PIPE,
        # It warns at every search otherwise.
        env={**os.environ, "RUST_LOG": "error", "LANCE_LOG": "error"},
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError("LanceDB's run failed; its message is above")
    found: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    return found


async def _chunks(suite: Suite, judged_set: JudgedSet) -> _Chunks:
    document_ids: list[str] = []
    texts: list[str] = []
    for document in judged_set.documents():
        response = await suite.corpus.ListChunks(
            corpus.ListChunksRequest(
                collection=COLLECTION, document_id=document.document_id, page_size=_PAGE_SIZE
            ),
            timeout=_CALL_SECONDS,
        )
        for chunk in response.chunks:
            document_ids.append(document.document_id)
            texts.append(f"{chunk.header}\n{chunk.text}" if chunk.header else chunk.text)
    return _Chunks(document_ids, texts)


async def _run(
    folder: Path,
    python: Path,
    chunks: _Chunks,
    rows: np.ndarray,
    texts: Sequence[str],
    question_rows: np.ndarray,
) -> dict[str, Any]:
    file = folder / "lancedb.npz"
    tags = [f"tag-{index % _TAG_COUNT}" for index in range(len(chunks.texts))]
    np.savez(
        file,
        texts=np.array(chunks.texts),
        tags=np.array(tags),
        vectors=rows,
        questions=np.array(texts),
        question_vectors=question_rows,
        filter_tag=np.array("tag-0"),
    )
    return await run_lancedb(python, _RUNNER, file)


def _quality(judged_set: JudgedSet, chunks: _Chunks, runs: Sequence[Sequence[int]]) -> float:
    gains = []
    for query, ids in zip(judged_set.queries, runs, strict=True):
        ranking = list(dict.fromkeys(chunks.document_ids[each] for each in ids))
        if any(grade > 0 for grade in query.grades.values()):
            gains.append(discounted_gain(ranking, query.grades, depth=_DEPTH))
    return fmean(gains)


async def _our_times(suite: Suite, texts: Sequence[str]) -> Times:
    async def search(number: int) -> None:
        request = rag_service_pb2.RetrieveRequest(
            collection=COLLECTION, query=texts[number], options=options(passage_count=_DEPTH)
        )
        await suite.stub.Retrieve(request, timeout=_CALL_SECONDS)

    await one_by_one(search, len(texts))
    return await one_by_one(search, len(texts))


def _filtered_recall(similarities: np.ndarray, runs: Sequence[Sequence[int]]) -> float:
    """Compares with the exact nearest among every hundredth chunk, one column per question."""
    shares = []
    for column, ids in zip(similarities.T, runs, strict=True):
        nearest = {int(index) * _TAG_COUNT for index in np.argsort(-column)[:_DEPTH]}
        shares.append(len(nearest & set(ids[:_DEPTH])) / len(nearest))
    return fmean(shares)
