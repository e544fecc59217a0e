"""LanceDB beside rag where a tenant has a hundredth of all chunks: recall and time."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from tests.bench.cache.rows import Row
from tests.bench.rag.lance import python_with_lancedb, run_lancedb
from tests.bench.rag.timing import Times
from tests.bench.rag.topics import Document, question, vector_of, vectors_of

__all__ = ["tenant_in_lancedb"]

_RUNNER = Path(__file__).with_name("lance_tenants_runner.py")
_DEPTH = 10


async def tenant_in_lancedb(
    folder: Path, venv: Path, held: Sequence[Document], other: Sequence[Document], count: int
) -> list[Row]:
    """Has LanceDB search the same vectors, confined to the small tenant by a filter.

    Args:
        folder: For files.
        venv: An environment with lancedb.
        held: What the large tenant holds.
        other: What the small tenant holds.
        count: How many questions are asked.
    """
    python = python_with_lancedb(venv)
    if isinstance(python, Row):
        return [python]
    large, small = await asyncio.to_thread(lambda: (_vectors(held), _vectors(other)))
    asked = np.stack([vector_of(question(number)) for number in range(count)])
    file = folder / "tenants.npz"
    tenants = np.repeat(np.array(["default", "small"]), [len(large), len(small)])
    np.savez(file, vectors=np.concatenate([large, small]), tenants=tenants, questions=asked)
    found = await run_lancedb(python, _RUNNER, file, str(_DEPTH))
    nearest = len(large) + np.argsort(-(asked @ small.T), axis=1)[:, :_DEPTH]
    return [
        Row(
            f"  LanceDB {found['version']}, the same tenant by a filter, {name}",
            f"{_recall(nearest, way['ids']):.4f}, {Times(tuple(way['seconds'])).text}",
        )
        for name, way in found["ways"].items()
    ]


def _vectors(documents: Sequence[Document]) -> np.ndarray:
    return vectors_of([mark for each in documents for mark in each.marks])


def _recall(nearest: np.ndarray, runs: Sequence[Sequence[int]]) -> float:
    return fmean(
        len(set(row.tolist()) & set(ids)) / len(row) for row, ids in zip(nearest, runs, strict=True)
    )
