"""Quantiles within 1 % of the true ones, whatever is merged or taken away."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.sketches import QUANTILES, Bins

BINS = Bins.spanning(1e-6, 1e3)
VALUES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200)


def counted(values) -> np.ndarray:
    counts = np.zeros(BINS.count, np.int64)
    for value in values:
        counts[BINS.index(value)] += 1
    return counts


def true_quantiles(values) -> list[float]:
    return [float(np.quantile(values, each, method="lower")) for each in QUANTILES]


@given(VALUES)
def test_quantiles_are_within_one_percent_of_the_true_ones(values) -> None:
    assert BINS.quantiles(counted(values)) == pytest.approx(true_quantiles(values), rel=0.01001)


@given(VALUES, VALUES)
def test_counts_add_up_and_subtract(values, others) -> None:
    together = counted(values) + counted(others)
    assert BINS.quantiles(together) == BINS.quantiles(counted([*values, *others]))
    assert BINS.quantiles(together - counted(others)) == BINS.quantiles(counted(values))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_value_has_a_bin(value) -> None:
    assert 0 <= BINS.index(value) < BINS.count


def test_values_beyond_the_range_count_at_its_ends() -> None:
    assert [BINS.index(each) for each in (-1, 0, 1e-9)] == [0, 0, 0]
    assert BINS.index(1e9) == BINS.index(1e3) == BINS.count - 1


def test_there_are_no_quantiles_of_nothing() -> None:
    assert BINS.quantiles(counted([])) is None
