"""The store's time is never told later than it is."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.store_clock import StoreClock

WALL_MS = 1_700_000_000_000.0


def test_before_the_first_reply_a_wrong_wall_clock_is_allowed_for() -> None:
    clock = StoreClock(lambda: WALL_MS)
    assert clock.now_ms(5.0) == WALL_MS - 60_000


@given(
    skew_ms=st.floats(-1e9, 1e9),
    # Slower or faster by as much as NTP slews a clock.
    rate=st.floats(0.9995, 1.0005),
    latency_seconds=st.floats(0, 5),
    elapsed_seconds=st.floats(0, 86_400),
)
def test_it_is_a_lower_bound_whatever_the_latency_and_the_drift(
    skew_ms: float, rate: float, latency_seconds: float, elapsed_seconds: float
) -> None:
    def store_ms(monotonic: float) -> float:
        return WALL_MS + skew_ms + monotonic * 1000 * rate

    clock = StoreClock(lambda: WALL_MS)
    clock.note(store_ms(100.0), 100.0 + latency_seconds)
    now = 100.0 + latency_seconds + elapsed_seconds
    # What a float of milliseconds cannot tell apart is no drift.
    assert clock.now_ms(now) <= store_ms(now) + 0.001
    assert clock.now_ms(now) >= store_ms(now) - latency_seconds * 1001 - elapsed_seconds - 1.001


def test_the_last_reply_counts_even_where_the_store_s_clock_was_set_back() -> None:
    clock = StoreClock(lambda: WALL_MS)
    clock.note(2_000_000.0, 10.0)
    clock.note(1_000_000.0, 11.0)
    assert clock.now_ms(11.0) == 1_000_000


def test_it_never_tells_a_time_before_the_reply_it_rests_on() -> None:
    clock = StoreClock(lambda: WALL_MS)
    clock.note(1_000.9, 10.0)
    assert clock.now_ms(9.0) == 1_000
