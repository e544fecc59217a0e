"""A window holds the calls of its last seconds, and no others."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.call_window import CallWindow, WindowCounts


def test_it_counts_failures_and_slow_calls_apart() -> None:
    window = CallWindow(10)
    window.add(100.0, failed=True, slow=True)
    window.add(100.5, failed=False, slow=True)
    window.add(103.0, failed=True, slow=False)
    window.add(103.2, failed=False, slow=False)
    assert window.counts(104.0) == WindowCounts(
        call_count=4, failure_count=2, slow_count=2, slow_second_count=1
    )


def test_what_is_older_than_the_window_is_forgotten() -> None:
    window = CallWindow(10)
    window.add(100.0, failed=True, slow=True)
    assert window.counts(109.9).call_count == 1
    assert window.counts(110.0) == WindowCounts()


def test_it_can_be_emptied() -> None:
    window = CallWindow(10)
    window.add(100.0, failed=True, slow=True)
    window.clear()
    assert window.counts(100.0) == WindowCounts()


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=100))
def test_it_agrees_with_a_plain_list_of_calls(calls: list[tuple[float, bool, bool]]) -> None:
    window = CallWindow(5)
    past: list[tuple[int, bool, bool]] = []
    now = 50.0
    for elapsed, failed, slow in calls:
        now += elapsed
        window.add(now, failed=failed, slow=slow)
        past.append((int(now), failed, slow))
        recent = [call for call in past if call[0] > int(now) - 5]
        assert window.counts(now) == WindowCounts(
            call_count=len(recent),
            failure_count=sum(call[1] for call in recent),
            slow_count=sum(call[2] for call in recent),
            slow_second_count=len({call[0] for call in recent if call[2]}),
        )
