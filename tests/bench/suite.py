"""Measures the whole suite on this machine: `make bench`.

Starts the embedded stack in a folder of its own, ingests rendered documentation, asks questions and
prints one table. Figures are of real processes over loopback; the machine may be shared, so compare
rows of one run. The stand-in fleet answers at a configured token rate: what is measured is pannier,
not a language model.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles

from deploy.local.demo_corpus import render_corpus
from deploy.local.stack import start_stack, stop_stack
from deploy.local.state import StackState
from pannier.balancer.v1 import balancer_service_pb2 as balancer
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerServiceStub
from pannier.cache.v1 import statistics_pb2
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from pannier.client import open_channel
from pannier.commands.ingestion import Tally, ingest_files
from pannier.commands.sources import find_files
from pannier.rag.v1 import rag_service_pb2 as rag
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceStub

COLLECTION = "bench"
QUESTIONS = tuple(
    f"What does the {part} of the {module} module do?"
    for module in ("json", "csv", "heapq", "bisect", "shutil", "textwrap", "difflib", "secrets")
    for part in ("first function", "last class", "main function", "reader", "writer")
)


async def times_of(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Times `count` calls one after the other, in seconds."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return times


def row(what: str, times: list[float]) -> str:
    """Writes median and 99th percentile in milliseconds."""
    cuts = quantiles(times, n=100, method="inclusive")
    return f"{what:<44}{cuts[49] * 1000:>10.2f}{cuts[98] * 1000:>10.2f}{len(times):>8}"


def resident_bytes(pid: int) -> tuple[int, int]:
    """Returns resident memory, and the share of it that counts for this process alone."""
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return int(fields["Rss"].split()[0]) * 1024, int(fields["Pss"].split()[0]) * 1024


async def measure(state: StackState, folder: Path) -> None:
    """Runs all measurements against a running stack."""
    addresses = state.addresses
    files = find_files([folder])
    started = time.perf_counter()
    tally = Tally(len(files))
    await ingest_files(
        files,
        tally,
        collection=COLLECTION,
        tenant="default",
        address=addresses.rag,
        timeout_seconds=1800,
        progressed=lambda: None,
    )
    seconds = time.perf_counter() - started
    assert tally.completed is not None
    chunks = tally.completed.chunk_count
    print(f"ingest: {len(files)} documents, {chunks} chunks in {seconds:.1f} s,")
    print(f"        {chunks / seconds:.1f} chunks/s, embeddings computed by the stand-ins\n")
    print(f"{'call':<44}{'p50 ms':>10}{'p99 ms':>10}{'calls':>8}")
    async with (
        open_channel(addresses.rag) as rag_channel,
        open_channel(addresses.cache) as cache_channel,
        open_channel(addresses.balancer) as balancer_channel,
    ):
        rag_stub = RagServiceStub(rag_channel)
        stats: dict[str, Callable[[], Awaitable[object]]] = {
            "rag GetStats": lambda: rag_stub.GetStats(rag.GetStatsRequest(), timeout=5),
            "cache GetStats": lambda: CacheServiceStub(cache_channel).GetStats(
                statistics_pb2.GetStatsRequest(), timeout=5
            ),
            "balancer GetStats": lambda: BalancerServiceStub(balancer_channel).GetStats(
                balancer.GetStatsRequest(), timeout=5
            ),
            "balancer GetHealth": lambda: BalancerServiceStub(balancer_channel).GetHealth(
                balancer.GetHealthRequest(), timeout=5
            ),
        }
        for name, call in stats.items():
            await times_of(call, 50)
            print(row(name, await times_of(call, 500)))
        await measure_questions(rag_stub)
    print(f"\n{'process':<20}{'RSS MiB':>10}{'PSS MiB':>10}")
    for process in state.alive():
        rss, pss = resident_bytes(process.identity.pid)
        print(f"{process.name:<20}{rss / 2**20:>10.0f}{pss / 2**20:>10.0f}")


async def measure_questions(stub: RagServiceStub) -> None:
    """Asks questions that are new, then the same again, one at a time."""

    async def ask(question: str) -> tuple[float, float]:
        request = rag.StreamQueryRequest(
            query=rag.QueryRequest(collection=COLLECTION, query=question)
        )
        started = time.perf_counter()
        first_text = 0.0
        async for event in stub.StreamQuery(request, timeout=120):
            if event.text_delta and not first_text:
                first_text = time.perf_counter() - started
        return first_text, time.perf_counter() - started

    for name in ("new question", "same question again"):
        results = [await ask(question) for question in QUESTIONS]
        print(row(f"{name}, first text", [first for first, _ in results]))
        print(row(f"{name}, whole answer", [total for _, total in results]))
    request = rag.RetrieveRequest(collection=COLLECTION, query=QUESTIONS[0])
    print(
        row(
            "Retrieve, question's vector cached",
            await times_of(lambda: stub.Retrieve(request, timeout=10), 200),
        )
    )


async def run(modules: int) -> None:
    """Measures in a folder of its own and leaves nothing behind."""
    home = Path(tempfile.mkdtemp(prefix="pannier-bench-"))
    try:
        corpus = render_corpus(home / "documents")
        for surplus in sorted(corpus.folder.iterdir())[modules:]:
            surplus.unlink()
        supervisor = await start_stack(home, os.environ, lambda _: None)
        await measure(supervisor.state, corpus.folder)
    finally:
        await stop_stack(home, lambda _: None)
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", type=int, default=20, help="documents to ingest (default 20)")
    options = parser.parse_args()
    asyncio.run(run(options.modules))


if __name__ == "__main__":
    main()
