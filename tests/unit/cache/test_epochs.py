"""What was invalidated stays so, whatever happens to notes, notices and stores."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.epochs import RETENTION_MS, EpochTable, parse_table
from services.cache.core.model import Scope
from services.cache.core.tags import collection_tag, grown_field
from services.cache.epochs import Epochs
from services.cache.ports import StoreFailure

DIGEST = "ab" * 32
SCOPE = Scope("acme", "manuals", DIGEST)
KEY = b"pannier:2:ep:{acme}"
REFUSED = StoreFailure("connection refused")
SPOILT = {b"*": b"soon", b"@v": b"9" * 13, b"@h": b"0"}

FIELDS = ["*", "n:manuals", "n:", "n:other", f"m:{DIGEST}", "m:cd", "d:1", "c:1", "x:1", "g:1"]
TIMES = st.integers(1, 20)


class TestTable:
    """A value counts only if it is younger than every note that applies to it."""

    @given(
        st.lists(st.tuples(st.sampled_from(FIELDS), TIMES), max_size=8),
        st.integers(0, 20),
        st.sets(st.sampled_from(["d:1", "c:1", "x:1", "x:2"])),
    )
    def test_it_agrees_with_the_definition(self, bumps, created_ms, tags) -> None:
        table = EpochTable(flushed_ms=0)
        for version, (field, epoch_ms) in enumerate(bumps):
            table.note([field], epoch_ms, version)
        applying = {"*", "n:manuals", f"m:{DIGEST}", *tags}
        newest = max([0, *(epoch_ms for field, epoch_ms in bumps if field in applying)])
        assert table.is_valid(SCOPE, created_ms, tuple(tags)) == (created_ms > newest)

    @given(st.lists(st.tuples(st.sampled_from(FIELDS), TIMES), max_size=8), st.integers(0, 20))
    def test_a_value_that_does_not_count_never_counts_again(self, bumps, created_ms) -> None:
        table = EpochTable(flushed_ms=0)
        counted = True
        for version, (field, epoch_ms) in enumerate(bumps):
            table.note([field], epoch_ms, version)
            counts = table.is_valid(SCOPE, created_ms, ("d:1",))
            assert counted or not counts
            counted = counts

    def test_a_note_for_the_whole_tenant_makes_the_others_needless(self) -> None:
        table = EpochTable(flushed_ms=0, epochs={"d:1": 5, "d:2": 6})
        table.note(["*"], 10, 1)
        assert (table.invalidated_ms("d:1"), table.invalidated_ms("d:2")) == (0, 0)
        assert not table.is_valid(Scope("acme"), 10, ())
        assert table.is_valid(Scope("acme"), 11, ("d:1",))

    def test_nothing_counts_from_a_time_of_which_the_notes_are_gone(self) -> None:
        table = EpochTable(flushed_ms=0)
        table.age(RETENTION_MS + 1_000)
        assert not table.is_valid(SCOPE, 1_000, ())
        assert table.is_valid(SCOPE, 1_001, ())

    def test_it_knows_what_a_store_has_forgotten(self) -> None:
        before = EpochTable(flushed_ms=50, epochs={"d:1": 100, "d:2": 70})
        after_failover = EpochTable(flushed_ms=40, epochs={"d:2": 80})
        after_failover.absorb(before)
        assert not after_failover.is_valid(SCOPE, 100, ("d:1",))
        assert not after_failover.is_valid(SCOPE, 80, ("d:2",))
        assert not after_failover.is_valid(SCOPE, 50, ())
        assert after_failover.is_valid(SCOPE, 101, ("d:1", "d:2"))

    def test_the_first_note_is_nobody_s_invalidation(self) -> None:
        table = EpochTable(flushed_ms=10, born_ms=10, epochs={"d:1": 20})
        assert (table.invalidated_ms("*"), table.invalidated_ms("d:1")) == (0, 20)
        table.note(["*"], 30, 1)
        assert table.invalidated_ms("*") == 30

    def test_it_is_read_as_it_is_written(self) -> None:
        notes = {
            b"*": b"10",
            b"@v": b"30",
            b"@b": b"10",
            b"@p": b"10",
            b"@h": b"ab" * 20,
            b"t:": b"0.97",
            b"d:1": b"2",
        }
        table = parse_table([part for pair in notes.items() for part in pair])
        assert (table.flushed_ms, table.version, table.threshold("")) == (10, 30, 0.97)
        assert (table.invalidated_ms("d:1"), table.invalidated_ms("@p")) == (2, 0)

    @pytest.mark.parametrize(
        "notes",
        [
            [],
            [b"d:1", b"5"],
            [b"*", b"soon"],
            [b"*", b"5", b"d:1", b""],
            [b"*", b"5", b"t:", b"nan"],
            [b"*", b"5", b"t:", b"1.1"],
            [b"*", b"5", b"\xff", b"5"],
            [b"*"],
        ],
    )
    def test_notes_of_another_form_are_not_believed(self, notes) -> None:
        with pytest.raises(ValueError, match=r".*"):
            parse_table(notes)


@asynccontextmanager
async def running(epochs: Epochs):
    task = asyncio.create_task(epochs.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def make_epochs(bench):
    """Makes further replicas' view of the same store."""

    def make(**options: object) -> Epochs:
        return Epochs(
            bench.levels.shared,
            store_clock=bench.levels.store_clock,
            clock=bench.clock,
            remaining_seconds=lambda: bench.remaining_seconds[0],
            **options,
        )

    return make


def deliver(bench, *replicas: Epochs) -> None:
    """Sends all notices so far to replicas."""
    for notice in bench.store.notes.notices:
        for replica in replicas:
            replica.on_notice(notice)
    bench.store.notes.notices.clear()


def now_ms(bench) -> int:
    return int(bench.clock.now() * 1000)


class TestReady:
    """What is known of a tenant is read when it is needed, once for all who need it."""

    async def test_nothing_counts_of_a_tenant_that_is_not_known(self, bench, make_epochs) -> None:
        epochs = make_epochs()
        assert not epochs.is_valid(SCOPE, now_ms(bench) + 1, ())
        assert await epochs.ready("acme")
        assert epochs.is_valid(SCOPE, now_ms(bench), ())

    async def test_nothing_counts_from_before_a_first_note(self, bench, make_epochs) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        assert not epochs.is_valid(SCOPE, now_ms(bench) - 1, ())
        assert bench.store.notes.tables[KEY][b"*"] == b"%d" % (now_ms(bench) - 1)

    async def test_many_callers_cost_one_read(self, bench, make_epochs) -> None:
        epochs = make_epochs()
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(epochs.ready("acme")) for _ in range(100)]
        assert all(wait.result() for wait in waits)
        assert bench.store.runs == ["read_epochs"]

    async def test_a_caller_that_goes_away_leaves_the_others_their_answer(
        self, bench, make_epochs
    ) -> None:
        epochs = make_epochs()
        first = asyncio.create_task(epochs.ready("acme"))
        second = asyncio.create_task(epochs.ready("acme"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        assert first.cancelled()
        assert bench.store.runs == ["read_epochs"]

    async def test_what_is_fresh_costs_nothing_and_what_is_not_is_read_first(
        self, bench, make_epochs
    ) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        await bench.clock.advance(5)
        await epochs.ready("acme")
        assert len(bench.store.runs) == 1
        await bench.clock.advance(1.5)
        await epochs.ready("acme")
        assert len(bench.store.runs) == 2

    async def test_the_reply_s_time_is_the_store_s_time(self, bench, make_epochs) -> None:
        assert bench.levels.store_now_ms() == now_ms(bench) - 60_000
        await make_epochs().ready("acme")
        assert bench.levels.store_now_ms() == now_ms(bench)

    async def test_a_caller_in_a_hurry_waits_no_longer_than_it_can(
        self, bench, make_epochs
    ) -> None:
        bench.remaining_seconds[0] = 0.005
        assert not await make_epochs().ready("acme")
        assert bench.store.runs == []

    async def test_only_so_many_tenants_are_kept_in_memory(self, bench, make_epochs) -> None:
        epochs = make_epochs(tenant_limit=3)
        for name in ("a", "b", "c"):
            await epochs.ready(name)
        await epochs.ready("a")
        await epochs.ready("d")
        valid = {name: epochs.is_valid(Scope(name), now_ms(bench), ()) for name in "abcd"}
        assert valid == {"a": True, "b": False, "c": True, "d": True}
        await epochs.ready("b")
        assert epochs.is_valid(Scope("b"), now_ms(bench), ())

    async def test_an_invalidation_survives_that_its_tenant_is_forgotten(
        self, bench, make_epochs
    ) -> None:
        epochs = make_epochs(tenant_limit=1)
        await epochs.ready("acme")
        created_ms = now_ms(bench)
        await epochs.bump("acme", ["d:1"])
        await epochs.ready("globex")
        await epochs.ready("acme")
        assert not epochs.is_valid(SCOPE, created_ms, ("d:1",))
        assert epochs.is_valid(SCOPE, created_ms, ())


class TestBump:
    """An invalidation holds here at once, elsewhere with its notice, and without one soon after."""

    async def test_it_holds_when_it_returns(self, bench, make_epochs) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        await bench.clock.advance(1)
        created_ms = now_ms(bench)
        bump = await epochs.bump("acme", ["d:1", "c:1"])
        assert (bump.epoch_ms, bump.previous_ms) == (created_ms, (0, 0))
        assert not epochs.is_valid(SCOPE, created_ms, ("d:1",))
        assert epochs.is_valid(SCOPE, created_ms, ("d:2",))
        assert epochs.is_valid(SCOPE, created_ms + 1, ("d:1", "c:1"))
        await bench.clock.advance(1)
        again = await epochs.bump("acme", ["d:1"])
        assert again.previous_ms == (bump.epoch_ms,)
        assert epochs.invalidated_at("acme", "d:1") == again.epoch_ms

    async def test_values_dated_by_a_server_ahead_of_the_others_are_reached_as_well(
        self, bench, make_epochs
    ) -> None:
        epochs = make_epochs(clock_tolerance_ms=100)
        await epochs.ready("acme")
        ahead_ms = now_ms(bench) + 100
        await epochs.bump("acme", ["d:1"])
        assert not epochs.is_valid(SCOPE, ahead_ms, ("d:1",))
        assert epochs.is_valid(SCOPE, ahead_ms + 1, ("d:1",))

    async def test_notices_tell_other_replicas_without_a_read(self, bench, make_epochs) -> None:
        one, other = make_epochs(), make_epochs()
        for replica in (one, other):
            await replica.ready("acme")
        created_ms = now_ms(bench)
        for field in ("d:1", "d:2"):
            await one.bump("acme", [field])
        runs = len(bench.store.runs)
        deliver(bench, one, other)
        for replica in (one, other):
            assert await replica.ready("acme")
            assert not replica.is_valid(SCOPE, created_ms, ("d:1",))
            assert not replica.is_valid(SCOPE, created_ms, ("d:2",))
        assert len(bench.store.runs) == runs

    async def test_after_a_notice_was_missed_the_next_one_has_all_read(
        self, bench, make_epochs
    ) -> None:
        one, other = make_epochs(), make_epochs()
        for replica in (one, other):
            await replica.ready("acme")
        created_ms = now_ms(bench)
        await one.bump("acme", ["d:1"])
        bench.store.notes.notices.clear()
        await one.bump("acme", ["d:2"])
        async with running(other):
            deliver(bench, other)
            await bench.clock.advance(0)
            assert not other.is_valid(SCOPE, created_ms, ("d:1",))

    async def test_who_looks_right_after_a_notice_does_not_get_what_it_made_void(
        self, bench, make_epochs
    ) -> None:
        one, other = make_epochs(), make_epochs()
        for replica in (one, other):
            await replica.ready("acme")
        created_ms = now_ms(bench)
        await one.bump("acme", ["d:1"])
        bench.store.notes.notices.clear()
        await one.bump("acme", ["d:2"])
        deliver(bench, other)
        # Nothing runs in the background here.
        await other.ready("acme")
        assert not other.is_valid(SCOPE, created_ms, ("d:1",))

    @pytest.mark.parametrize("offset_seconds", [0.0, 0.1, 0.5, 0.9])
    async def test_without_any_notice_it_holds_within_five_seconds(
        self, bench, make_epochs, offset_seconds
    ) -> None:
        one, other = make_epochs(), make_epochs()
        async with running(other):
            await bench.clock.advance(offset_seconds)
            for replica in (one, other):
                await replica.ready("acme")
            await bench.clock.advance(0.05)
            created_ms = now_ms(bench)
            await one.bump("acme", ["d:1"])
            await bench.clock.advance(5)
            assert not other.is_valid(SCOPE, created_ms, ("d:1",))

    async def test_a_gap_between_notices_has_what_is_in_use_read(self, bench, make_epochs) -> None:
        one, other = make_epochs(), make_epochs()
        async with running(other):
            await other.ready("idle")
            await bench.clock.advance(301)
            for replica in (one, other):
                await replica.ready("acme")
            created_ms = now_ms(bench)
            await one.bump("acme", ["d:1"])
            runs = len(bench.store.runs)
            other.on_gap()
            await bench.clock.advance(0)
            assert not other.is_valid(SCOPE, created_ms, ("d:1",))
            assert len(bench.store.runs) == runs + 1

    async def test_a_notice_that_overtakes_the_reply_to_a_read_is_not_lost(
        self, bench, make_epochs
    ) -> None:
        one, other = make_epochs(), make_epochs()
        await one.ready("acme")
        created_ms = now_ms(bench)
        answer = bench.store.notes.run

        def slow(name: str, *arguments: object) -> object:
            reply = answer(name, *arguments)
            if name == "read_epochs":
                # The reply is on its way; meanwhile another replica invalidates.
                answer("bump_epochs", KEY, [b"acme", b"", 0, 0, 10**12, 10**12, b"d:1"])
                deliver(bench, other)
            return reply

        bench.store.notes.run = slow
        async with running(other):
            await other.ready("acme")
            bench.store.notes.run = answer
            await bench.clock.advance(0)
            assert not other.is_valid(SCOPE, created_ms, ("d:1",))

    @pytest.mark.parametrize("payload", [b"", b"acme", b"\xff\n1\n2\nd:1", b"acme\nx\ny\nd:1"])
    async def test_a_notice_of_another_form_changes_nothing(
        self, bench, make_epochs, payload
    ) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        with suppress(ValueError):
            epochs.on_notice(payload)
        assert epochs.is_valid(SCOPE, now_ms(bench), ("d:1",))

    async def test_notices_of_tenants_that_nobody_uses_here_cost_nothing(
        self, bench, make_epochs
    ) -> None:
        one, other = make_epochs(), make_epochs()
        await one.bump("acme", ["d:1"])
        async with running(other):
            runs = len(bench.store.runs)
            deliver(bench, other)
            await bench.clock.advance(10)
            assert len(bench.store.runs) == runs

    async def test_a_bump_that_may_have_been_noted_has_all_read(self, bench, make_epochs) -> None:
        one, other = make_epochs(), make_epochs()
        for replica in (one, other):
            await replica.ready("acme")
        created_ms = now_ms(bench)
        await other.bump("acme", ["d:1"])
        bench.store.failure = REFUSED
        with pytest.raises(StoreFailure):
            await one.bump("acme", ["d:1"])
        bench.store.failure = None
        await one.ready("acme")
        assert not one.is_valid(SCOPE, created_ms, ("d:1",))


class TestOutages:
    """Without the store nothing comes back that was gone."""

    async def test_a_lost_hash_makes_everything_void(self, bench, make_epochs) -> None:
        one, other = make_epochs(), make_epochs()
        async with running(one), running(other):
            for replica in (one, other):
                await replica.ready("acme")
            created_ms = now_ms(bench)
            bench.store.notes.tables.clear()
            await bench.clock.advance(5)
            for replica in (one, other):
                assert not replica.is_valid(SCOPE, created_ms, ())

    @pytest.mark.parametrize("promoted", [True, False])
    async def test_a_store_that_fails_over_to_an_older_copy_brings_nothing_back(
        self, bench, make_epochs, promoted
    ) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        copy = dict(bench.store.notes.tables[KEY])
        created_ms = now_ms(bench)
        await epochs.bump("acme", ["d:1"])
        bench.store.notes.tables[KEY] = copy
        await bench.clock.advance(1)
        if promoted:
            bench.store.notes.history = b"1"
        late = make_epochs()
        # Without a promotion it shows to those who know better only.
        readers = (late, epochs) if promoted else (epochs, late)
        for each in readers:
            await each.refresh("acme")
        for each in readers:
            assert not each.is_valid(SCOPE, created_ms, ("d:1",))
            # Whether this one was invalidated is not known any more.
            assert not each.is_valid(SCOPE, created_ms, ())

    async def test_after_a_minute_without_news_nothing_is_trusted(self, bench, make_epochs) -> None:
        epochs = make_epochs()
        await bench.clock.advance(50)
        await epochs.ready("acme")
        await bench.clock.advance(60)
        assert epochs.trusted(bench.clock.monotonic())
        await bench.clock.advance(0.1)
        assert not epochs.trusted(bench.clock.monotonic())
        await epochs.refresh("acme")
        assert epochs.trusted(bench.clock.monotonic())

    async def test_a_tenant_met_while_the_store_is_away_begins_with_an_empty_page(
        self, bench, make_epochs
    ) -> None:
        epochs = make_epochs()
        bench.store.failure = REFUSED
        assert not await epochs.ready("acme")
        here_ms = bench.levels.store_now_ms()
        assert not epochs.is_valid(SCOPE, here_ms - 1, ())
        assert epochs.is_valid(SCOPE, here_ms, ())
        await bench.clock.advance(10)
        assert not await epochs.ready("acme")
        assert epochs.is_valid(SCOPE, here_ms, ())

    async def test_what_that_page_says_is_not_held_against_older_values_afterwards(
        self, bench, make_epochs
    ) -> None:
        one, other = make_epochs(), make_epochs()
        await one.ready("acme")
        created_ms = now_ms(bench)
        await bench.clock.advance(10)
        bench.store.failure = REFUSED
        await other.ready("acme")
        assert not other.is_valid(SCOPE, created_ms, ())
        bench.store.failure = None
        await other.ready("acme")
        assert other.is_valid(SCOPE, created_ms, ())

    async def test_a_recovery_reads_what_is_in_use_and_forgets_the_rest(
        self, bench, make_epochs
    ) -> None:
        one, other = make_epochs(), make_epochs()
        await other.ready("idle")
        await bench.clock.advance(301)
        for replica in (one, other):
            await replica.ready("acme")
        created_ms = now_ms(bench)
        await one.bump("acme", ["d:1"])
        runs = len(bench.store.runs)
        await other.recover()
        assert len(bench.store.runs) == runs + 1
        assert not other.is_valid(SCOPE, created_ms, ("d:1",))
        assert not other.is_valid(Scope("idle"), created_ms, ())

    async def test_a_recovery_fails_where_the_store_does(self, bench, make_epochs) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        bench.store.failure = REFUSED
        with pytest.raises(StoreFailure):
            await epochs.recover()

    async def test_notes_that_cannot_be_read_are_as_good_as_none(
        self, bench, make_epochs, caplog
    ) -> None:
        bench.store.notes.tables[KEY] = dict(SPOILT)
        epochs = make_epochs()
        assert not await epochs.ready("acme")
        assert not epochs.is_valid(SCOPE, bench.levels.store_now_ms() - 1, ())
        assert "notes of invalidations cannot be read" in caplog.text

    async def test_one_tenant_s_trouble_does_not_keep_its_old_notes_alive(
        self, bench, make_epochs
    ) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        created_ms = now_ms(bench)
        await bench.clock.advance(61)
        bench.store.notes.tables[KEY] = dict(SPOILT)
        await epochs.ready("globex")
        # The store is there, so that what is known counts as up to date, but for this tenant.
        assert epochs.trusted(bench.clock.monotonic())
        assert not await epochs.ready("acme")
        assert not epochs.is_valid(SCOPE, created_ms, ())


class TestGrowthAndThresholds:
    """What else is noted of a tenant."""

    async def test_a_collection_that_has_grown_makes_nothing_void(self, bench, make_epochs) -> None:
        epochs = make_epochs()
        await epochs.ready("acme")
        created_ms = now_ms(bench)
        assert epochs.grown_at("acme", "handbook") == 0
        bump = await epochs.bump("acme", [grown_field("handbook")])
        assert epochs.grown_at("acme", "handbook") == bump.epoch_ms
        assert epochs.grown_at("acme", "other") == epochs.grown_at("globex", "handbook") == 0
        assert epochs.is_valid(SCOPE, created_ms, (collection_tag("handbook"),))

    async def test_a_threshold_reaches_all_replicas_and_can_be_taken_back(
        self, bench, make_epochs
    ) -> None:
        one, other = make_epochs(), make_epochs()
        for replica in (one, other):
            await replica.ready("acme")
        assert await one.set_threshold("acme", "faq", 0.97) is None
        async with running(other):
            for wished, before in ((0.98, 0.97), (None, 0.98)):
                deliver(bench, other)
                await bench.clock.advance(0)
                for replica in (one, other):
                    assert replica.threshold("acme", "faq") == before
                    assert replica.threshold("acme", "") is None
                assert await one.set_threshold("acme", "faq", wished) == before
            deliver(bench, other)
            await bench.clock.advance(0)
            assert one.threshold("acme", "faq") is other.threshold("acme", "faq") is None

    async def test_a_threshold_set_for_an_unknown_tenant_is_read(self, make_epochs) -> None:
        epochs = make_epochs()
        await epochs.set_threshold("acme", "", 0.99)
        assert epochs.threshold("acme", "") is None
        await epochs.ready("acme")
        assert epochs.threshold("acme", "") == 0.99
