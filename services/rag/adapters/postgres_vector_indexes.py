"""The approximate indexes over the vectors of large collections, built beside everything else.

Each large collection has an index of its own: hits are then never of anybody else, and a small
share of a large table is found as surely as all of a small one.
"""

import logging

import asyncpg

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_search import vector_index_name

__all__ = ["BUILD_MEMORY_BYTES", "VectorIndexes"]

BUILD_MEMORY_BYTES = 512 * 1024 * 1024
"""What a build may use; of the server's shared memory, where several of its processes build."""

_logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 30.0
_LOCK_KEY = 7_267_003_153
# Above this, pgvector has no index over half-precision vectors.
_MOST_DIMENSIONS = 4000

_WANTED = """
SELECT collection_id, embedding_dimension FROM rag.collection
WHERE chunk_count > $1 AND embedding_dimension <= $2
    AND NOT EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('rag.embedding_near_' || collection_id) AND indisvalid
    )
ORDER BY chunk_count
"""
# Of collections that are gone, and what a build that did not end has left behind.
_UNWANTED = """
SELECT relname FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
WHERE relnamespace = 'rag'::regnamespace AND relname LIKE 'embedding\\_near\\_%'
    AND NOT (indisvalid AND EXISTS (
        SELECT FROM rag.collection WHERE 'embedding_near_' || collection_id = relname
    ))
"""


class VectorIndexes:
    """Builds and drops the indexes.

    Args:
        pool: Connections to the database.
        clock: Waits between one look and the next.
        least_chunk_count: Collections with more chunks get an index.
    """

    def __init__(
        self,
        pool: PostgresPool,
        *,
        clock: Clock,
        least_chunk_count: int,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._least_chunk_count = least_chunk_count

    async def run(self) -> None:
        """Looks again and again; never returns."""
        while True:
            await self._clock.sleep(_INTERVAL_SECONDS)
            try:
                await self.keep()
            except (ServiceError, asyncpg.PostgresError) as error:
                # Searches compare one by one until it succeeds.
                _logger.warning("vector indexes", extra={"cause": str(error)})

    async def keep(self) -> int:
        """Drops what is not wanted and builds what is missing; returns how many were built.

        Of several replicas one does it. Nobody waits for it: reading and writing go on.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        async with self._pool.administering() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):
                return 0
            for row in await connection.fetch(_UNWANTED):
                await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS rag.{row['relname']}")
            wanted = await connection.fetch(_WANTED, self._least_chunk_count, _MOST_DIMENSIONS)
            for row in wanted:
                await self._build(connection, row["collection_id"], row["embedding_dimension"])
            return len(wanted)

    async def _build(
        self, connection: asyncpg.Connection, collection_id: int, dimension: int
    ) -> None:
        name = vector_index_name(collection_id)
        _logger.info("building a vector index", extra={"collection_number": collection_id})
        await connection.execute(f"SET maintenance_work_mem = '{BUILD_MEMORY_BYTES // 1024}kB'")
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {name} ON rag.embedding "
            f"USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops) "
            f"WHERE collection_id = {collection_id}"
        )
        _logger.info("built a vector index", extra={"collection_number": collection_id})
