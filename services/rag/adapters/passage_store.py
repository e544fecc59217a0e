"""Finding passages in the documents on PostgreSQL: both search arms, and what they hit.

Both arms and every count are confined to one tenant and one collection by their keys, so that
nothing of another tenant shows through, not even in term statistics. Row-level security holds the
same line once more, whatever a statement says.
"""

from collections.abc import Mapping, Sequence

from services.rag.adapters.postgres_filter import Parameters
from services.rag.adapters.postgres_passages import evidence_by_id, passages_by_id, read_state
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_rows import statistics_of
from services.rag.adapters.postgres_search import TERM_STATISTICS, keyword_search
from services.rag.adapters.postgres_spans import read_spans
from services.rag.adapters.postgres_terms import TermMemory
from services.rag.adapters.postgres_vector_search import VectorSearch
from services.rag.adapters.postgres_vectors import (
    load_vectors,
    sample_vectors,
)
from services.rag.core.documents import Vector
from services.rag.core.errors import CollectionNotFound
from services.rag.core.filters import (
    ANYONE,
    EVERY_DOCUMENT,
    Access,
    DocumentFilter,
)
from services.rag.core.passages import (
    KeywordMatches,
    Passage,
    ScoredChunk,
    TermStatistics,
    TextSpan,
)
from services.rag.core.stored_evidence import CollectionState, StoredEvidence

__all__ = ["PostgresPassageStore"]


class PostgresPassageStore:
    """Finds passages in the documents of all tenants.

    `filter` and `access` become one condition, and every statement that finds or loads has it;
    without them a caller sees what is for everyone of the tenant. Expired documents never count.

    Args:
        pool: Connections to the database; whoever made it opens and closes it.
        exact_scan_chunk_count: Up to so many chunks are compared with a vector one by one; above,
            an approximate index is used where there is one.
        keyword_posting_limit: The most common terms of a search by words are left out where all of
            them together are in more chunks than this, each counted for every term it holds.
    """

    def __init__(
        self,
        pool: PostgresPool,
        *,
        exact_scan_chunk_count: int = 20_000,
        keyword_posting_limit: int = 200_000,
    ) -> None:
        self._pool = pool
        self._by_meaning = VectorSearch(pool, exact_scan_count=exact_scan_chunk_count)
        self._keyword_posting_limit = keyword_posting_limit
        self._memory = TermMemory()

    async def search_vector(
        self,
        tenant_id: str,
        collection: str,
        *,
        model: str,
        vector: Vector,
        limit: int,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> tuple[ScoredChunk, ...]:
        """Returns the chunks nearest to a vector by cosine, best first.

        All vectors that count are compared while they are few; of large collections an index gives
        more hits than are asked for, and goes on where a filter takes hits away.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            model: What made the vector.
            vector: float32, shape (dimension,), not all zeros.
            limit: Most hits.
            filter: Which documents count.
            access: Which of them the caller may read.

        Raises:
            CollectionNotFound: There is no such collection.
            EmbeddingModelMismatch: Its vectors are of another model or dimension.
        """
        return await self._by_meaning.search(
            tenant_id,
            collection,
            model=model,
            vector=vector,
            limit=limit,
            filter=filter,
            access=access,
        )

    async def search_keyword(
        self,
        tenant_id: str,
        collection: str,
        *,
        terms: Sequence[str],
        limit: int,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> KeywordMatches:
        """Returns the chunks with the highest BM25 score, best first.

        The filter says which chunks may be hits. The statistics in the score are those of the whole
        collection: a term is as rare under a filter as it is without, and scores of searches with
        different filters compare.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            terms: Analysed query terms; repetitions count once.
            limit: Most hits.
            filter: Which documents count.
            access: Which of them the caller may read.

        Raises:
            CollectionNotFound: There is no such collection.
        """
        parameters = Parameters(
            tenant_id, collection, list(terms), limit, self._keyword_posting_limit
        )
        remembered = self._memory.of(tenant_id, collection)
        statement = keyword_search(parameters, filter, access, terms=terms, remembered=remembered)
        async with self._pool.reading_once(tenant_id) as connection:
            row = await connection.fetchrow(statement, *parameters.values)
        if row is None:
            raise CollectionNotFound(collection)
        frequencies = zip(row["terms"], row["document_frequencies"], strict=True)
        self._memory.note(tenant_id, collection, row["version"], frequencies)
        hits = zip(row["chunk_ids"], row["scores"], strict=True)
        return KeywordMatches(
            hits=tuple(ScoredChunk(chunk_id, score) for chunk_id, score in hits),
            statistics=statistics_of(row),
            pruned_terms=tuple(row["pruned_terms"]),
        )

    async def get_term_statistics(
        self, tenant_id: str, collection: str, terms: Sequence[str]
    ) -> TermStatistics:
        """Returns how common terms are in a collection.

        Raises:
            CollectionNotFound: There is no such collection.
        """
        async with self._pool.reading_once(tenant_id) as connection:
            row = await connection.fetchrow(TERM_STATISTICS, tenant_id, collection, list(terms))
        if row is None:
            raise CollectionNotFound(collection)
        return statistics_of(row)

    async def load_passages(
        self,
        tenant_id: str,
        chunk_ids: Sequence[int],
        *,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> Mapping[int, Passage]:
        """Returns chunks with the facts of their documents, by chunk id.

        Chunks that are gone since they were found are absent, as are those that the caller may not
        read, and those of documents that the filter does not let pass.
        """
        async with self._pool.reading_once(tenant_id) as connection:
            passages = await passages_by_id(connection, tenant_id, chunk_ids, filter, access)
        return {each.chunk_id: each for each in passages}

    async def load_evidence(
        self,
        tenant_id: str,
        chunk_ids: Sequence[int],
        *,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> StoredEvidence:
        """Returns the same chunks, and as of which state of their collection that is so.

        Args:
            tenant_id: Owner of the chunks.
            chunk_ids: Chunks of one collection.
            filter: Which documents count.
            access: Which of them the caller may read.
        """
        async with self._pool.reading_once(tenant_id) as connection:
            return await evidence_by_id(connection, tenant_id, chunk_ids, filter, access)

    async def get_collection_state(self, tenant_id: str, name: str) -> CollectionState | None:
        """Returns what tells whether a collection has changed; None where it is not there."""
        async with self._pool.reading_once(tenant_id) as connection:
            return await read_state(connection, tenant_id, name)

    async def load_spans(
        self, tenant_id: str, spans: Sequence[TextSpan], *, access: Access = ANYONE
    ) -> Mapping[TextSpan, str]:
        """Returns parts of documents; those of documents that are gone are absent.

        A document that the caller may not read is as good as gone.
        """
        async with self._pool.reading_once(tenant_id) as connection:
            return await read_spans(connection, tenant_id, spans, access)

    async def load_vectors(
        self, tenant_id: str, collection: str, chunk_ids: Sequence[int]
    ) -> Mapping[int, Vector]:
        """Returns stored vectors by chunk id; chunks without one are absent."""
        async with self._pool.reading_once(tenant_id) as connection:
            return await load_vectors(connection, tenant_id, collection, chunk_ids)

    async def sample_vectors(
        self, tenant_id: str, collection: str, *, limit: int
    ) -> tuple[Vector, ...]:
        """Returns vectors of chunks drawn at random, about as many as asked for, never more."""
        async with self._pool.reading_once(tenant_id) as connection:
            return await sample_vectors(connection, tenant_id, collection, limit)
