"""When what was invalidated: what decides whether a value may still be read.

A value dates from the moment its computation began; an invalidation notes the store's time under
the name of what it applies to. A value counts only if it is younger than every note that applies to
it: the one for the whole tenant, those for its namespace and its model, and those for its tags. A
value being computed meanwhile is older than the note, and so never counts, whenever it is stored.

The note for the whole tenant always exists. Where it has been lost, or others may have been, it is
made anew with the time of the discovery: nothing older can come back.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from services.cache.core.model import Scope
from services.cache.core.tags import (
    EVERYTHING,
    grown_field,
    model_field,
    namespace_field,
    threshold_field,
)

__all__ = ["RETENTION_MS", "EpochTable", "parse_table"]

RETENTION_MS = 31 * 86_400_000
"""How long notes are needed: a day longer than the longest-lived value."""

_META = b"@"
_VERSION, _BIRTH = b"@v", b"@b"
_THRESHOLD = threshold_field("").encode()


class EpochTable:
    """The notes of one tenant.

    Args:
        flushed_ms: The note for the whole tenant, milliseconds since the Unix epoch by the store's
            clock, like all that follow.
        epochs: The other notes, by field.
        thresholds: Least similarities that were set, by field.
        version: Grows with every change; 0 for a table that does not come from the store.
        born_ms: The note for the whole tenant that nobody has asked for: the first one, or one
            made since others may have been lost.
    """

    def __init__(
        self,
        *,
        flushed_ms: int,
        epochs: Mapping[str, int] | None = None,
        thresholds: Mapping[str, float] | None = None,
        version: int = 0,
        born_ms: int = 0,
    ) -> None:
        self.flushed_ms = flushed_ms
        self.version = version
        self._epochs = dict(epochs or {})
        self._thresholds = dict(thresholds or {})
        self._born_ms = born_ms
        self._oldest_ms = flushed_ms

    def is_valid(self, scope: Scope, created_ms: int, tags: Iterable[str]) -> bool:
        """Returns whether a value counts.

        Args:
            scope: What it belongs to, of this tenant.
            created_ms: When its computation began.
            tags: What it depends on.
        """
        if created_ms <= self._oldest_ms:
            return False
        epochs = self._epochs
        if not epochs:
            return True
        if created_ms <= epochs.get(namespace_field(scope.namespace), 0):
            return False
        if scope.model_digest and created_ms <= epochs.get(model_field(scope.model_digest), 0):
            return False
        return all(created_ms > epochs.get(tag, 0) for tag in tags)

    def invalidated_ms(self, field: str) -> int:
        """Returns when somebody last invalidated this very thing; 0 where nobody is known to."""
        if field == EVERYTHING:
            return 0 if self.flushed_ms == self._born_ms else self.flushed_ms
        return self._epochs.get(field, 0)

    def grown_ms(self, collection: str) -> int:
        """Returns when a collection last grew; 0 where that is not known."""
        return self._epochs.get(grown_field(collection), 0)

    def threshold(self, namespace: str) -> float | None:
        """Returns the threshold that was set for a namespace."""
        return self._thresholds.get(threshold_field(namespace))

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that were set, by namespace."""
        start = len(threshold_field(""))
        return {field[start:]: value for field, value in self._thresholds.items()}

    def note(self, fields: Iterable[str], epoch_ms: int, version: int) -> None:
        """Takes over an invalidation.

        Args:
            fields: What it applies to.
            epoch_ms: When it was.
            version: Version of the table from then on.
        """
        self.version = version
        for field in fields:
            if field == EVERYTHING:
                self._flush(epoch_ms)
                self._epochs = {f: ms for f, ms in self._epochs.items() if ms > epoch_ms}
            else:
                self._epochs[field] = max(self._epochs.get(field, 0), epoch_ms)

    def note_threshold(self, namespace: str, threshold: float | None, version: int) -> None:
        """Takes over a threshold; None where none is set any more."""
        self.version = version
        if threshold is None:
            self._thresholds.pop(threshold_field(namespace), None)
        else:
            self._thresholds[threshold_field(namespace)] = threshold

    def absorb(self, earlier: "EpochTable") -> None:
        """Takes over what another table knows better.

        Of two servers that both take themselves for the master for a while, each lacks what the
        other one was told; this process may know both.

        Args:
            earlier: What was known before.
        """
        self._flush(earlier.flushed_ms)
        for field, epoch_ms in earlier._epochs.items():
            if epoch_ms > self._oldest_ms:
                self._epochs[field] = max(self._epochs.get(field, 0), epoch_ms)

    def age(self, now_ms: int) -> None:
        """Lets nothing count any more from a time of which notes have been cleared out.

        Args:
            now_ms: The time.
        """
        self._oldest_ms = max(self._oldest_ms, now_ms - RETENTION_MS)

    def _flush(self, epoch_ms: int) -> None:
        self.flushed_ms = max(self.flushed_ms, epoch_ms)
        self._oldest_ms = max(self._oldest_ms, self.flushed_ms)


def parse_table(reply: Sequence[bytes]) -> EpochTable:
    """Reads a tenant's notes as the store holds them.

    Args:
        reply: Names and values in turn.

    Raises:
        ValueError: They are not of the form in which they are written, or the note for the whole
            tenant is missing.
    """
    epochs: dict[str, int] = {}
    thresholds: dict[str, float] = {}
    meta: dict[bytes, bytes] = {}
    for name, value in zip(reply[::2], reply[1::2], strict=True):
        if name.startswith(_META):
            meta[name] = value
        elif name.startswith(_THRESHOLD):
            thresholds[name.decode()] = _parse_threshold(value)
        else:
            epochs[name.decode()] = int(value)
    if EVERYTHING not in epochs:
        raise ValueError("no note for the whole tenant")
    return EpochTable(
        flushed_ms=epochs.pop(EVERYTHING),
        epochs=epochs,
        thresholds=thresholds,
        version=int(meta.get(_VERSION, 0)),
        born_ms=int(meta.get(_BIRTH, 0)),
    )


def _parse_threshold(value: bytes) -> float:
    threshold = float(value)
    if not math.isfinite(threshold) or not 0.0 <= threshold <= 1.0:
        raise ValueError("a threshold out of range")
    return threshold
