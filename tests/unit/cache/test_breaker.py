"""The breaker opens when it must, never for ever, and tells a slow store from an absent one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.breaker import Breaker, BreakerPolicy, Phase

POLICY = BreakerPolicy(failure_threshold=3, shortest_pause_seconds=1.0, longest_pause_seconds=5.0)
FAST, SLOW = 0.001, 0.06
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["success", "slow", "failure", "probe", "alive", "dead", "recovered"]),
        st.floats(0, 10),
    ),
    max_size=80,
)


def happen(breaker: Breaker, event: str, now: float) -> None:
    match event:
        case "success":
            breaker.succeeded(now, FAST)
        case "slow":
            breaker.succeeded(now, SLOW)
        case "failure":
            breaker.failed(now, FAST)
        case "alive":
            breaker.probe_succeeded()
        case "dead":
            breaker.probe_failed(now)
        case "recovered":
            breaker.recovered()


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.failure_threshold):
        breaker.failed(now, FAST)
    return breaker


def slow_for(seconds: int, *, calls_per_second: int = 10, one_in: int = 10) -> Breaker:
    breaker = Breaker(BreakerPolicy())
    for call in range(seconds * calls_per_second):
        duration_seconds = FAST if call % one_in else SLOW
        breaker.succeeded(100 + call / calls_per_second, duration_seconds)
    return breaker


def test_it_opens_after_the_threshold_of_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.failure_threshold - 1):
        breaker.failed(0.0, FAST)
        assert breaker.admits_calls
    breaker.failed(7.0, FAST)
    assert not breaker.admits_calls
    assert breaker.retry_at == 8.0


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker(POLICY)
    for event in ("failure", "failure", "success", "failure", "failure"):
        happen(breaker, event, 0.0)
    assert breaker.admits_calls


@pytest.mark.parametrize(("failures_of_three", "phase"), [(1, Phase.NORMAL), (2, Phase.OPEN)])
def test_it_opens_where_more_than_half_of_many_calls_fail(
    failures_of_three: int, phase: Phase
) -> None:
    breaker = Breaker(BreakerPolicy())
    for call in range(30):
        happen(breaker, "failure" if call % 3 < failures_of_three else "success", call / 10)
    assert breaker.phase is phase


def test_few_calls_say_nothing_about_shares() -> None:
    breaker = Breaker(BreakerPolicy())
    for call in range(18):
        happen(breaker, "success" if call % 3 == 2 else "failure", call / 10)
    assert breaker.phase is Phase.NORMAL


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(BreakerPolicy())
    for call in range(40):
        happen(breaker, "success" if call % 3 == 2 else "failure", call * 1.0)
    assert breaker.phase is Phase.NORMAL


def test_it_is_slow_when_the_95th_percentile_stays_high() -> None:
    assert slow_for(4).phase is Phase.NORMAL
    assert slow_for(6).phase is Phase.SLOW
    assert slow_for(6).admits_calls


def test_rare_slow_calls_are_no_slow_store() -> None:
    assert slow_for(20, calls_per_second=50, one_in=25).phase is Phase.NORMAL


def test_one_hiccup_is_no_slow_store() -> None:
    breaker = Breaker(BreakerPolicy())
    for call in range(100):
        breaker.succeeded(100.0 + call / 100, SLOW)
    assert breaker.phase is Phase.NORMAL


def test_it_stays_slow_while_the_few_calls_left_are_slow_and_no_longer() -> None:
    breaker = slow_for(6)
    for second in range(30):
        breaker.succeeded(106.0 + second, SLOW)
        assert breaker.phase is Phase.SLOW
    for second in range(12):
        breaker.succeeded(136.0 + second, FAST)
    assert breaker.phase is Phase.NORMAL


def test_a_slow_store_that_fails_is_left_alone() -> None:
    breaker = slow_for(6)
    for _ in range(5):
        breaker.failed(106.0, SLOW)
    assert breaker.phase is Phase.OPEN


def test_a_success_of_unknown_duration_ends_a_row_of_failures_only() -> None:
    breaker = Breaker(POLICY)
    breaker.failed(0.0, FAST)
    breaker.failed(0.0, FAST)
    breaker.succeeded(0.0, None)
    breaker.failed(0.0, FAST)
    assert breaker.failure_count == 1


def test_no_probe_is_due_before_the_pause_is_over() -> None:
    assert not opened().probe_due(0.99)
    assert opened().probe_due(1.0)
    assert not Breaker(POLICY).probe_due(1.0)


def test_a_successful_probe_admits_nothing_until_recovery_is_done() -> None:
    breaker = opened()
    breaker.probe_succeeded()
    assert breaker.phase is Phase.RECOVERING
    assert not breaker.admits_calls
    breaker.recovered()
    assert breaker.phase is Phase.NORMAL


def test_recovery_starts_with_a_clean_record() -> None:
    breaker = opened()
    breaker.probe_succeeded()
    breaker.recovered()
    assert (breaker.failure_count, breaker.pause_seconds, breaker.retry_at) == (0, 0.0, 0.0)
    for _ in range(POLICY.failure_threshold - 1):
        breaker.failed(2.0, FAST)
    assert breaker.admits_calls


def test_failures_from_before_an_outage_do_not_count_after_it() -> None:
    breaker = Breaker(BreakerPolicy())
    for call in range(20):
        happen(breaker, "success" if call % 3 == 2 else "failure", 0.0)
    assert breaker.phase is Phase.OPEN
    breaker.probe_succeeded()
    breaker.recovered()
    breaker.failed(1.0, FAST)
    assert breaker.admits_calls


def test_failed_probes_double_the_pause_up_to_the_limit() -> None:
    breaker, pauses = opened(), []
    for _ in range(5):
        pauses.append(breaker.pause_seconds)
        breaker.probe_failed(breaker.retry_at)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_recovery_that_fails_is_a_failed_probe() -> None:
    breaker = opened()
    breaker.probe_succeeded()
    breaker.probe_failed(1.0)
    assert breaker.phase is Phase.OPEN
    assert breaker.retry_at == 3.0


def test_late_replies_to_calls_from_before_it_opened_change_nothing() -> None:
    breaker = opened()
    breaker.succeeded(0.5, FAST)
    breaker.failed(0.5, FAST)
    assert (breaker.phase, breaker.retry_at, breaker.failure_count) == (Phase.OPEN, 1.0, 0)


@given(EVENTS)
def test_it_always_recovers_within_the_longest_pause(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(POLICY), 0.0
    for event, elapsed in events:
        now += elapsed
        happen(breaker, event, now)
    if breaker.phase is Phase.OPEN:
        assert breaker.retry_at <= now + POLICY.longest_pause_seconds
        assert breaker.probe_due(now + POLICY.longest_pause_seconds)
    breaker.probe_succeeded()
    breaker.recovered()
    assert breaker.admits_calls


@given(EVENTS)
def test_it_closes_by_a_finished_recovery_only(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(POLICY), 0.0
    for event, elapsed in events:
        now += elapsed
        before, admitted = breaker.phase, breaker.admits_calls
        happen(breaker, event, now)
        if not admitted and breaker.admits_calls:
            assert (before, event) == (Phase.RECOVERING, "recovered")
        if admitted and not breaker.admits_calls:
            assert event in ("failure", "slow", "success")
        assert breaker.failure_count < POLICY.failure_threshold
