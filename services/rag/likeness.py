"""How alike passages of a collection are by chance, measured now and then and remembered."""

from services.rag.coalesce import Coalescer
from services.rag.core.confidence import SAMPLE_COUNT, Likeness, likeness_of
from services.rag.core.documents import CollectionStats
from services.rag.store_port import DocumentStore

__all__ = ["LikenessSource"]

# Growth from which on a sample no longer speaks for a collection. Each change of it would be too
# often: a sample hardly differs from the next.
_GROWTH_RATIO = 0.1
_MOST_COLLECTIONS = 4096

_Key = tuple[str, str, str | None, float]


class LikenessSource:
    """Measures collections by samples of their vectors.

    Args:
        store: The documents.
    """

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._known: dict[_Key, tuple[int, Likeness]] = {}
        self._flights: Coalescer[Likeness] = Coalescer()

    async def measure(self, tenant_id: str, collection: CollectionStats) -> Likeness:
        """Returns how alike passages of a collection are, from memory where it has hardly grown.

        Args:
            tenant_id: Owner of the collection.
            collection: Its facts.

        Raises:
            StoreUnavailable: Its vectors cannot be read.
        """
        made = collection.created_at.timestamp()
        key = (tenant_id, collection.name, collection.embedding_model, made)
        known = self._known.get(key)
        if known is not None:
            count, likeness = known
            if abs(collection.chunk_count - count) <= _GROWTH_RATIO * count:
                return likeness
        return await self._flights.run(
            (key, collection.version), lambda: self._sample(key, collection)
        )

    async def _sample(self, key: _Key, collection: CollectionStats) -> Likeness:
        vectors = await self._store.sample_vectors(key[0], collection.name, limit=SAMPLE_COUNT)
        likeness = likeness_of(vectors)
        self._known.pop(key, None)
        if len(self._known) >= _MOST_COLLECTIONS:
            del self._known[next(iter(self._known))]
        self._known[key] = (collection.chunk_count, likeness)
        return likeness
