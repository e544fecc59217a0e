"""Taking documents in: over one backend and eight, and again when nothing has changed."""

from pathlib import Path

from tests.bench.cache.rows import Row
from tests.bench.rag.suite import Source, Taken, ingest, running_suite
from tests.bench.rag.topics import documents

__all__ = ["backends", "unchanged"]

_PROFILE = """
builtin_models = false

[[models]]
name = "bench-embed"
capability = "embedding"
size_bytes = 50000000
load_seconds = 0.0
prefill_tokens_per_second = {rate}
context_tokens = 512
"""
# A chunk of about 200 tokens takes a backend 50 ms, so that the machine has time for eight.
_TOKENS_PER_SECOND = 4_000
_BACKEND_COUNT = 8


async def backends(folder: Path, quick: bool) -> list[Row]:
    """Compares eight backends with one; each embeds at the same steady rate."""
    profile = folder / "models.toml"
    profile.write_text(_PROFILE.format(rate=_TOKENS_PER_SECOND))
    chunk_count = 400 if quick else 2_000
    rates = {}
    for count in (1, _BACKEND_COUNT):
        standin = ("--profile", str(profile), "--num-parallel", "1")
        async with running_suite(folder, standins=[standin] * count) as suite:
            # Models are loaded, and every process has done its first work.
            await ingest(suite, _sources(50 * count, "warm", 3), collection="warm")
            taken = await ingest(suite, _sources(chunk_count * (1 if count == 1 else 2), "doc", 1))
        rates[count] = taken.completed.chunk_count / taken.seconds
    gain = rates[_BACKEND_COUNT] / rates[1]
    return [
        Row(
            f"ingest over {_BACKEND_COUNT} backends against 1",
            f"{gain:.1f} x ({rates[1]:.0f} and {rates[_BACKEND_COUNT]:.0f} chunks/s)",
            ">= 6 x",
            gain >= 6,
        )
    ]


async def unchanged(folder: Path, quick: bool) -> list[Row]:
    """Takes the same documents in again."""
    count = 200 if quick else 1_000
    sources = [
        Source(f"{each.document_id}-{part}", each.text[:4_000], media_type="text/markdown")
        for each in documents(count * 5)
        for part in range(10)
    ]
    assert len(sources) == count
    async with running_suite(folder) as suite:
        await ingest(suite, sources)
        again: Taken = await ingest(suite, sources)
    assert again.completed.unchanged_count == count, again.completed
    return [
        Row(
            f"{count:,} unchanged documents taken in again",
            f"{again.seconds:.2f} s, {again.computed_count} embeddings",
            "< 5 s, 0 embeddings",
            again.seconds < 5 and again.computed_count == 0,
        )
    ]


def _sources(chunk_count: int, prefix: str, seed: int) -> list[Source]:
    return [
        Source(each.document_id, each.text, media_type="text/markdown")
        for each in documents(chunk_count, prefix=prefix, seed=seed)
    ]
