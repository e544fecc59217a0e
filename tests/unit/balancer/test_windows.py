from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.windows import EventWindow

PAUSES = st.lists(st.floats(0, 20), max_size=60)


@given(PAUSES, st.floats(0, 40), st.floats(0.5, 60))
def test_counts_all_of_the_last_nine_tenths_and_nothing_older_than_the_span(pauses, later, span):
    window, now, times = EventWindow(span_seconds=span), 0.0, []
    for pause in pauses:
        now += pause
        window = window.add(now)
        times.append(now)
    now += later
    certain = sum(now - each < 0.899 * span for each in times)
    possible = sum(now - each <= 1.001 * span for each in times)
    assert certain <= window.count(now) <= possible


def test_takes_no_more_memory_for_more_events():
    window = EventWindow(span_seconds=10.0)
    for number in range(10_000):
        window = window.add(number * 0.01)
    assert len(window.sections) <= 10
    assert 900 <= window.count(99.99) <= 1000
