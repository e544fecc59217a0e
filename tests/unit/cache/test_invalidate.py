"""What would become unreadable is told before, and nothing else does."""

import asyncio
from contextlib import suppress

import pytest

from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalValue
from services.cache.core.model import Keeping, NewValue, Result, Scope
from services.cache.core.tags import TargetKind, collection_tag
from services.cache.invalidate import Target, invalidate, preview
from services.cache.keep import keep
from services.cache.look_up import look_up
from services.cache.ports import StoreFailure

ONE, OTHER = "ab" * 32, "cd" * 32
HANDBOOK = collection_tag("handbook")

EVERYTHING = Target(kind=TargetKind.EVERYTHING, field="*")
NAMESPACE = Target(kind=TargetKind.NAMESPACE, field="n:faq", name="faq")
UNNAMED = Target(kind=TargetKind.NAMESPACE, field="n:", name="")
MODEL = Target(kind=TargetKind.MODEL_DIGEST, field=f"m:{ONE}", name=ONE)
DOCUMENT = Target(kind=TargetKind.DOCUMENT, field="d:1", name="d:1")
COLLECTION = Target(kind=TargetKind.COLLECTION, field=HANDBOOK, name=HANDBOOK)
CUSTOM = Target(kind=TargetKind.CUSTOM, field="x:1", name="x:1")
GROWN = Target(kind=TargetKind.GROWN_COLLECTION, field="g:1", name=HANDBOOK)
ALL = [EVERYTHING, NAMESPACE, UNNAMED, MODEL, DOCUMENT, COLLECTION, CUSTOM, GROWN]

VALUES = {
    "plain": (Layer.CHUNK, Scope("acme"), ()),
    "faq": (Layer.INFERENCE, Scope("acme", "faq", ONE), ("d:1", HANDBOOK)),
    "vector": (Layer.EMBEDDING, Scope("acme", "", ONE), ()),
    "other": (Layer.INFERENCE, Scope("acme", "faq", OTHER), ("x:1",)),
    "foreign": (Layer.INFERENCE, Scope("globex", "faq", ONE), ("d:1", HANDBOOK, "x:1")),
}


def no_questions() -> list[LocalValue]:
    return []


async def fill(bench) -> None:
    for name, (layer, scope, tags) in VALUES.items():
        value = NewValue(EntryKey(name.encode()), b"value")
        await keep(bench.levels, layer, [value], scope=scope, keeping=Keeping(tags=tags))
    await bench.clock.advance(1)


async def readable(bench) -> set[str]:
    found = set()
    for name, (layer, scope, _) in VALUES.items():
        lookup = await look_up(bench.levels, layer, [EntryKey(name.encode())], scope=scope)
        if lookup.result is Result.HIT:
            found.add(name)
    return found


async def carry_out(bench, *targets: Target):
    """Invalidates while time goes on, as the answer waits for the store's next millisecond."""
    task = asyncio.create_task(invalidate(bench.levels, "acme", targets))
    while not task.done():
        await bench.clock.advance(0.001)
    return await task


@pytest.mark.parametrize(
    ("target", "gone"),
    [
        (EVERYTHING, {"plain", "faq", "vector", "other"}),
        (NAMESPACE, {"faq", "other"}),
        (UNNAMED, {"plain", "vector"}),
        (MODEL, {"faq", "vector"}),
        (DOCUMENT, {"faq"}),
        (COLLECTION, {"faq"}),
        (CUSTOM, {"other"}),
        (GROWN, set()),
    ],
    ids=lambda each: each.kind.value if isinstance(each, Target) else "",
)
async def test_exactly_what_was_counted_becomes_unreadable(bench, target, gone) -> None:
    await fill(bench)
    foretold = await preview(bench.levels, no_questions, "acme", [target])
    assert foretold.entry_counts == (len(gone),)
    assert await readable(bench) == set(VALUES)
    await carry_out(bench, target)
    assert await readable(bench) == set(VALUES) - gone
    assert bench.metric("cache_invalidations_total", reason=target.kind.value) == 1


async def test_a_preview_changes_nothing_and_tells_of_what_was_before(bench) -> None:
    await fill(bench)
    effect = await preview(bench.levels, no_questions, "acme", ALL)
    assert effect.previous_ms == (0,) * len(ALL)
    assert bench.store.notes.notices == []
    done = await carry_out(bench, DOCUMENT)
    effect = await preview(bench.levels, no_questions, "acme", ALL)
    expected = tuple(done.epoch_ms if target is DOCUMENT else 0 for target in ALL)
    assert effect.previous_ms == expected


async def test_what_is_void_already_is_not_counted_again(bench) -> None:
    await fill(bench)
    assert (await preview(bench.levels, no_questions, "acme", [CUSTOM])).entry_counts == (1,)
    await carry_out(bench, CUSTOM)
    assert (await preview(bench.levels, no_questions, "acme", [CUSTOM])).entry_counts == (0,)


async def test_a_grown_collection_concerns_answers_to_similar_questions_only(bench) -> None:
    await fill(bench)
    answer = LocalValue(
        payload=b"",
        created_ms=bench.levels.store_now_ms(),
        expires_ms=0,
        kept_at=0.0,
        local_until=0.0,
        scope=Scope("acme", "faq", ONE),
        tags=(HANDBOOK,),
    )
    effect = await preview(bench.levels, lambda: [answer] * 3, "acme", [GROWN, COLLECTION])
    assert effect.entry_counts == (3, 4)


async def test_what_is_computed_after_the_answer_counts(bench) -> None:
    await fill(bench)
    done = await carry_out(bench, EVERYTHING)
    assert bench.levels.store_now_ms() > done.epoch_ms


async def test_a_store_that_is_away_is_the_caller_s_business(bench) -> None:
    await fill(bench)
    bench.store.failure = StoreFailure("connection refused")
    with pytest.raises(StoreFailure):
        await preview(bench.levels, no_questions, "acme", [EVERYTHING])
    with pytest.raises(StoreFailure):
        await invalidate(bench.levels, "acme", [EVERYTHING])
    with suppress(StoreFailure):
        assert await readable(bench) == set(VALUES)
