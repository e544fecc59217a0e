"""What makes a vector fit to be kept."""

from math import isfinite

import numpy as np

__all__ = ["MAXIMUM_DIMENSION", "vector_fault"]

MAXIMUM_DIMENSION = 8192
_COMPONENT_BYTES = 4


def vector_fault(float32_le: bytes, dimension: int) -> tuple[str, str] | None:
    """Says what is wrong with a vector.

    Args:
        float32_le: Its components, little-endian IEEE 754 binary32.
        dimension: How many there should be.

    Returns:
        Name of the field at fault and the rule it breaks; None where the vector is fit.
    """
    if not 1 <= dimension <= MAXIMUM_DIMENSION:
        return "dimension", f"Must be from 1 to {MAXIMUM_DIMENSION}."
    if len(float32_le) != _COMPONENT_BYTES * dimension:
        return "float32_le", f"Must have 4 bytes for each of the {dimension} components."
    components = np.frombuffer(float32_le, dtype="<f4").astype(np.float64)
    # In double precision no square of a finite component is infinite, and only that of zero is 0.
    square = float(components @ components)
    if not isfinite(square):
        return "float32_le", "Must hold finite numbers only, neither NaN nor infinity."
    if not square:
        return "float32_le", "Must not be the zero vector: it has no direction."
    return None
