"""Cached and streamed answers, with and without telemetry, in turns."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles

from pannier.rag.v1 import rag_service_pb2 as pb
from tests.bench import processes
from tests.bench.cache.rows import Row
from tests.bench.observability.arms import ARMS, running_arm, running_receiver
from tests.bench.rag.answers import is_exact
from tests.bench.rag.suite import COLLECTION, Source, Suite, ingest

__all__ = ["cached", "lost", "streamed"]

_ROOT = Path(__file__).parents[3]
_CALL_SECONDS = 60.0
_QUESTION_COUNT = 20
_STREAM_COUNT = 8
_STREAM_TOKENS = 8_000
_IN_FLIGHT = 8
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
# The stand-in that writes the answers to be kept; while they are given again it has nothing to do.
_WRITER = ("--tokens-per-second", "5000", "--load-seconds", "0")
_PROFILE = """
[[models]]
name = "stream"
decode_tokens_per_second = 1000000.0
prefill_tokens_per_second = 1000000.0
load_seconds = 0.0
parallel = 8

[[models]]
name = "vectors"
capability = "embedding"
"""

Round = Callable[[Suite], Awaitable[float]]


async def cached(folder: Path, quick: bool) -> list[Row]:
    """Measures the processor time of exact cached answers, over rag and cache."""
    # Short rounds and many: all arms of a round then meet the same neighbours on the machine.
    count, rounds = (100, 10) if quick else (250, 60)
    questions: dict[str, list[str]] = {}

    async def prepare(suite: Suite) -> None:
        questions[suite.rag.address] = await _fill(suite)

    async def measure(suite: Suite) -> float:
        before = _cpu_seconds(suite)
        await _ask_cached(suite, questions[suite.rag.address], count)
        return (_cpu_seconds(suite) - before) / count * 1000

    figures = await _in_turns(folder, measure, rounds, prepare=prepare, standins=[_WRITER])
    return _rows("cached answer: CPU of rag and cache", figures, "ms", limit=0.15)


async def streamed(folder: Path, quick: bool) -> list[Row]:
    """Measures how many tokens per second eight streams at once bring, over three services."""
    rounds = 10 if quick else 30
    profile = folder / "models.toml"
    profile.write_text(_PROFILE)

    async def measure(suite: Suite) -> float:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_stream(suite, number)) for number in range(_STREAM_COUNT)]
        tokens = sum(task.result() for task in tasks)
        return (time.perf_counter() - started) / tokens * 1e6

    standin = ("--profile", str(profile), "--num-parallel", str(_STREAM_COUNT))
    figures = await _in_turns(folder, measure, rounds, prepare=_warm_up, standins=[standin])
    return _rows("streamed token, eight streams: time", figures, "us", limit=0.05)


async def lost(folder: Path, quick: bool) -> list[Row]:
    """Counts the spans of many queries where they are made and where they arrive."""
    count = 5_000 if quick else 100_000
    async with (
        running_receiver(folder) as receiver,
        running_arm(ARMS[-1], folder, receiver, standins=[_WRITER]) as suite,
    ):
        questions = await _fill(suite)
        started = time.perf_counter()
        await _ask_cached(suite, questions, count)
        seconds = time.perf_counter() - started
        dropped, sent = await _span_counts(suite)
    arrived = int(await asyncio.to_thread(receiver.out.read_text))
    return [
        Row(
            f"spans lost in {count:,} cached queries, {count / seconds:.0f}/s, default queue",
            f"{dropped} dropped, {sent} sent before the end, {arrived} arrived",
            "0",
            dropped == 0 and arrived >= sent,
        )
    ]


async def _in_turns(
    folder: Path,
    measure: Round,
    rounds: int,
    *,
    prepare: Callable[[Suite], Awaitable[None]],
    standins: list[tuple[str, ...]] | None = None,
) -> Mapping[str, list[float]]:
    """Measures every arm in every round, so that all meet the same machine."""
    figures: dict[str, list[float]] = {arm: [] for arm in ARMS}
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(running_receiver(folder))
        suites = {
            arm: await stack.enter_async_context(
                running_arm(arm, folder, receiver, standins=standins or ())
            )
            for arm in ARMS
        }
        for suite in suites.values():
            await prepare(suite)
            await measure(suite)
        for number in range(rounds):
            # In another order each time: whoever is measured after a given arm has its wake.
            for arm in ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]:
                figures[arm].append(await measure(suites[arm]))
    return figures


def _rows(case: str, figures: Mapping[str, list[float]], unit: str, *, limit: float) -> list[Row]:
    rows = [
        Row(
            f"{case}, with {arm}",
            f"{median(values):.2f} {unit} ({_middle_half(values, '.2f')})",
        )
        for arm, values in figures.items()
    ]
    baseline = figures[ARMS[0]]
    for arm in ARMS[1:]:
        added = [value / base - 1 for value, base in zip(figures[arm], baseline, strict=True)]
        is_goal = arm == ARMS[-1]
        rows.append(
            Row(
                f"  added by {arm}, round by round",
                f"{median(added):+.1%} ({_middle_half(added, '+.1%')})",
                f"<= {limit:.0%}" if is_goal else "",
                median(added) <= limit if is_goal else None,
            )
        )
    return rows


def _middle_half(values: Sequence[float], form: str) -> str:
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return f"{lower:{form}} to {upper:{form}}"


async def _fill(suite: Suite) -> list[str]:
    """Takes the project's own documents in, and returns questions whose answers are kept."""
    texts = {path.name: path.read_text() for path in sorted((_ROOT / "docs").glob("*.md"))}
    sources = [Source(name, text, media_type="text/markdown") for name, text in texts.items()]
    await ingest(suite, sources)
    headings = [each for text in texts.values() for each in _HEADING.findall(text)]
    kept: list[str] = []
    for heading in headings:
        question = f"What is said of {heading.strip(' .').lower()}?"
        await _query(suite, question)
        if is_exact(await _query(suite, question)):
            kept.append(question)
        if len(kept) == _QUESTION_COUNT:
            break
    if len(kept) < _QUESTION_COUNT:
        raise RuntimeError(f"of {len(headings)} answers only {len(kept)} are kept")
    return kept


async def _warm_up(suite: Suite) -> None:
    for number in range(3):
        await _stream(suite, -1 - number)


async def _query(suite: Suite, question: str) -> pb.QueryResponse:
    request = pb.QueryRequest(collection=COLLECTION, query=question)
    response: pb.QueryResponse = await suite.stub.Query(request, timeout=_CALL_SECONDS)
    return response


async def _ask_cached(suite: Suite, questions: Sequence[str], count: int) -> None:
    numbers = iter(range(count))

    async def ask() -> None:
        for number in numbers:
            response = await _query(suite, questions[number % len(questions)])
            if not is_exact(response):
                raise RuntimeError("an answer is kept no more")

    async with asyncio.TaskGroup() as group:
        for _ in range(_IN_FLIGHT):
            group.create_task(ask())


async def _stream(suite: Suite, number: int) -> int:
    query = pb.QueryRequest(
        query=f"Say much, for the {number}th time. <<tokens={_STREAM_TOKENS}>>",
        mode=pb.QUERY_MODE_DIRECT,
        model="stream",
        cache_policy=pb.CACHE_POLICY_BYPASS,
    )
    call = suite.stub.StreamQuery(pb.StreamQueryRequest(query=query), timeout=_CALL_SECONDS)
    async for event in call:
        if event.WhichOneof("event") == "completed":
            count: int = event.completed.usage.completion_token_count
            return count
    raise RuntimeError("a stream ended before its answer was complete")


def _cpu_seconds(suite: Suite) -> float:
    return sum(processes.own_cpu_seconds(each.started.pid) for each in (suite.rag, suite.cache))


async def _span_counts(suite: Suite) -> tuple[int, int]:
    """Returns how many spans rag and cache say they have dropped, and sent."""
    dropped = sent = 0.0
    for service in (suite.rag, suite.cache):
        page = await processes.fetch(service.metrics_url)
        for line in page.splitlines():
            if line.startswith("telemetry_spans_dropped_total "):
                dropped += float(line.split()[1])
            elif line.startswith("telemetry_spans_exported_total "):
                sent += float(line.split()[1])
    return int(dropped), int(sent)
