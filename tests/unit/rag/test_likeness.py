from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from services.rag.core.documents import CollectionStats
from services.rag.likeness import LikenessSource

START = datetime(2026, 1, 1, tzinfo=UTC)
COLLECTION = CollectionStats(
    name="docs",
    embedding_model="all-minilm@0",
    embedding_dimension=4,
    document_count=10,
    chunk_count=100,
    token_sum=1000,
    version=1,
    created_at=START,
    updated_at=START,
)


class Store:
    def __init__(self):
        self.samples = 0

    async def sample_vectors(self, tenant_id, collection, *, limit):
        self.samples += 1
        return tuple(np.eye(4, dtype=np.float32))


async def test_a_collection_is_measured_again_when_it_has_grown_or_shrunk_by_a_tenth():
    store = Store()
    source = LikenessSource(store)
    for chunk_count, samples in ((100, 1), (109, 1), (111, 2), (105, 2), (99, 3)):
        await source.measure("acme", replace(COLLECTION, chunk_count=chunk_count))
        assert store.samples == samples


async def test_nothing_is_carried_over_to_another_tenant_collection_or_model():
    store = Store()
    source = LikenessSource(store)
    await source.measure("acme", COLLECTION)
    await source.measure("other", COLLECTION)
    await source.measure("acme", replace(COLLECTION, name="more"))
    await source.measure("acme", replace(COLLECTION, embedding_model="bge@1"))
    await source.measure("acme", replace(COLLECTION, created_at=START + timedelta(days=1)))
    assert store.samples == 5
