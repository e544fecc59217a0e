"""Bounds on the ratio of errors."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.bounds import error_upper_bound

counts = st.tuples(st.integers(0, 400), st.integers(0, 400))


def chance_of_at_most(wrong: int, verified: int, ratio: float) -> float:
    """Returns how likely so few errors are, by the binomial distribution's own terms."""
    return math.fsum(
        math.comb(verified, k) * ratio**k * (1 - ratio) ** (verified - k) for k in range(wrong + 1)
    )


@pytest.mark.parametrize(
    ("verified", "ratio"), [(149, 0.02), (299, 0.01), (598, 0.005), (2995, 0.001)]
)
def test_so_many_verdicts_without_an_error_prove_a_ratio(verified, ratio):
    assert error_upper_bound(0, verified) < ratio
    assert error_upper_bound(0, verified - 1) > ratio


@pytest.mark.parametrize("wrong", [0, 1, 3, 20, 99])
def test_at_the_bound_so_few_errors_are_as_unlikely_as_promised(wrong):
    bound = error_upper_bound(wrong, 100)
    assert chance_of_at_most(wrong, 100, bound) == pytest.approx(0.05, rel=1e-6)


def test_nothing_is_known_without_a_right_verdict():
    assert error_upper_bound(0, 0) == 1.0
    assert error_upper_bound(7, 7) == 1.0


@given(counts)
def test_more_right_verdicts_lower_the_bound_and_more_wrong_ones_raise_it(pair):
    wrong, right = pair
    bound = error_upper_bound(wrong, wrong + right)
    assert wrong / max(1, wrong + right) <= bound <= 1.0
    assert error_upper_bound(wrong, wrong + right + 1) <= bound
    assert error_upper_bound(wrong + 1, wrong + right + 1) >= bound


@pytest.mark.parametrize(("wrong", "verified"), [(1000, 100_000), (5, 1_000_000)])
def test_large_counts_are_no_harder(wrong, verified):
    bound = error_upper_bound(wrong, verified)
    ratio = wrong / verified
    spread = math.sqrt(ratio * (1 - ratio) / verified)
    assert ratio + spread < bound < ratio + 3 * spread
