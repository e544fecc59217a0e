"""How sure one may be of a share that was counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.intervals import wilson


@st.composite
def counts(draw) -> tuple[int, int]:
    verified = draw(st.integers(1, 100_000))
    return draw(st.integers(0, verified)), verified


@pytest.mark.parametrize(
    ("wrong", "verified", "bounds"),
    [
        # Worked examples of Newcombe, "Two-sided confidence intervals for the single proportion",
        # 1998, table I.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_the_bounds_are_those_of_the_literature(wrong, verified, bounds) -> None:
    assert wilson(wrong, verified) == pytest.approx(bounds, abs=5e-5)


def test_nothing_is_known_before_the_first_verification() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_381_right_ones_prove_less_than_one_percent_and_380_do_not() -> None:
    assert wilson(0, 381)[1] < 0.01 <= wilson(0, 380)[1]


@given(counts())
def test_the_bounds_enclose_the_share_within_0_and_1(each) -> None:
    wrong, verified = each
    lower, upper = wilson(wrong, verified)
    assert 0 <= lower <= wrong / verified <= upper <= 1


@given(counts(), st.integers(2, 10))
def test_the_same_share_of_more_is_known_better(each, factor) -> None:
    wrong, verified = each
    lower, upper = wilson(wrong, verified)
    better_lower, better_upper = wilson(factor * wrong, factor * verified)
    assert better_upper - better_lower < upper - lower


@given(counts())
def test_more_confidence_takes_wider_bounds(each) -> None:
    (lower, upper), (wider_lower, wider_upper) = wilson(*each), wilson(*each, z=2.576)
    assert wider_lower <= lower
    assert upper <= wider_upper
