"""The entries of a partition: one for each normal form."""

import numpy as np

from services.cache.core.semantic.partition import Partition
from tests.kit.semantic import entry_of, unit

NOW_MS = 1_000
FOREVER_MS = 10**15


def vector(seed: int) -> np.ndarray:
    return unit(seed).astype(np.float32)


def entry(question: str, *, version: bytes = b"version1", created_ms: int = 500, **changes):
    return entry_of(
        question, version=version, created_ms=created_ms, **({"expires_ms": FOREVER_MS} | changes)
    )


def found(partition: Partition, seed: int) -> list[str]:
    rows = partition.scan(vector(seed), floor=0.99, now_ms=NOW_MS, after_ms=0, limit=9)
    ranked = partition.rank(vector(seed), rows, floor=0.99, now_ms=NOW_MS, after_ms=0)
    return [each.question for each, _ in ranked]


def test_an_empty_partition_has_neither_dimension_nor_entries():
    partition = Partition()
    assert partition.dimension is None
    assert found(partition, 1) == []
    assert partition.oldest(3) == []
    assert partition.expired(NOW_MS) == []
    assert not partition.remove("nothing")
    assert partition.size_bytes == 0


def test_the_same_question_replaces_its_entry():
    partition = Partition()
    first, second = entry("how?"), entry("how?", version=b"version2")
    partition.put(first, vector(1))
    partition.put(second, vector(2))
    assert len(partition) == 1
    assert partition.find(first.form) == second
    assert found(partition, 1) == []
    assert found(partition, 2) == ["how?"]


def test_an_entry_is_removed_by_its_version():
    partition = Partition()
    one = entry("how?")
    partition.put(one, vector(1))
    assert not partition.remove(one.form, b"version2")
    assert found(partition, 1) == ["how?"]
    assert partition.remove(one.form, b"version1")
    assert found(partition, 1) == []
    assert partition.find(one.form) is None


def test_size_follows_what_is_held():
    partition = Partition()
    partition.put(entry("a"), vector(1))
    before = partition.size_bytes
    partition.put(entry("b" * 5_000), vector(2))
    assert partition.size_bytes - before > 5_000
    partition.remove(entry("b" * 5_000).form)
    assert partition.size_bytes == before


def test_expired_and_oldest_entries_are_named():
    partition = Partition()
    partition.put(entry("old", created_ms=1), vector(1))
    partition.put(entry("ended", created_ms=5, expires_ms=NOW_MS), vector(2))
    partition.put(entry("new", created_ms=9), vector(3))
    assert [each.question for each in partition.oldest(1)] == ["old"]
    assert [each.question for each in partition.expired(NOW_MS)] == ["ended"]
    assert found(partition, 2) == []
