"""Vectors as a backend sends them, checked before anybody relies on them."""

from collections.abc import Sequence

import numpy as np

from services.balancer.core.requests import Vectors

__all__ = ["MAXIMUM_DIMENSION", "FaultyVectors", "checked_vectors"]

MAXIMUM_DIMENSION = 8192
# Rounding to float32 text moves the length of a unit vector by less than this.
_LENGTH_TOLERANCE = 1e-4


class FaultyVectors(Exception):
    """What a backend sent is not what was asked for."""


def checked_vectors(rows: object, *, expected_count: int) -> Vectors:
    """Makes unit vectors of parsed JSON.

    Args:
        rows: What should be a list of `expected_count` equally long lists of numbers.
        expected_count: Number of vectors asked for.

    Raises:
        FaultyVectors: Vectors are missing, of unequal or impossible dimension, not finite or zero.
    """
    if not isinstance(rows, Sequence) or len(rows) != expected_count:
        found = len(rows) if isinstance(rows, Sequence) else "no"
        raise FaultyVectors(f"{found} vectors for {expected_count} texts")
    try:
        with np.errstate(over="ignore"):
            vectors = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise FaultyVectors("the vectors are no equally long lists of numbers") from error
    if vectors.ndim != 2 or not 1 <= vectors.shape[1] <= MAXIMUM_DIMENSION:
        raise FaultyVectors(f"vectors of the impossible shape {vectors.shape}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise FaultyVectors("a vector holds what is no finite number")
    if not lengths.all():
        raise FaultyVectors("a vector is zero")
    if np.abs(lengths - 1.0).max() > _LENGTH_TOLERANCE:
        vectors = (vectors / lengths).astype(np.float32)
    return vectors
