"""The breaker opens when it must, and never for ever."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.breaker import Breaker, BreakerPolicy, Phase

POLICY = BreakerPolicy(failure_threshold=3, shortest_pause_seconds=1.0, longest_pause_seconds=5.0)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["success", "failure", "probe"]), st.floats(0, 10)), max_size=60
)


def after(breaker: Breaker, event: str, now: float) -> Breaker:
    if event == "success":
        return breaker.succeeded()
    return breaker.failed(now) if event == "failure" else breaker.probing(now)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(policy=POLICY)
    for _ in range(POLICY.failure_threshold):
        breaker = breaker.failed(now)
    return breaker


def test_it_opens_after_the_threshold_of_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(policy=POLICY)
    for _ in range(POLICY.failure_threshold - 1):
        breaker = breaker.failed(0.0)
        assert breaker.admits_calls
    breaker = breaker.failed(7.0)
    assert not breaker.admits_calls
    assert breaker.retry_at == 8.0


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker(policy=POLICY).failed(0.0).failed(0.0).succeeded().failed(0.0).failed(0.0)
    assert breaker.admits_calls


def test_no_probe_is_due_before_the_pause_is_over() -> None:
    assert opened().probing(0.99).phase is Phase.OPEN
    assert opened().probing(1.0).phase is Phase.HALF_OPEN


def test_a_successful_probe_closes_it_with_a_clean_record() -> None:
    assert opened().probing(1.0).succeeded() == Breaker(policy=POLICY)


def test_failed_probes_double_the_pause_up_to_the_limit() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(5):
        pauses.append(breaker.pause_seconds)
        now = breaker.retry_at
        breaker = breaker.probing(now).failed(now)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_late_replies_to_calls_from_before_it_opened_change_nothing() -> None:
    breaker = opened()
    assert breaker.succeeded() == breaker
    assert breaker.failed(0.5) == breaker


def test_half_open_admits_no_calls() -> None:
    assert not opened().probing(1.0).admits_calls


@given(EVENTS)
def test_it_always_recovers_within_the_longest_pause(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(policy=POLICY), 0.0
    for event, elapsed in events:
        now += elapsed
        breaker = after(breaker, event, now)
    if breaker.phase is Phase.OPEN:
        assert breaker.retry_at <= now + POLICY.longest_pause_seconds
        breaker = breaker.probing(now + POLICY.longest_pause_seconds)
    assert breaker.succeeded().admits_calls


@given(EVENTS)
def test_it_closes_by_a_success_of_a_probe_only(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(policy=POLICY), 0.0
    for event, elapsed in events:
        now += elapsed
        following = after(breaker, event, now)
        if not breaker.admits_calls and following.admits_calls:
            assert breaker.phase is Phase.HALF_OPEN
            assert event == "success"
        if breaker.admits_calls and not following.admits_calls:
            assert event == "failure"
        assert following.failure_count < POLICY.failure_threshold
        breaker = following
