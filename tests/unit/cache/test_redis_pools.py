"""Pools for one purpose are shown as one, as they are when somebody looks."""

import pytest

from services.cache.adapters.redis_pools import PoolBook, PoolUsage, watched_book
from services.cache.metrics import CATALOGUE
from services.common.metrics import Metrics


class Pool:
    """A pool that is as full as it is told."""

    def __init__(self, *usage: int) -> None:
        self.usage = PoolUsage(*usage)


def test_without_pools_there_is_nothing() -> None:
    assert PoolBook().usage() == (0, 0, 0)


def test_pools_add_up_while_they_are_open() -> None:
    book, one, other = PoolBook(), Pool(1, 2, 8), Pool(0, 4, 16)
    book.add(one)
    book.add(other)
    assert book.usage() == PoolUsage(in_use=1, idle=6, limit=24)
    book.remove(one)
    book.remove(one)
    assert book.usage() == PoolUsage(in_use=0, idle=4, limit=16)


def test_a_scrape_shows_what_is_so_at_that_moment() -> None:
    metrics = Metrics(CATALOGUE, version="test")
    book = watched_book(metrics, "redis")
    pool = Pool(0, 0, 8)
    book.add(pool)

    def shown() -> tuple[float | None, ...]:
        metrics.refresh()
        value = metrics.registry.get_sample_value
        return (
            value("connection_pool_connections", {"pool": "redis", "state": "in_use"}),
            value("connection_pool_connections", {"pool": "redis", "state": "idle"}),
            value("connection_pool_max_connections", {"pool": "redis"}),
        )

    assert shown() == (0, 0, 8)
    pool.usage = PoolUsage(3, 1, 8)
    assert shown() == (3, 1, 8)
    book.observe_wait(0.25)
    waited = metrics.registry.get_sample_value(
        "connection_pool_wait_seconds_sum", {"pool": "redis"}
    )
    assert waited == pytest.approx(0.25)
