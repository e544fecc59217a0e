"""Only vectors that mean something are kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from services.cache.core.vectors import vector_fault


def encoded(*components: float) -> bytes:
    return np.array(components, dtype="<f4").tobytes()


FINITE = numpy_st.arrays(
    "<f4",
    st.integers(1, 64),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(FINITE)
def test_finite_vectors_are_fit_unless_zero(vector: np.ndarray) -> None:
    assert (vector_fault(vector.tobytes(), len(vector)) is None) == bool(vector.any())


@given(FINITE, st.data())
def test_one_component_that_is_not_finite_spoils_a_vector(
    vector: np.ndarray, data: st.DataObject
) -> None:
    vector[data.draw(st.integers(0, len(vector) - 1))] = data.draw(
        st.sampled_from([np.nan, np.inf, -np.inf])
    )
    fault = vector_fault(vector.tobytes(), len(vector))
    assert fault is not None
    assert fault[0] == "float32_le"


@pytest.mark.parametrize(
    ("data", "dimension", "field"),
    [
        (encoded(1, 2), 3, "float32_le"),
        (encoded(1, 2)[:-1], 2, "float32_le"),
        (b"", 1, "float32_le"),
        (b"", 0, "dimension"),
        (encoded(1), -1, "dimension"),
        (encoded(*[1.0] * 8193), 8193, "dimension"),
        (encoded(0.0, -0.0), 2, "float32_le"),
    ],
)
def test_wrong_lengths_and_zero_vectors_are_named(data, dimension, field) -> None:
    fault = vector_fault(data, dimension)
    assert fault is not None
    assert fault[0] == field


def test_the_smallest_numbers_are_no_zero_vector() -> None:
    assert vector_fault(encoded(1e-45), 1) is None


def test_the_largest_dimension_is_accepted() -> None:
    assert vector_fault(encoded(*[1.0] * 8192), 8192) is None
