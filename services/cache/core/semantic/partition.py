"""The questions of one partition in memory, and how far they are in step with the shared store."""

from collections.abc import Sequence

from services.cache.core.semantic.entries import SemanticEntry
from services.cache.core.semantic.index import FloatVector, VectorIndex

__all__ = ["ENTRY_OVERHEAD_BYTES", "Candidate", "Partition"]

ENTRY_OVERHEAD_BYTES = 900
"""The objects around a question and its vector: entry, names, tags, map entries (measured)."""

Candidate = tuple[SemanticEntry, float]
"""An entry and its similarity to what was looked for."""


class Partition:
    """Questions that may share answers, with exact search among them.

    Attributes:
        generation: Tells this partition of the shared store from one that was lost before; empty
            where the store has none.
        sequence: Number of the last change taken over.
    """

    def __init__(self) -> None:
        self.generation = b""
        self.sequence = 0
        self._index: VectorIndex | None = None
        self._rows: dict[str, int] = {}
        self._entries: dict[int, SemanticEntry] = {}
        self._text_bytes = 0

    def __len__(self) -> int:
        """Returns how many entries there are, expired ones included."""
        return len(self._rows)

    @property
    def dimension(self) -> int | None:
        """Components of its vectors; None before the first."""
        return None if self._index is None else self._index.dimension

    @property
    def size_bytes(self) -> int:
        """Memory taken."""
        index_bytes = 0 if self._index is None else self._index.size_bytes
        return index_bytes + self._text_bytes + len(self._rows) * ENTRY_OVERHEAD_BYTES

    def reserve(self, count: int, dimension: int) -> None:
        """Makes room for so many entries in all."""
        self._index_of(dimension).reserve(count)

    def put(self, entry: SemanticEntry, vector: FloatVector) -> None:
        """Adds an entry, in place of the one with the same normal form.

        Args:
            entry: The entry.
            vector: Its vector of length 1, with as many components as all the others.
        """
        self.remove(entry.form)
        index = self._index_of(len(vector))
        row = index.add(vector, created_ms=entry.created_ms, expires_ms=entry.expires_ms)
        self._rows[entry.form] = row
        self._entries[row] = entry
        self._text_bytes += len(entry.question.encode())

    def remove(self, form: str, version: bytes | None = None) -> bool:
        """Removes the entry with a normal form; with a version, only where it has that one.

        Returns:
            Whether there was one.
        """
        row = self._rows.get(form)
        if row is None or self._index is None:
            return False
        entry = self._entries[row]
        if version not in (None, entry.version):
            return False
        del self._rows[form], self._entries[row]
        self._text_bytes -= len(entry.question.encode())
        self._index.remove(row)
        return True

    def find(self, form: str) -> SemanticEntry | None:
        """Returns the entry with a normal form, expired or not."""
        row = self._rows.get(form)
        return None if row is None else self._entries[row]

    def scan(
        self, vector: FloatVector, *, floor: float, now_ms: int, after_ms: int, limit: int
    ) -> list[int]:
        """Finds rows to `rank`; may run in another thread. See `VectorIndex.scan`."""
        if self._index is None:
            return []
        return self._index.scan(vector, floor=floor, now_ms=now_ms, after_ms=after_ms, limit=limit)

    def rank(
        self, vector: FloatVector, rows: Sequence[int], *, floor: float, now_ms: int, after_ms: int
    ) -> list[Candidate]:
        """Returns the entries of rows, the most similar first. See `VectorIndex.rank`."""
        if self._index is None:
            return []
        matches = self._index.rank(vector, rows, floor=floor, now_ms=now_ms, after_ms=after_ms)
        return [(self._entries[match.row], match.similarity) for match in matches]

    def entries(self) -> list[SemanticEntry]:
        """Returns all entries, expired ones included."""
        return list(self._entries.values())

    def oldest(self, count: int) -> list[SemanticEntry]:
        """Returns the entries created first."""
        rows = [] if self._index is None else self._index.oldest(count)
        return [self._entries[row] for row in rows]

    def expired(self, now_ms: int) -> list[SemanticEntry]:
        """Returns the entries that have expired."""
        rows = [] if self._index is None else self._index.expired(now_ms)
        return [self._entries[row] for row in rows]

    def _index_of(self, dimension: int) -> VectorIndex:
        if self._index is None:
            self._index = VectorIndex(dimension)
        return self._index
