"""Looks collections up, and remembers what they were like."""

from collections import OrderedDict

from services.rag.core.documents import CollectionStats
from services.rag.core.errors import CollectionNotFound
from services.rag.recorder import Recorder
from services.rag.search import TimeLimits
from services.rag.store_port import DocumentStore

__all__ = ["KnownCollections"]

_MOST_COLLECTIONS = 10_000


class KnownCollections:
    """Knows the collections with vectors that were asked about last.

    Args:
        store: The documents.
        limits: Longest times.
    """

    def __init__(self, store: DocumentStore, limits: TimeLimits) -> None:
        self._store = store
        self._limits = limits
        self._known: OrderedDict[tuple[str, str], CollectionStats] = OrderedDict()

    def recall(self, tenant_id: str, name: str) -> CollectionStats | None:
        """Returns what a collection was like when it was last looked up.

        None where that is not known, and where nothing had a vector yet.
        """
        return self._known.get((tenant_id, name))

    async def look_up(self, tenant_id: str, name: str, recorder: Recorder) -> CollectionStats:
        """Returns the facts of a collection.

        Args:
            tenant_id: Owner of the collection.
            name: Its name.
            recorder: Receives the stage.

        Raises:
            CollectionNotFound: The tenant has no such collection.
            StoreUnavailable: It cannot be looked up, or not in a quarter of the time left.
        """
        key = tenant_id, name
        with recorder.stage("collection"):
            try:
                async with self._limits.reading():
                    found = await self._store.get_collection(tenant_id, name)
            except CollectionNotFound:
                self._known.pop(key, None)
                raise
        if found.embedding_model is not None:
            self._known[key] = found
            self._known.move_to_end(key)
            if len(self._known) > _MOST_COLLECTIONS:
                self._known.popitem(last=False)
        return found
