"""Loops beside the service outlive whatever goes wrong in one of their rounds."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from opentelemetry.trace import NoOpTracer

from services.common.metrics import Metrics
from services.rag.core.documents import IndexCounts
from services.rag.fill_vectors import VectorFill
from services.rag.invalidate import InvalidationDelivery
from services.rag.metrics import CATALOGUE
from services.rag.sweep import Sweep
from services.rag.watch_index import IndexWatch
from services.rag.work_jobs import JobLimits, JobWork


class Impatient:
    """A clock that does not wait."""

    async def sleep(self, seconds):
        await asyncio.sleep(0)


class Rounds:
    """Fails of something unforeseen in the first round, and notes that there is a second."""

    def __init__(self):
        self.count = 0
        self.second = asyncio.Event()

    async def answer(self, *_arguments, **_options):
        self.count += 1
        if self.count == 1:
            raise ValueError("unforeseen")
        self.second.set()
        return ()


@asynccontextmanager
async def alone(task):
    yield True


def fill(rounds):
    return VectorFill(
        store=SimpleNamespace(missing_vectors=rounds.answer),
        vectors=None,
        models=None,
        jobs=SimpleNamespace(alone=alone),
        clock=Impatient(),
        metrics=Metrics(CATALOGUE, version="0"),
    )


def sweep(rounds):
    async def forget(**_options):
        return 0

    return Sweep(
        SimpleNamespace(delete_expired=rounds.answer),
        SimpleNamespace(alone=alone, forget=forget),
        delivery=None,
        clock=Impatient(),
        retention_seconds=1,
    )


def delivery(rounds):
    return InvalidationDelivery(
        SimpleNamespace(list_invalidations=rounds.answer),
        None,
        clock=Impatient(),
        metrics=Metrics(CATALOGUE, version="0"),
        tracer=NoOpTracer(),
    )


def index(rounds):
    async def count_all():
        await rounds.answer()
        return IndexCounts(document_count=0, chunk_count=0)

    return SimpleNamespace(
        run=IndexWatch(
            SimpleNamespace(count_all=count_all),
            clock=Impatient(),
            metrics=Metrics(CATALOGUE, version="0"),
            interval_seconds=30,
        ).watch
    )


@pytest.mark.parametrize("make", [fill, sweep, delivery, index])
async def test_a_loop_goes_on_after_a_fault_of_its_own(make):
    rounds = Rounds()
    running = asyncio.create_task(make(rounds).run())
    second = asyncio.create_task(rounds.second.wait())
    async with asyncio.timeout(30):
        await asyncio.wait([running, second], return_when=asyncio.FIRST_COMPLETED)
    assert second.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def work(rounds):
    return JobWork(
        SimpleNamespace(claim=rounds.answer),
        None,
        clock=Impatient(),
        statistics=None,
        delivery=None,
        limits=JobLimits(document_concurrency=1, lease_seconds=1),
    )


@pytest.mark.parametrize("make", [fill, work])
async def test_what_comes_in_during_a_look_is_looked_for_at_once(make):
    look_count = 0

    async def look(**_options):
        nonlocal look_count
        look_count += 1
        if look_count == 1:
            # Too late for this look, which has seen nothing.
            loop.wake()

    loop = make(SimpleNamespace(answer=look))
    running = asyncio.create_task(loop.run())
    # It would look again in seconds by itself.
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    assert look_count == 2
