import numpy as np
import pytest

from services.rag.core.experiment_report import Sample, share_interval, welch_difference


def sample(values):
    return Sample(len(values), float(np.mean(values)), float(np.var(values, ddof=1)))


def test_the_interval_is_the_one_of_the_literature():
    # Welch's t for two small samples of unequal spread; 3.1 degrees of freedom.
    first, second = Sample(4, 10.0, 1.0), Sample(4, 12.0, 25.0)
    found = welch_difference(first, second)
    freedom = (1 / 4 + 25 / 4) ** 2 / ((1 / 4) ** 2 / 3 + (25 / 4) ** 2 / 3)
    assert freedom == pytest.approx(3.24, abs=0.01)
    # t(0.975) is 3.182 with 3 and 2.776 with 4 degrees.
    reach = (found.high - found.low) / 2 / np.sqrt(6.5)
    assert 3.0 < reach < 3.182
    assert found.difference == 2.0
    assert not found.is_significant


def test_the_true_difference_lies_within_in_95_of_100_cases():
    random = np.random.default_rng(7)
    within = 0
    for _ in range(400):
        first = sample(random.normal(0.8, 0.05, 30))
        second = sample(random.normal(0.82, 0.15, 12))
        found = welch_difference(first, second)
        within += found.low <= 0.02 <= found.high
    assert 368 <= within <= 392


def test_a_difference_that_is_plain_is_significant():
    found = welch_difference(Sample(100, 0.5, 0.01), Sample(100, 0.7, 0.01))
    assert found.is_significant
    assert found.low == pytest.approx(0.2 - 1.972 * np.sqrt(0.0002), abs=1e-4)


def test_without_spread_the_difference_is_certain():
    found = welch_difference(Sample(5, 0.5, 0.0), Sample(5, 0.5, 0.0))
    assert (found.low, found.high, found.is_significant) == (0.0, 0.0, False)


@pytest.mark.parametrize("other", [None, Sample(1, 0.5, 0.0)])
def test_of_too_few_figures_nothing_is_said(other):
    assert welch_difference(Sample(10, 0.5, 0.1), other) is None
    assert welch_difference(other, Sample(10, 0.5, 0.1)) is None


def test_a_share_of_few_ratings_is_told_with_care():
    assert share_interval(0, 0) is None
    low, high = share_interval(3, 3)
    assert (low, high) == (pytest.approx(0.438, abs=0.001), 1.0)
    low, high = share_interval(10, 20)
    assert (low, high) == (pytest.approx(0.299, abs=0.001), pytest.approx(0.701, abs=0.001))
