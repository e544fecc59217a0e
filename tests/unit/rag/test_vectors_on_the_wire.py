import numpy as np
import pytest

from services.rag.adapters.protocol import to_vector, vector_of


@pytest.mark.parametrize("length", [1e-12, 1e-5, 1.0, 1e6, 1e15])
def test_a_vector_of_any_length_fits_half_precision_with_its_direction(length):
    direction = np.array([0.6, -0.8, 0.0], dtype=np.float32)
    given = (length * direction).astype(np.float32)
    vector = vector_of(to_vector(given))
    assert vector is not None
    half = vector.astype(np.float16).astype(np.float32)
    assert np.isfinite(half).all()
    assert np.allclose(half / np.linalg.norm(half), direction, atol=2e-3)


def test_a_usual_vector_comes_through_as_it_is():
    given = np.array([0.25, -3.0, 7.5], dtype=np.float32)
    assert vector_of(to_vector(given)).tobytes() == given.tobytes()


@pytest.mark.parametrize("part", [float("nan"), float("inf")])
def test_a_vector_that_cannot_be_compared_is_none(part):
    assert vector_of(to_vector(np.array([part, 1.0], dtype=np.float32))) is None
