"""Failures are remembered for as long as their kind says, or where they come too often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.failures import Failure, FailureKind, Failures

KEY, OTHER = b"key", b"other"
TRANSIENT = Failure(FailureKind.TRANSIENT, "connection reset")


@pytest.mark.parametrize(
    ("kind", "seconds"), [(FailureKind.MODEL_NOT_FOUND, 30.0), (FailureKind.REJECTED, 300.0)]
)
def test_lasting_failures_are_remembered_at_once(kind, seconds) -> None:
    failures = Failures()
    failure = Failure(kind, "no")
    assert failures.note(KEY, failure, 100.0) == seconds
    known = failures.known(KEY, 110.0)
    assert known is not None
    assert (known.failure, known.remaining_seconds) == (failure, seconds - 10.0)
    assert failures.known(OTHER, 110.0) is None
    assert failures.known(KEY, 100.0 + seconds) is None


@pytest.mark.parametrize("kind", [FailureKind.TRANSIENT, FailureKind.UNSPECIFIED])
def test_three_passing_failures_within_30_seconds_are_one_too_many(kind) -> None:
    failures = Failures()
    failure = Failure(kind, "reset")
    assert failures.note(KEY, failure, 0.0) == 0.0
    assert failures.note(KEY, failure, 15.0) == 0.0
    assert failures.known(KEY, 15.0) is None
    assert failures.note(KEY, failure, 29.0) == 10.0
    assert failures.known(KEY, 30.0) is not None
    assert failures.known(KEY, 39.0) is None


def test_the_30_seconds_slide() -> None:
    failures = Failures()
    assert failures.note(KEY, TRANSIENT, 0.0) == 0.0
    assert failures.note(KEY, TRANSIENT, 29.0) == 0.0
    assert failures.note(KEY, TRANSIENT, 31.0) == 0.0
    assert failures.note(KEY, TRANSIENT, 40.0) == 10.0


def test_after_the_protection_counting_begins_anew() -> None:
    failures = Failures()
    for at in (0.0, 1.0, 2.0):
        failures.note(KEY, TRANSIENT, at)
    assert failures.known(KEY, 12.0) is None
    assert failures.note(KEY, TRANSIENT, 12.0) == 0.0


def test_a_value_makes_failures_forgotten() -> None:
    failures = Failures()
    failures.note(KEY, Failure(FailureKind.REJECTED), 0.0)
    failures.forget(KEY)
    assert failures.known(KEY, 1.0) is None


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 20)), max_size=60))
def test_nothing_is_remembered_without_three_failures_within_30_seconds(events) -> None:
    failures = Failures()
    now = 0.0
    times: dict[bytes, list[float]] = {}
    for number, pause in events:
        now += pause
        key = b"%d" % (number % 3)
        seconds = failures.note(key, TRANSIENT, now)
        recent = [each for each in times.get(key, []) if each > now - 30.0]
        assert (seconds > 0) == (len(recent) >= 2)
        times[key] = [] if seconds else [*recent, now]


def test_memory_is_bounded() -> None:
    failures = Failures()
    for number in range(5000):
        failures.note(b"%d" % number, TRANSIENT, float(number))
    assert len(failures) == 4096
