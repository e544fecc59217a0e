"""Values that took long to compute are computed anew in time, seldom and only near their end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.refresh import refresh_is_due

DRAWS = st.floats(0, 1, exclude_max=True)
SECONDS = st.floats(0, 1e5)


@given(SECONDS, DRAWS)
def test_never_before_the_last_tenth(delta_seconds, draw) -> None:
    assert not refresh_is_due(
        left_seconds=101.0, ttl_seconds=1000.0, delta_seconds=delta_seconds, draw=draw
    )


@given(st.floats(0, 100), DRAWS)
def test_never_where_the_time_of_the_computation_is_unknown(left_seconds, draw) -> None:
    assert not refresh_is_due(
        left_seconds=left_seconds, ttl_seconds=1000.0, delta_seconds=0.0, draw=draw
    )


@given(st.floats(0, 100), st.floats(0, 100), SECONDS, DRAWS)
def test_what_is_due_stays_due_as_time_goes_on(left, less, delta_seconds, draw) -> None:
    less = min(left, less)
    if refresh_is_due(left_seconds=left, ttl_seconds=1e3, delta_seconds=delta_seconds, draw=draw):
        assert refresh_is_due(
            left_seconds=less, ttl_seconds=1e3, delta_seconds=delta_seconds, draw=draw
        )


@pytest.mark.parametrize("left_seconds", [2.0, 8.0, 16.0])
def test_the_share_of_readers_drawn_is_that_of_the_formula(left_seconds) -> None:
    count = 10_000
    due = sum(
        refresh_is_due(
            left_seconds=left_seconds,
            ttl_seconds=1000.0,
            delta_seconds=8.0,
            draw=number / count,
        )
        for number in range(count)
    )
    assert due / count == pytest.approx(math.exp(-left_seconds / 8.0), abs=1e-3)
