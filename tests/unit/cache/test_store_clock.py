"""The store's time is never told later than it is."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.store_clock import StoreClock

WALL_MS = 1_700_000_000_000.0
LATENCIES = st.floats(0, 5)


def test_before_the_first_reply_a_wrong_wall_clock_is_allowed_for() -> None:
    clock = StoreClock(lambda: WALL_MS)
    assert clock.now_ms(5.0) == WALL_MS - 60_000


@given(
    skew_ms=st.floats(-1e9, 1e9),
    # Slower or faster by as much as NTP slews a clock.
    rate=st.floats(0.9995, 1.0005),
    latencies=st.lists(st.tuples(LATENCIES, LATENCIES), min_size=1, max_size=5),
    elapsed_seconds=st.floats(0, 86_400),
)
def test_it_is_a_lower_bound_whatever_the_latency_and_the_drift(
    skew_ms: float, rate: float, latencies: list[tuple[float, float]], elapsed_seconds: float
) -> None:
    def store_ms(monotonic: float) -> float:
        return WALL_MS + skew_ms + monotonic * 1000 * rate

    clock = StoreClock(lambda: WALL_MS)
    received_at, known_before_ms = 100.0, 0
    for there, back in latencies:
        # Each was sent before the one before it was received, or after.
        received_at += back / 2
        read_at = received_at - back
        clock.note(int(store_ms(read_at)), sent_at=read_at - there, received_at=received_at)
        # But for what a float of milliseconds cannot tell apart.
        assert clock.now_ms(received_at) >= known_before_ms - 1
        known_before_ms = clock.now_ms(received_at)
    now = received_at + elapsed_seconds
    assert clock.now_ms(now) <= store_ms(now) + 0.001
    assert clock.now_ms(now) >= store_ms(now) - back * 1001 - elapsed_seconds - 2.001


def test_a_reply_that_was_overtaken_takes_back_nothing() -> None:
    clock = StoreClock(lambda: WALL_MS)
    clock.note(2_000.0, sent_at=9.9, received_at=10.0)
    clock.note(1_950.0, sent_at=9.9, received_at=10.01)
    assert clock.now_ms(10.01) == 2_009


def test_the_last_reply_counts_where_the_store_s_clock_was_set_back() -> None:
    clock = StoreClock(lambda: WALL_MS)
    clock.note(2_000_000.0, sent_at=9.9, received_at=10.0)
    clock.note(1_999_850.0, sent_at=10.9, received_at=11.0)
    assert clock.now_ms(11.0) == 1_999_850


def test_it_never_tells_a_time_before_the_reply_it_rests_on() -> None:
    clock = StoreClock(lambda: WALL_MS)
    clock.note(1_000.9, sent_at=9.9, received_at=10.0)
    assert clock.now_ms(9.0) == 1_000
