"""Exact search for the most similar vectors.

One float32 product over a contiguous matrix finds who may be similar enough; the few that are get
their similarity computed again, summed in double precision, so that a decision at the threshold
never hangs on the order in which a processor adds. Rows that are not valid are left out before the
most similar ones are taken: they can hide nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatVector", "Match", "VectorIndex", "similarities", "unit_vector"]

FloatVector = NDArray[np.float32]

_FIRST_CAPACITY = 16
_GROWTH_RATIO = 1.5
# Float32 sums of 8,192 products differ from the true ones by less than this.
_SCAN_MARGIN = 1e-4
_HIGHEST = 1.0 - 1e-9


def unit_vector(float32_le: bytes) -> FloatVector:
    """Returns a vector scaled to length 1.

    Args:
        float32_le: Its components, little-endian IEEE 754 binary32, finite and not all zero.
    """
    # In double precision, squares of the smallest and the largest of them are numbers still.
    components = np.frombuffer(float32_le, dtype="<f4").astype(np.float64)
    components /= sqrt(components @ components)
    return components.astype(np.float32)


def similarities(vectors: FloatVector, vector: FloatVector) -> NDArray[np.float64]:
    """Returns the cosine similarities of vectors to one, [-1, 1); all of length 1.

    Never 1, which is what questions in the same words have.

    Args:
        vectors: (count, dimension).
        vector: (dimension,).
    """
    # Row by row, so that what stands beside a vector does not change its sum.
    products = (vectors.astype(np.float64) * vector).sum(axis=1)
    clipped: NDArray[np.float64] = np.clip(products, -1.0, _HIGHEST)
    return clipped


@dataclass(frozen=True, slots=True)
class Match:
    """A vector found.

    Attributes:
        row: Where it stands.
        similarity: Cosine similarity, [-1, 1].
    """

    row: int
    similarity: float


class VectorIndex:
    """Vectors of length 1 in rows, each valid for a time; a row left free is given out again.

    `scan` may run in another thread while rows are added and removed: it reports rows to look at,
    and `rank` decides by what stands there then.

    Args:
        dimension: Components of each vector.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._vectors = np.zeros((_FIRST_CAPACITY, dimension), dtype=np.float32)
        self._created_ms = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._expires_ms = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._end = 0
        self._free: list[int] = []

    def __len__(self) -> int:
        """Returns how many vectors there are, expired ones included."""
        return self._end - len(self._free)

    @property
    def size_bytes(self) -> int:
        """Bytes taken, those of rows not in use included."""
        return self._vectors.nbytes + self._created_ms.nbytes + self._expires_ms.nbytes

    def reserve(self, count: int) -> None:
        """Makes room for so many vectors in all."""
        if count > len(self._vectors):
            self._resize(count)

    def add(self, vector: FloatVector, *, created_ms: int, expires_ms: int) -> int:
        """Adds a vector of length 1.

        Args:
            vector: The vector.
            created_ms: What it stands for was made then, milliseconds since the Unix epoch, > 0.
            expires_ms: It is found until then, milliseconds since the Unix epoch, > 0.

        Returns:
            Its row.
        """
        row = self._free.pop() if self._free else self._end
        if row == len(self._vectors):
            self._resize(int(row * _GROWTH_RATIO) + 1)
        self._vectors[row] = vector
        self._created_ms[row] = created_ms
        self._expires_ms[row] = expires_ms
        self._end = max(self._end, row + 1)
        return row

    def remove(self, row: int) -> None:
        """Removes the vector of a row."""
        self._expires_ms[row] = 0
        self._free.append(row)

    def scan(
        self, vector: FloatVector, *, floor: float, now_ms: int, after_ms: int, limit: int
    ) -> list[int]:
        """Finds the rows that may be similar enough, in no order.

        Args:
            vector: What is looked for, of length 1.
            floor: Least similarity.
            now_ms: The time; rows that have expired are not found.
            after_ms: Rows created at this time or before are not found.
            limit: Most rows to return; the most similar ones are.
        """
        # Each array is taken once: another thread may put a larger one in its place.
        vectors, created_ms, expires_ms = self._vectors, self._created_ms, self._expires_ms
        end = min(self._end, len(vectors), len(created_ms), len(expires_ms))
        scores = vectors[:end] @ vector
        rows = np.flatnonzero(scores >= floor - _SCAN_MARGIN)
        rows = rows[(expires_ms[rows] > now_ms) & (created_ms[rows] > after_ms)]
        if len(rows) > limit:
            rows = rows[np.argpartition(scores[rows], -limit)[-limit:]]
        found: list[int] = rows.tolist()
        return found

    def rank(
        self, vector: FloatVector, rows: Sequence[int], *, floor: float, now_ms: int, after_ms: int
    ) -> list[Match]:
        """Orders rows by their true similarity, the most similar first, newer ones first if equal.

        Args:
            vector: What is looked for, of length 1.
            rows: What `scan` found.
            floor: Least similarity.
            now_ms: The time; rows that have expired are left out.
            after_ms: Rows created at this time or before are left out.
        """
        places = np.asarray(rows, dtype=np.intp)
        created_ms = self._created_ms[places]
        valid = (self._expires_ms[places] > now_ms) & (created_ms > after_ms)
        scores = similarities(self._vectors[places], vector)
        (kept,) = np.nonzero(valid & (scores >= floor))
        order = kept[np.lexsort((-created_ms[kept], -scores[kept]))]
        return [
            Match(row, score)
            for row, score in zip(places[order].tolist(), scores[order].tolist(), strict=True)
        ]

    def oldest(self, count: int) -> list[int]:
        """Returns the rows in use that were created first."""
        in_use = np.flatnonzero(self._expires_ms[: self._end])
        if count < len(in_use):
            in_use = in_use[np.argpartition(self._created_ms[in_use], count)[:count]]
        found: list[int] = in_use.tolist()
        return found

    def expired(self, now_ms: int) -> list[int]:
        """Returns the rows in use that have expired."""
        expires_ms = self._expires_ms[: self._end]
        found: list[int] = np.flatnonzero((expires_ms > 0) & (expires_ms <= now_ms)).tolist()
        return found

    def _resize(self, capacity: int) -> None:
        vectors = np.zeros((capacity, self.dimension), dtype=np.float32)
        vectors[: self._end] = self._vectors[: self._end]
        created_ms = np.zeros(capacity, dtype=np.int64)
        created_ms[: self._end] = self._created_ms[: self._end]
        expires_ms = np.zeros(capacity, dtype=np.int64)
        expires_ms[: self._end] = self._expires_ms[: self._end]
        self._vectors, self._created_ms, self._expires_ms = vectors, created_ms, expires_ms
