"""What of an answer's passages is stored, and how to tell later that nothing of it has changed.

Whatever changes a collection gives it another version. So where an answer was made from passages
that were stored as it shows them, it need not be looked for them again while the version is the
same and none of their documents has expired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from services.rag.core.passages import Passage

__all__ = ["CollectionState", "EvidenceNote", "StoredEvidence"]


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection as it was at some moment.

    Attributes:
        version: Another one after each change, and never that of another collection. A store that
            was set back to an earlier state gives versions again.
        transaction_number: Of the change. These go on while the server of the store runs, whatever
            is set back.
        server_started_at: When that server was started.
        read_at: The moment, by the store's clock.
    """

    version: int
    transaction_number: int
    server_started_at: datetime
    read_at: datetime

    def is_unchanged_since(self, earlier: CollectionState) -> bool:
        """Whether the collection holds what it held then, expired documents included."""
        return (
            self.version == earlier.version
            and self.transaction_number == earlier.transaction_number
            and self.server_started_at == earlier.server_started_at
        )


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """Those of some passages that are stored, and that the caller may see.

    Attributes:
        passages: By chunk id.
        state: Their collection at that moment; None where there is no passage.
        expires_at: When the first of their documents expires; None where none does.
    """

    passages: Mapping[int, Passage]
    state: CollectionState | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EvidenceNote:
    """What is remembered of an answer that was given.

    Attributes:
        entry_id: Where the cache keeps it; another one for each answer kept.
        chunk_ids: The passages that it was made from.
        state: Its collection, when the passages were last found stored just as the answer shows
            them; None where a title, say, is another one now.
        expires_at: When the first of their documents expires; None where none does.
    """

    entry_id: str
    chunk_ids: tuple[int, ...]
    state: CollectionState | None = None
    expires_at: datetime | None = None

    def holds_at(self, state: CollectionState | None) -> bool:
        """Whether the passages are still stored as the answer shows them.

        Args:
            state: The collection now; None where it is gone.
        """
        return (
            self.state is not None
            and state is not None
            and state.is_unchanged_since(self.state)
            and (self.expires_at is None or state.read_at < self.expires_at)
        )
