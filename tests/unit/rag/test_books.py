"""The books, with a store that does as a test says."""

import pytest

from services.common.clock import SystemClock
from services.common.metrics import Metrics
from services.rag.books import BookLimits, Books
from services.rag.budgets import Budgets
from services.rag.core.errors import StoreUnavailable
from services.rag.core.query_record import LoggedQuery, QueryRecord
from services.rag.core.usage import Amounts, UsageKey, UsageKind
from services.rag.metrics import CATALOGUE
from services.rag.usage_port import Retention

KEY = UsageKey(
    hour_seconds=0, tenant_id="acme", user_id="", mode="rag", model="m", kind=UsageKind.QUERY
)


class ScriptedStore:
    def __init__(self):
        self.faults = []
        self.batches = []

    async def apply(self, batch):
        self.batches.append(batch)
        if self.faults:
            raise self.faults.pop(0)


class Kept:
    def __init__(self, **limits):
        self.store = ScriptedStore()
        self.metrics = Metrics(CATALOGUE, version="test")
        clock = SystemClock()
        self.books = Books(
            self.store,
            budgets=Budgets(clock=clock, metrics=self.metrics),
            clock=clock,
            metrics=self.metrics,
            limits=BookLimits(
                **{
                    "waiting_count": 10,
                    "recent_count": 2,
                    "slow_seconds": 2.0,
                    "retention": Retention(queries=1, usage=1),
                }
                | limits
            ),
        )

    def add(self, *names, seconds=0.0):
        for name in names:
            record = QueryRecord(
                query_id=name,
                tenant_id="acme",
                user_id="",
                started_seconds=0.0,
                call="query",
                mode="rag",
                duration_seconds=seconds,
            )
            self.books.add_query(LoggedQuery(record, ()))
            self.books.add_usage(KEY, Amounts(query_count=1))

    def dropped(self, cause):
        name = "rag_query_log_dropped_total"
        return self.metrics.registry.get_sample_value(name, {"cause": cause})


def told(batch):
    return [each.record.query_id for each in batch.queries], [
        each.amounts.query_count for each in batch.usage
    ]


async def test_a_batch_that_is_not_taken_comes_again_under_its_name_before_the_next():
    kept = Kept()
    kept.store.faults = [StoreUnavailable("away")]
    kept.add("q1", "q2")
    assert not await kept.books.flush()
    kept.add("q3")
    assert await kept.books.flush()
    first, again, last = kept.store.batches
    assert first == again
    assert told(again) == (["q1", "q2"], [2])
    assert told(last) == (["q3"], [1])
    assert last.batch_id != first.batch_id


async def test_what_the_store_rejects_is_given_up_but_not_its_usage():
    kept = Kept()
    kept.store.faults = [ValueError("broken")]
    kept.add("q1", "q2")
    assert await kept.books.flush()
    assert told(kept.store.batches[-1]) == ([], [2])
    assert kept.dropped("rejected") == 2
    kept.add("q3")
    assert await kept.books.flush()
    assert told(kept.store.batches[-1]) == (["q3"], [1])


async def test_a_store_that_rejects_everything_blocks_nothing():
    kept = Kept()
    kept.store.faults = [ValueError("broken")] * 2
    kept.add("q1")
    assert await kept.books.flush()
    assert await kept.books.flush()
    assert len(kept.store.batches) == 2


async def test_queries_beyond_the_buffer_are_dropped_and_their_usage_is_not():
    kept = Kept(waiting_count=2)
    kept.add("q1", "q2", "q3")
    assert await kept.books.flush()
    assert told(kept.store.batches[0]) == (["q1", "q2"], [3])
    assert kept.dropped("full") == 1


async def test_nothing_is_written_where_there_is_nothing():
    kept = Kept()
    assert await kept.books.flush()
    assert kept.store.batches == []


async def test_the_latest_are_in_memory():
    kept = Kept()
    kept.add("q1", "q2", "q3")
    assert [each.record.query_id for each in kept.books.recent("acme")] == ["q3", "q2"]
    assert kept.books.find_recent("acme", "q1") is None
    assert kept.books.find_recent("other", "q3") is None


async def test_what_cannot_be_written_at_the_end_is_counted():
    kept = Kept()
    kept.store.faults = [StoreUnavailable("away")]
    kept.add("q1", "q2")
    await kept.books.close()
    assert kept.dropped("shutdown") == 2


@pytest.mark.parametrize(("seconds", "count"), [(1.99, 0), (2.0, 1)])
async def test_slow_queries_are_told(seconds, count, caplog):
    Kept().add("q1", seconds=seconds)
    assert [each.message for each in caplog.records] == ["slow query"] * count
