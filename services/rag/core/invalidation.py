"""What a change of documents makes of cached answers."""

from dataclasses import dataclass
from enum import Enum

__all__ = ["Invalidation", "InvalidationKind", "PendingInvalidation"]


class InvalidationKind(Enum):
    """What has happened; the values are stored."""

    DOCUMENT = "document"
    """A document is gone or has another version: nothing derived from it counts any more."""

    COLLECTION = "collection"
    """A collection is gone."""

    GROWTH = "growth"
    """A collection holds something new: answers from before may lack it."""


@dataclass(frozen=True, slots=True)
class Invalidation:
    """A change that the cache has to learn of; `document_id` only with DOCUMENT."""

    kind: InvalidationKind
    collection: str
    document_id: str = ""


@dataclass(frozen=True, slots=True)
class PendingInvalidation:
    """A change that is noted for delivery to the cache.

    Attributes:
        number: Identity of the note.
        tenant_id: Owner of the collection.
        invalidation: The change.
    """

    number: int
    tenant_id: str
    invalidation: Invalidation
