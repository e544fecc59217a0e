from services.rag.core.timed_cache import TimedCache


def make(**options):
    return TimedCache(**{"retention_seconds": 10.0, "limit_bytes": 100, **options})


def test_a_value_is_kept_until_its_time_is_over():
    cache = make()
    cache.put("a", 1, size_bytes=10, now=0.0)
    assert cache.get("a", now=9.9) == 1
    assert cache.get("a", now=10.0) is None
    assert cache.size_bytes == 0


def test_the_value_unused_longest_goes_first():
    cache = make()
    for name in "abc":
        cache.put(name, name, size_bytes=33, now=0.0)
    assert cache.get("a", now=1.0) == "a"
    cache.put("d", "d", size_bytes=33, now=1.0)
    assert [cache.get(name, now=1.0) for name in "abcd"] == ["a", None, "c", "d"]
    assert cache.size_bytes == 99


def test_what_is_larger_than_all_may_be_is_not_kept_and_takes_the_old_value_away():
    cache = make()
    cache.put("a", 1, size_bytes=10, now=0.0)
    cache.put("a", 2, size_bytes=101, now=0.0)
    assert cache.get("a", now=0.0) is None
    assert cache.size_bytes == 0


def test_a_retention_of_nothing_keeps_nothing():
    cache = make(retention_seconds=0.0)
    cache.put("a", 1, size_bytes=10, now=5.0)
    assert cache.get("a", now=5.0) is None
