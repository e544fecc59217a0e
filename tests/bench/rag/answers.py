"""Whole answers: what rag itself takes, cached ones, and many users at once."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

from pannier.commands.judged_sets import JudgedSet, open_judged_set
from pannier.rag.v1 import rag_service_pb2 as pb
from tests.bench.cache.rows import Row
from tests.bench.empty_calls import answering_calls
from tests.bench.rag.quality import sources_of
from tests.bench.rag.suite import COLLECTION, Source, Suite, ingest, running_suite
from tests.bench.rag.timing import Times, one_by_one, open_loop
from tests.bench.rag.topics import documents, question

__all__ = ["cached", "is_exact", "overhead", "users"]

_CALL_SECONDS = 60.0
_RATE = 100.0
_USER_COUNT = 100
_QUESTION_COUNT = 150
# Time a user takes to read and write, on average.
_THINK_SECONDS = 2.4
# An extractive answer of some 300 tokens then takes 122 ms, the time that the goal names.
_TOKENS_PER_SECOND = 2_500
_DOCUMENT_COUNT = 200


async def overhead(folder: Path, quick: bool) -> list[Row]:
    """Measures full queries where model, vectors and cache need no time."""
    async with running_suite(folder) as suite:
        await ingest(
            suite,
            (
                Source(each.document_id, each.text, media_type="text/markdown")
                for each in documents(1_000)
            ),
        )

        async def ask(number: int) -> None:
            request = pb.QueryRequest(
                collection=COLLECTION,
                query=question(number),
                cache_policy=pb.CACHE_POLICY_BYPASS,
            )
            response = await suite.stub.Query(request, timeout=_CALL_SECONDS)
            assert response.origin == pb.ANSWER_ORIGIN_GENERATED, response

        await one_by_one(ask, 30)
        times = await one_by_one(ask, 100 if quick else 500)
        first = await _first_progress(suite, 50 if quick else 300)
    return [
        Row(
            "first progress of a streamed query",
            first.text,
            "<= 10 ms",
            first.ms(0.99) <= 10,
        ),
        Row(
            "full query, all hops instant, 1,000 chunks",
            times.text,
            "p50 <= 15 ms",
            times.ms(0.5) <= 15,
        ),
    ]


async def _first_progress(suite: Suite, count: int) -> Times:
    """Measures when a caller first hears that something is done for it."""
    times = []
    for number in range(count):
        request = pb.StreamQueryRequest(
            query=pb.QueryRequest(
                collection=COLLECTION,
                query=question(number),
                cache_policy=pb.CACHE_POLICY_BYPASS,
            )
        )
        started = time.perf_counter()
        call = suite.stub.StreamQuery(request, timeout=_CALL_SECONDS)
        async for event in call:
            if event.HasField("progress"):
                times.append(time.perf_counter() - started)
                break
        async for _ in call:
            pass
    return Times(tuple(times))


async def cached(folder: Path, quick: bool, *, data: Path) -> list[Row]:
    """Measures the same questions again, at a steady rate."""
    if (judged_set := await _judged_set(data)) is None:
        return [Row("cached answers", "left out: there is no Cranfield")]
    async with running_suite(folder, standins=[("--tokens-per-second", "5000")]) as suite:
        questions = await _asked(suite, judged_set, 20)

        async def ask(number: int) -> None:
            response = await _query(suite, questions[number % len(questions)])
            assert is_exact(response), response.origin

        await open_loop(ask, per_second=_RATE, seconds=2)
        times = await open_loop(ask, per_second=_RATE, seconds=5 if quick else 60)
        reply_bytes = (await _query(suite, questions[0])).ByteSize()

    async with answering_calls(folder, request_bytes=100, reply_bytes=reply_bytes) as empty_call:

        async def call(number: int) -> None:
            del number
            await empty_call()

        await open_loop(call, per_second=_RATE, seconds=2)
        empty = await open_loop(call, per_second=_RATE, seconds=5 if quick else 20)
    return [
        Row(
            f"exact cached answer through rag, {_RATE:.0f} per s",
            times.text,
            "p50 <= 3 ms, p99 <= 12 ms",
            not times.failures and times.ms(0.5) <= 3 and times.ms(0.99) <= 12,
        ),
        Row("  a call of that size that does nothing; rag makes one as well", empty.text),
    ]


def is_exact(response: pb.QueryResponse) -> bool:
    """Says whether an answer was found by its question alone, and not made anew from parts."""
    return any(
        each.name == "query_lookup" and each.cache_outcome == "hit_exact"
        for each in response.profile.stages
    )


async def users(folder: Path, quick: bool, *, data: Path, minutes: float) -> list[Row]:
    """Has a hundred users ask questions that repeat, as they do at work."""
    if (judged_set := await _judged_set(data)) is None:
        return [Row("concurrent users", "left out: there is no Cranfield")]
    seconds = 20.0 if quick else 60.0 * minutes
    standin = ("--tokens-per-second", str(_TOKENS_PER_SECOND), "--load-seconds", "0")
    async with running_suite(folder, standins=[standin] * 4) as suite:
        questions = await _asked(suite, judged_set, 60 if quick else _QUESTION_COUNT)
        fresh = [query.text for query in judged_set.queries[len(questions) :]]
        cached_times, other_times, failures = await _work(suite, questions, fresh, seconds)
    total = len(cached_times.seconds) + len(other_times.seconds)
    rate = total / seconds
    share = len(cached_times.seconds) / max(total, 1)
    return [
        Row(
            f"{_USER_COUNT} users for {seconds / 60:.1f} minutes, cached answers",
            f"{cached_times.text}, {share:.0%} of all",
            "p50 < 100 ms, p95 < 130 ms",
            cached_times.ms(0.5) < 100 and cached_times.ms(0.95) < 130,
        ),
        Row("  answers that were generated", other_times.text),
        Row("  all", f"{rate:.1f} queries/s", ">= 30 queries/s", rate >= 30),
        Row("  errors", f"{sum(failures.values())} {dict(failures)}", "0", not failures),
    ]


async def _judged_set(data: Path) -> JudgedSet | None:
    folder = data / "cranfield"
    return await asyncio.to_thread(open_judged_set, folder) if folder.is_dir() else None


async def _asked(suite: Suite, judged_set: JudgedSet, count: int) -> list[str]:
    """Takes documents in and returns questions whose answers are now cached."""
    sources = sources_of(judged_set)[:_DOCUMENT_COUNT]
    await ingest(suite, sources)
    questions: list[str] = []
    # The questions that suit the documents taken in: their titles.
    for source in sources:
        if len(questions) == count:
            break
        text = f"What is said of {source.title.rstrip(' .')}?"
        await _query(suite, text)
        if is_exact(await _query(suite, text)):
            questions.append(text)
    if not questions:
        raise RuntimeError("no answer is cached: all are of low quality or degraded")
    return questions


async def _work(
    suite: Suite, questions: list[str], fresh: list[str], seconds: float
) -> tuple[Times, Times, Counter[str]]:
    generator = random.Random(3)
    ends_at = time.perf_counter() + seconds
    by_origin: dict[bool, list[float]] = {True: [], False: []}
    failures: Counter[str] = Counter()
    # Some questions are asked often, most seldom.
    weights = [1 / (rank + 1) for rank in range(len(questions))]

    async def user() -> None:
        await asyncio.sleep(generator.random() * _THINK_SECONDS)
        while time.perf_counter() < ends_at:
            is_fresh = fresh and generator.random() < 0.02
            text = generator.choice(fresh) if is_fresh else generator.choices(questions, weights)[0]
            started = time.perf_counter()
            try:
                response = await _query(suite, text)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                failures[type(error).__name__] += 1
            else:
                took = time.perf_counter() - started
                by_origin[response.origin == pb.ANSWER_ORIGIN_CACHED].append(took)
            await asyncio.sleep(generator.expovariate(1 / _THINK_SECONDS))

    async with asyncio.TaskGroup() as group:
        for _ in range(_USER_COUNT):
            group.create_task(user())
    return Times(tuple(by_origin[True])), Times(tuple(by_origin[False])), failures


async def _query(suite: Suite, text: str) -> pb.QueryResponse:
    request = pb.QueryRequest(collection=COLLECTION, query=text)
    response: pb.QueryResponse = await suite.stub.Query(request, timeout=_CALL_SECONDS)
    return response
