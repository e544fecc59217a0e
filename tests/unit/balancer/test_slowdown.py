import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.slowdown import Slowdown

KEY = ("b", "m")
SAMPLES = st.lists(
    st.tuples(st.integers(1, 9), st.floats(-20.0, 20.0), st.floats(0.001, 1.0)), max_size=50
)


@given(SAMPLES)
def test_more_requests_never_make_an_answer_quicker(samples):
    slowdown = Slowdown()
    for concurrency, sample, weight in samples:
        slowdown.note(KEY, concurrency, sample, weight)
    expected = [slowdown.expected(KEY, concurrency) for concurrency in range(1, 20)]
    assert all(map(math.isfinite, expected))
    assert expected == sorted(expected)


def test_without_samples_the_prior_holds():
    slowdown = Slowdown()
    for concurrency in (1, 2, 4, 9):
        assert slowdown.expected(KEY, concurrency) == pytest.approx(0.6 * math.log(concurrency))
    assert slowdown.expected(KEY, 0) == 0.0


def test_a_level_never_seen_lies_between_those_that_were():
    slowdown = Slowdown()
    for _ in range(50):
        slowdown.note(KEY, 1, 0.0, 1.0)
        slowdown.note(KEY, 4, Slowdown.prior(4) + 0.5, 1.0)
    excess = [slowdown.expected(KEY, level) - Slowdown.prior(level) for level in (1, 2, 3, 4)]
    assert excess == sorted(excess)
    assert excess[3] - excess[0] == pytest.approx(0.5, abs=0.2)


def test_what_all_levels_have_in_common_is_not_laid_to_concurrency():
    slowdown = Slowdown()
    for _ in range(20):
        for level in (1, 2, 3, 4):
            slowdown.note(KEY, level, Slowdown.prior(level) + 1.0, 1.0)
    for level in (1, 2, 3, 4):
        assert slowdown.expected(KEY, level) == pytest.approx(Slowdown.prior(level), abs=0.05)


def test_one_stall_hardly_matters():
    slowdown = Slowdown()
    for _ in range(20):
        slowdown.note(KEY, 1, 0.0, 1.0)
        slowdown.note(KEY, 2, Slowdown.prior(2), 1.0)
    before = slowdown.expected(KEY, 2)
    slowdown.note(KEY, 2, 4.0, 1.0)
    assert slowdown.expected(KEY, 2) - before < 0.08


def test_a_forgotten_backend_is_like_one_never_seen():
    slowdown = Slowdown()
    for key in (KEY, ("c", "m")):
        slowdown.note(key, 1, 0.0, 1.0)
        slowdown.note(key, 2, 2.0, 1.0)
    slowdown.forget("b")
    assert slowdown.expected(KEY, 2) == Slowdown.prior(2)
    assert slowdown.expected(("c", "m"), 2) > Slowdown.prior(2)
