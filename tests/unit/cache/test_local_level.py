"""The local level never holds more than its limit and never answers past an expiry."""

import sys
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.local_level import Departure, LocalLevel, LocalValue
from services.cache.core.model import Scope

SCOPE = Scope("acme")
# What a value without payload and tags is taken to need, at least.
OVERHEAD_BYTES = 400


def value(
    size_bytes: int, until: float = 100.0, tags: tuple[str, ...] = (), kept_at: float = 0.0
) -> LocalValue:
    return LocalValue(
        payload=b"x" * size_bytes,
        created_ms=0,
        expires_ms=200_000,
        kept_at=kept_at,
        local_until=until,
        scope=SCOPE,
        tags=tags,
    )


@given(
    st.integers(0, 20_000),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5_000)), max_size=60),
)
def test_its_size_stays_within_the_limit(limit: int, puts: list[tuple[int, int]]) -> None:
    local = LocalLevel(limit)
    for key, size in puts:
        local.put(b"%d" % key, value(size))
        assert local.size_bytes <= limit


@given(st.lists(st.integers(0, 40), max_size=80))
def test_entries_and_evictions_add_up(keys: list[int]) -> None:
    local = LocalLevel(10_000)
    added = 0
    for key in keys:
        added += local.get(b"%d" % key, 0.0) is None
        local.put(b"%d" % key, value(1_000))
    assert local.entry_count + local.eviction_count == added
    assert len(local.values()) == local.entry_count


def test_the_least_recently_used_value_goes_first() -> None:
    local = LocalLevel(3 * 2_000)
    for key in (b"a", b"b", b"c"):
        local.put(key, value(1_200))
    assert local.get(b"a", 0.0) is not None
    local.put(b"d", value(1_300))
    assert [local.get(key, 0.0) is not None for key in (b"a", b"b", b"c", b"d")] == [
        True,
        False,
        True,
        True,
    ]
    assert local.eviction_count == 1


def watched(limit_bytes: int) -> tuple[LocalLevel, list[tuple[Departure, float]]]:
    """Returns a level, and what has left it by itself."""
    local, departures = LocalLevel(limit_bytes), []
    local.on_departure(lambda departure, seconds: departures.append((departure, seconds)))
    return local, departures


def test_a_value_is_forgotten_at_its_expiry_and_counted_as_expired() -> None:
    local, departures = watched(10_000)
    local.put(b"a", value(10, until=60.0))
    assert local.get(b"a", 59.9) == value(10, until=60.0)
    assert local.get(b"a", 60.0) is None
    assert local.get(b"a", 61.0) is None
    assert (local.entry_count, local.eviction_count) == (0, 0)
    assert departures == [(Departure.EXPIRED, 60.0)]


def test_a_value_counts_for_no_longer_than_it_could_be_given() -> None:
    local, departures = watched(10_000)
    local.put(b"a", value(10, kept_at=10.0, until=60.0))
    local.get(b"a", 1000.0)
    assert departures == [(Departure.EXPIRED, 50.0)]


def test_a_value_pushed_out_has_lived_since_it_was_last_put() -> None:
    local, departures = watched(2 * 2_000)
    local.put(b"a", value(1_200))
    local.put(b"a", value(1_200, kept_at=5.0))
    local.put(b"b", value(1_200, kept_at=6.0))
    assert departures == []
    local.put(b"c", value(1_200, kept_at=25.0))
    assert departures == [(Departure.CAPACITY, 20.0)]


def test_a_value_whose_time_was_up_when_its_room_was_needed_has_expired() -> None:
    local, departures = watched(2_000)
    local.put(b"a", value(1_200, until=60.0))
    local.put(b"b", value(1_200, kept_at=75.0))
    assert departures == [(Departure.EXPIRED, 60.0)]
    assert local.eviction_count == 0


def test_what_nobody_asks_for_any_more_does_not_fill_the_level() -> None:
    local, departures = watched(1 << 20)
    for number in range(400):
        local.put(b"%d" % number, value(100, kept_at=float(number), until=number + 60.0))
    assert local.entry_count <= 61
    assert local.entry_count + len(departures) == 400
    assert {departure for departure, _ in departures} == {Departure.EXPIRED}


def test_what_has_expired_goes_by_and_by() -> None:
    local, departures = watched(1 << 20)
    for number in range(10):
        local.put(b"%d" % number, value(100, until=60.0))
    local.put(b"new", value(100, kept_at=60.0, until=120.0))
    assert len(departures) == 2
    assert local.entry_count == 9


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3_000)), max_size=60))
def test_whatever_is_put_is_there_or_has_left_or_was_replaced(puts) -> None:
    local, departures = watched(8_000)
    replaced_count = 0
    for key, size in puts:
        replaced_count += local.get(b"%d" % key, 0.0) is not None
        local.put(b"%d" % key, value(size))
    assert local.entry_count + len(departures) + replaced_count == len(puts)


def test_a_hit_does_not_prolong_a_value() -> None:
    local = LocalLevel(10_000)
    local.put(b"a", value(10, until=60.0))
    for now in range(60):
        assert local.get(b"a", float(now)) is not None
    assert local.get(b"a", 60.0) is None


def test_a_value_that_can_never_fit_replaces_an_old_one_by_nothing() -> None:
    local = LocalLevel(2_000)
    local.put(b"a", value(100))
    local.put(b"a", value(5_000))
    assert local.get(b"a", 0.0) is None
    assert local.size_bytes == 0


def test_a_value_is_discarded_without_being_counted_and_only_once() -> None:
    local, departures = watched(10_000)
    local.put(b"a", value(10))
    local.discard(b"a")
    local.discard(b"a")
    assert local.get(b"a", 0.0) is None
    assert (local.entry_count, local.size_bytes) == (0, 0)
    assert departures == []


def test_a_limit_of_nothing_holds_nothing() -> None:
    local = LocalLevel(0)
    local.put(b"a", value(0))
    assert local.entry_count == 0
    assert local.limit_bytes == 0


def test_tags_weigh_as_much_as_they_take() -> None:
    tags = tuple(f"d:{number:022d}" for number in range(32))
    plain, tagged = LocalLevel(100_000), LocalLevel(100_000)
    plain.put(b"a", value(10))
    tagged.put(b"a", value(10, tags=tags))
    taken = sys.getsizeof(tags) - sys.getsizeof(()) + sum(sys.getsizeof(tag) for tag in tags)
    assert plain.size_bytes - 10 >= OVERHEAD_BYTES
    assert tagged.size_bytes - plain.size_bytes >= taken


class PlainLevel:
    """The same rules in plain words."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.values: OrderedDict[bytes, LocalValue] = OrderedDict()
        self.departures: list[tuple[Departure, float]] = []

    @property
    def size_bytes(self) -> int:
        return sum(map(size_of, self.values.values()))

    def get(self, key: bytes, now: float) -> LocalValue | None:
        found = self.values.get(key)
        if found is None:
            return None
        self.values.move_to_end(key)
        if now < found.local_until:
            return found
        self._leave(key, now)
        return None

    def put(self, key: bytes, value: LocalValue) -> None:
        self.values.pop(key, None)
        for _ in range(2):
            oldest = next(iter(self.values), None)
            if oldest is not None and self.values[oldest].local_until <= value.kept_at:
                self._leave(oldest, value.kept_at)
            else:
                break
        if size_of(value) > self.limit_bytes:
            return
        while self.size_bytes + size_of(value) > self.limit_bytes:
            self._leave(next(iter(self.values)), value.kept_at)
        self.values[key] = value

    def discard(self, key: bytes) -> None:
        self.values.pop(key, None)

    def _leave(self, key: bytes, now: float) -> None:
        value = self.values.pop(key)
        is_expired = value.local_until <= now
        ended_at = value.local_until if is_expired else now
        self.departures.append(
            (Departure.EXPIRED if is_expired else Departure.CAPACITY, ended_at - value.kept_at)
        )


def size_of(value: LocalValue) -> int:
    alone = LocalLevel(1 << 20)
    alone.put(b"x", value)
    return alone.size_bytes


KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(0, 2_000), st.integers(1, 30)),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("discard"), KEYS),
    st.tuples(st.just("wait"), st.integers(1, 20)),
)


@given(st.integers(0, 6_000), st.lists(STEPS, max_size=50))
def test_it_does_what_a_plain_map_with_the_same_rules_does(limit: int, steps) -> None:
    local, departures = watched(limit)
    plain, now = PlainLevel(limit), 0.0
    for step in steps:
        match step:
            case "put", key, size, seconds:
                one = value(size, until=now + seconds, tags=("t" * 24,) * (size % 3), kept_at=now)
                local.put(key, one)
                plain.put(key, one)
            case "get", key:
                assert local.get(key, now) == plain.get(key, now)
            case "discard", key:
                local.discard(key)
                plain.discard(key)
            case "wait", seconds:
                now += seconds
        assert departures == plain.departures
        assert local.size_bytes == plain.size_bytes <= max(limit, 0)
        assert local.entry_count == len(plain.values)
    assert local.eviction_count == [each for each, _ in departures].count(Departure.CAPACITY)
