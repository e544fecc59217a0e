"""Entries judged wrong while the store takes no word of it."""

from collections.abc import Sequence

import pytest

from services.cache import semantic_store
from services.cache.core.model import Scope
from services.cache.core.semantic.names import PartitionName
from services.cache.core.store_clock import StoreClock
from services.cache.ports import StoreFailure
from services.cache.semantic_store import SemanticStore, Version, WrongEntries
from services.common.clock import SystemClock


class ManualClock(SystemClock):
    """Stands still until it is advanced."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class RefusingStore(SemanticStore):
    """Refuses, or is told."""

    def __init__(self) -> None:
        self.failure: Exception | None = StoreFailure("refused")
        self.removed: list[Version] = []

    async def remove(
        self, name: PartitionName, entries: Sequence[Version], *, quietly: bool = False
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.removed += entries


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> RefusingStore:
    return RefusingStore()


@pytest.fixture
def wrong(store: RefusingStore, clock: ManualClock) -> WrongEntries:
    store_clock = StoreClock(lambda: 0)
    store_clock.note(0, sent_at=clock.monotonic(), received_at=clock.monotonic())
    return WrongEntries(store, store_clock=store_clock, clock=clock)


def name(tenant_id: str = "default", partition_id: str = "p") -> PartitionName:
    return PartitionName(Scope(tenant_id), partition_id)


def version(number: int) -> Version:
    return f"form {number}", b"version1"


async def test_they_are_known_until_the_store_was_told(wrong: WrongEntries, store: RefusingStore):
    wrong.add(name(), version(1), 1000)
    assert not await wrong.tell(name())
    assert wrong.includes(name(), version(1))
    assert not wrong.includes(name(partition_id="q"), version(1))
    store.failure = None
    await wrong.tell_all()
    assert store.removed == [version(1)]
    assert wrong.of(name()) == frozenset()
    assert await wrong.tell(name())


async def test_they_are_known_until_their_life_is_over(wrong: WrongEntries, clock: ManualClock):
    wrong.add(name(), version(1), 10_000)
    wrong.add(name(), version(2), None)
    clock.advance(9)
    await wrong.tell_all()
    assert wrong.of(name()) == {version(1), version(2)}
    clock.advance(2)
    await wrong.tell_all()
    assert wrong.of(name()) == {version(2)}
    clock.advance(366 * 86_400)
    await wrong.tell_all()
    assert wrong.of(name()) == frozenset()


async def test_a_mistake_in_telling_is_said_once_and_forgets_nothing(
    wrong: WrongEntries, store: RefusingStore, caplog: pytest.LogCaptureFixture
):
    store.failure = ValueError("a mistake")
    wrong.add(name(), version(1), 1000)
    for _ in range(3):
        await wrong.tell_all()
    assert wrong.includes(name(), version(1))
    assert len(caplog.records) == 1


async def test_who_reports_most_crowds_out_nobody_else(
    wrong: WrongEntries, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(semantic_store, "_WRONG_LIMIT", 10)
    wrong.add(name("quiet", "quiet"), version(0), 1000)
    for number in range(30):
        wrong.add(name("loud", f"loud {number}"), version(number), 1000)
    assert wrong.includes(name("quiet", "quiet"), version(0))
    kept = [number for number in range(30) if wrong.of(name("loud", f"loud {number}"))]
    assert kept == list(range(21, 30))
