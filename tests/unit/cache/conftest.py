"""A clock that tests advance, and a shared store that fails as told."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from services.cache.core.breaker import BreakerPolicy
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.store_clock import StoreClock
from services.cache.epochs import Epochs
from services.cache.levels import Levels
from services.cache.metrics import CATALOGUE
from services.cache.ports import Script, StoreFailure, Write
from services.cache.recorder import Recorder
from services.cache.shared_level import SharedLevel
from services.common.metrics import Metrics
from tests.kit.epoch_notes import EpochNotes

PEPPER = b"a secret of the tests"


class ManualClock:
    """Stands still until it is advanced."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed

    def now(self) -> float:
        return 1_700_000_000.0 + self._elapsed

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self._elapsed + seconds, woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        """Moves on, waking sleepers in the order of their times and letting them act."""
        end = self._elapsed + seconds
        await _let_others_run()
        while due := sorted((s for s in self._sleepers if s[0] <= end + 1e-9), key=lambda s: s[0]):
            at, woken = due[0]
            self._sleepers.remove(due[0])
            self._elapsed = max(self._elapsed, at)
            woken.set()
            await _let_others_run()
        self._elapsed = end


async def _let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@dataclass
class FakeStore:
    """Keeps bytes in memory; fails while `failure` is set."""

    clock: ManualClock
    notes: EpochNotes = field(init=False)
    values: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    ttls_ms: dict[bytes, int] = field(default_factory=dict)
    failure: StoreFailure | None = None
    refused: set[bytes] = field(default_factory=set)
    reads: list[tuple[int, list[bytes]]] = field(default_factory=list)
    writes: list[tuple[int, list[Write]]] = field(default_factory=list)
    waits_seconds: list[float] = field(default_factory=list)
    check_count: int = 0
    runs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes = EpochNotes(self.clock.now)

    async def read(
        self, database: int, keys: Sequence[bytes], *, timeout_seconds: float
    ) -> list[bytes | None]:
        self.reads.append((database, list(keys)))
        self._meet(timeout_seconds)
        return [self.values.get((database, key)) for key in keys]

    async def write(
        self, database: int, writes: Sequence[Write], *, timeout_seconds: float
    ) -> list[bool]:
        self.writes.append((database, list(writes)))
        self._meet(timeout_seconds)
        for write in writes:
            if write.key not in self.refused:
                self.values[database, write.key] = write.data
                self.ttls_ms[write.key] = write.ttl_ms
        return [write.key not in self.refused for write in writes]

    async def run(
        self,
        database: int,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
        *,
        timeout_seconds: float,
    ) -> object:
        self.runs.append(script.name)
        self._meet(timeout_seconds)
        return self.notes.run(script.name, keys[0], arguments)

    async def check(self, *, timeout_seconds: float) -> None:
        self.check_count += 1
        self._meet(timeout_seconds)

    def _meet(self, timeout_seconds: float) -> None:
        self.waits_seconds.append(timeout_seconds)
        if self.failure is not None:
            raise self.failure


@dataclass
class Bench:
    """The levels with everything behind them."""

    clock: ManualClock
    store: FakeStore
    metrics: Metrics
    levels: Levels
    local: dict[Layer, LocalLevel]
    remaining_seconds: list[float | None]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def forget_locally(self) -> None:
        """Empties the local levels, as a restart would."""
        for layer in Layer:
            self.local[layer] = LocalLevel(1 << 20)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FakeStore:
    return FakeStore(clock)


@pytest.fixture
def make_bench(clock: ManualClock, store: FakeStore) -> Callable[..., Bench]:
    def make(*, local_limit_bytes: int = 1 << 20) -> Bench:
        metrics = Metrics(CATALOGUE, version="test")
        local = {layer: LocalLevel(local_limit_bytes) for layer in Layer}
        recorder = Recorder(metrics, local, clock)
        remaining: list[float | None] = [None]
        shared = SharedLevel(
            store,
            databases={
                Layer.EMBEDDING: 0,
                Layer.INFERENCE: 1,
                Layer.CHUNK: 0,
                Layer.SEMANTIC: 1,
            },
            timeout_seconds=0.1,
            remaining_seconds=lambda: remaining[0],
            clock=clock,
            recorder=recorder,
            policy=BreakerPolicy(),
        )
        store_clock = StoreClock(lambda: clock.now() * 1000)
        levels = Levels(
            local=local,
            shared=shared,
            epochs=Epochs(
                shared,
                store_clock=store_clock,
                clock=clock,
                remaining_seconds=lambda: remaining[0],
            ),
            store_clock=store_clock,
            pepper=PEPPER,
            clock=clock,
            draw=lambda: 0.5,
            recorder=recorder,
        )
        return Bench(clock, store, metrics, levels, local, remaining)

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
