import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.vectors import FaultyVectors, checked_vectors

FINITE = st.floats(-(2.0**100), 2.0**100, allow_nan=False, width=32)


@given(st.integers(1, 5), st.integers(1, 8), st.data())
def test_every_accepted_vector_is_finite_and_of_unit_length(count, dimension, data):
    row = st.lists(FINITE, min_size=dimension, max_size=dimension)
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    try:
        vectors = checked_vectors(rows, expected_count=count)
    except FaultyVectors:
        assert any(not np.any(np.asarray(row, dtype=np.float32)) for row in rows)
        return
    assert vectors.shape == (count, dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors.astype(float), axis=1), 1.0, atol=2e-4)


def test_unit_vectors_are_passed_on_bit_by_bit():
    rows = [[0.6, 0.8], [1.0, 0.0]]
    assert np.array_equal(
        checked_vectors(rows, expected_count=2), np.asarray(rows, dtype=np.float32)
    )


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        "ab",
        [],
        [[1.0]],
        [[1.0], [1.0], [1.0]],
        [[1.0], [1.0, 0.0]],
        [[1.0, None], [1.0, 0.0]],
        [[1.0, 1e300], [1.0, 0.0]],
        [[0.0, 0.0], [1.0, 0.0]],
        [["x"], ["y"]],
        [[], []],
        [1.0, 2.0],
        [[[1.0]], [[1.0]]],
        [[1.0] * 8193] * 2,
    ],
)
def test_what_is_not_one_usable_vector_per_text_is_refused(rows):
    with pytest.raises(FaultyVectors):
        checked_vectors(rows, expected_count=2)
