import random
from collections.abc import AsyncIterator, Mapping

import numpy as np
import pytest

from services.rag.adapters import postgres_search, postgres_terms
from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_vector_indexes import VectorIndexes
from services.rag.core.bm25 import score_chunks
from services.rag.core.documents import TermFrequencies, Vector
from services.rag.core.errors import CollectionNotFound, EmbeddingModelMismatch
from tests.kit.rag_documents import (
    MODEL,
    UnusedClock,
    document,
    indexed_chunks,
    opened_store,
    unit_vector,
)

E1, E2, E3 = unit_vector(1, 0, 0), unit_vector(0, 1, 0), unit_vector(0, 0, 1)


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        yield store


def random_terms(rng: random.Random) -> Mapping[str, int]:
    vocabulary = [f"term{n}" for n in range(30)]
    weights = [1 / (n + 1) for n in range(30)]
    drawn = rng.choices(vocabulary, weights, k=rng.randint(1, 40))
    return {term: drawn.count(term) for term in drawn}


def random_vectors(count: int, dimension: int, seed: int) -> list[Vector]:
    return list(np.random.default_rng(seed).standard_normal((count, dimension), np.float32))


async def fill(
    store: PostgresDocumentStore, seed: int, *, tenant_id: str = "acme", collection: str = "manuals"
) -> dict[tuple[str, int], TermFrequencies]:
    """Stores a random corpus and returns its chunks by document and ordinal."""
    rng = random.Random(seed)
    corpus: dict[tuple[str, int], TermFrequencies] = {}
    for number in range(6):
        terms = [random_terms(rng) for _ in range(rng.randint(1, 9))]
        vectors = random_vectors(len(terms), 3, seed + number)
        chunks = indexed_chunks(zip(terms, vectors, strict=True))
        name = f"doc{number}"
        await store.put_document(
            document(name, tenant_id=tenant_id, collection=collection),
            chunks,
            embedding_model=MODEL,
        )
        corpus |= {(name, each.chunk.ordinal): each.terms for each in chunks}
    return corpus


@pytest.mark.parametrize("seed", range(5))
async def test_keyword_scores_equal_the_formula(store: PostgresDocumentStore, seed: int) -> None:
    corpus = await fill(store, seed)
    names = list(corpus)
    rng = random.Random(1000 + seed)
    # With the five corpora, 200 questions.
    for _ in range(40):
        terms = [f"term{rng.randint(0, 33)}" for _ in range(rng.randint(1, 6))]
        expected = {
            names[index]: score
            for index, score in score_chunks(
                terms, {index: corpus[name] for index, name in enumerate(names)}
            ).items()
        }
        matches = await store.search_keyword("acme", "manuals", terms=terms, limit=1000)
        passages = await store.load_passages("acme", [hit.chunk_id for hit in matches.hits])
        found = {
            (passages[hit.chunk_id].document_id, passages[hit.chunk_id].ordinal): hit.score
            for hit in matches.hits
        }
        assert found == pytest.approx(expected, abs=1e-6)
        scores = [hit.score for hit in matches.hits]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(3))
async def test_the_best_by_words_are_the_same_where_common_terms_are_only_looked_up(
    store: PostgresDocumentStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_search, "_MANY_POSTINGS", 0)
    monkeypatch.setattr(postgres_search, "_FIRST_POSTINGS", 10)
    # However much a term adds, it is looked up where the floor allows it.
    monkeypatch.setattr(postgres_search, "_COMMON_RATIO", 1.0)
    corpus = await fill(store, seed)
    names = list(corpus)
    rng = random.Random(2000 + seed)
    for _ in range(30):
        terms = [f"term{rng.randint(0, 33)}" for _ in range(rng.randint(2, 8))]
        scores = score_chunks(terms, {index: corpus[name] for index, name in enumerate(names)})
        limit = rng.randint(1, 6)
        matches = await store.search_keyword("acme", "manuals", terms=terms, limit=limit)
        best = sorted(scores.values(), reverse=True)[:limit]
        assert [hit.score for hit in matches.hits] == pytest.approx(best, abs=1e-6)


async def test_remembered_terms_are_counted_anew_when_a_document_has_come(
    store: PostgresDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_terms, "_LEAST_FREQUENCY", 1)
    chunks = indexed_chunks([({"word": 1}, E1), ({"word": 2, "other": 1}, E2)])
    counted = []
    for name in ("first", "second"):
        await store.put_document(
            document(name, tenant_id="acme", collection="manuals"), chunks, embedding_model=MODEL
        )
        for _ in range(2):
            matches = await store.search_keyword(
                "acme", "manuals", terms=["word", "other", "absent"], limit=9
            )
            counted.append(dict(matches.statistics.document_frequencies))
    assert counted == [{"word": 2, "other": 1}] * 2 + [{"word": 4, "other": 2}] * 2


async def test_keyword_search_gives_the_statistics_it_used(store: PostgresDocumentStore) -> None:
    corpus = await fill(store, 1)
    matches = await store.search_keyword("acme", "manuals", terms=["term0", "absent"], limit=3)
    statistics = matches.statistics
    assert statistics.chunk_count == len(corpus)
    assert statistics.average_length == pytest.approx(
        sum(each.length for each in corpus.values()) / len(corpus)
    )
    containing = sum("term0" in each.counts for each in corpus.values())
    assert statistics.document_frequencies == {"term0": containing}
    assert statistics == await store.get_term_statistics("acme", "manuals", ["absent", "term0"])
    assert statistics.idf("absent") > statistics.idf("term0")


async def test_vector_search_orders_as_cosine_does(store: PostgresDocumentStore) -> None:
    vectors = random_vectors(200, 32, 7)
    chunks = indexed_chunks(({"x": 1}, vector) for vector in vectors)
    await store.put_document(document(), chunks, embedding_model=MODEL)
    matrix = np.stack(vectors)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    # From the second search on, the collection is known to be small.
    for query in random_vectors(5, 32, 8):
        cosines = matrix @ (query / np.linalg.norm(query))
        hits = await store.search_vector("acme", "manuals", model=MODEL, vector=query, limit=20)
        passages = await store.load_passages("acme", [hit.chunk_id for hit in hits])
        ordinals = [passages[hit.chunk_id].ordinal for hit in hits]
        # Stored in half precision, so neighbours closer than that may change places.
        assert cosines[ordinals] == pytest.approx(np.sort(cosines)[::-1][:20], abs=2e-3)
        assert [hit.score for hit in hits] == pytest.approx(cosines[ordinals], abs=2e-3)


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_limit_keeps_the_best(store: PostgresDocumentStore, limit: int) -> None:
    await fill(store, 2)
    query = random_vectors(1, 3, 99)[0]
    many = await store.search_vector("acme", "manuals", model=MODEL, vector=query, limit=50)
    few = await store.search_vector("acme", "manuals", model=MODEL, vector=query, limit=limit)
    assert few == many[:limit]
    words = await store.search_keyword("acme", "manuals", terms=["term0"], limit=50)
    fewer = await store.search_keyword("acme", "manuals", terms=["term0"], limit=limit)
    assert fewer.hits == words.hits[:limit]


@pytest.mark.parametrize(("tenant_id", "collection"), [("other", "manuals"), ("acme", "other")])
async def test_no_arm_sees_another_tenant_or_collection(
    store: PostgresDocumentStore, tenant_id: str, collection: str
) -> None:
    await fill(store, 3)
    alone = await store.search_keyword("acme", "manuals", terms=["term0"], limit=100)
    near = await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=100)
    await fill(store, 4, tenant_id=tenant_id, collection=collection)
    assert await store.search_keyword("acme", "manuals", terms=["term0"], limit=100) == alone
    assert await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=100) == near
    ids = [hit.chunk_id for hit in near]
    if tenant_id != "acme":
        assert await store.load_passages(tenant_id, ids) == {}


async def test_a_collection_without_chunks_matches_nothing(store: PostgresDocumentStore) -> None:
    await store.create_collection("acme", "empty")
    matches = await store.search_keyword("acme", "empty", terms=["term0"], limit=5)
    assert (matches.hits, matches.statistics.chunk_count) == ((), 0)
    assert await store.search_vector("acme", "empty", model=MODEL, vector=E1, limit=5) == ()


async def test_no_terms_match_nothing(store: PostgresDocumentStore) -> None:
    await fill(store, 5)
    assert (await store.search_keyword("acme", "manuals", terms=[], limit=5)).hits == ()


async def test_searching_a_collection_that_is_not_there_is_an_error(
    store: PostgresDocumentStore,
) -> None:
    with pytest.raises(CollectionNotFound):
        await store.search_keyword("acme", "none", terms=["x"], limit=5)
    with pytest.raises(CollectionNotFound):
        await store.search_vector("acme", "none", model=MODEL, vector=E1, limit=5)
    with pytest.raises(CollectionNotFound):
        await store.get_term_statistics("acme", "none", ["x"])


@pytest.mark.parametrize(("model", "vector"), [("other-model", E1), (MODEL, unit_vector(1, 2))])
async def test_a_vector_of_another_kind_is_refused(
    store: PostgresDocumentStore, model: str, vector: Vector
) -> None:
    await fill(store, 6)
    with pytest.raises(EmbeddingModelMismatch) as caught:
        await store.search_vector("acme", "manuals", model=model, vector=vector, limit=5)
    assert caught.value.metadata["stored"] == f"{MODEL}/3"


async def test_passages_carry_the_facts_of_their_document(store: PostgresDocumentStore) -> None:
    await store.put_document(
        document("guide"), indexed_chunks([({"x": 1}, E1), ({"y": 1}, E2)]), embedding_model=MODEL
    )
    (hit,) = (await store.search_keyword("acme", "manuals", terms=["y"], limit=5)).hits
    passage = (await store.load_passages("acme", [hit.chunk_id, 10**9]))[hit.chunk_id]
    assert (passage.document_id, passage.title) == ("guide", "Title of guide")
    assert (passage.ordinal, passage.text) == (1, "text 1")
    assert passage.heading_path == ("Part", "1")
    assert passage.header == "Title / Part / 1"
    assert passage.metadata == {"origin": "test"}


async def test_a_small_collection_that_is_known_is_searched_as_it_is_now(
    store: PostgresDocumentStore,
) -> None:
    async def search(vector: Vector = E1, model: str = MODEL) -> list[float]:
        hits = await store.search_vector("acme", "manuals", model=model, vector=vector, limit=5)
        return [round(hit.score, 3) for hit in hits]

    first = indexed_chunks([({"x": 1}, E1), ({"x": 1}, E2)])
    await store.put_document(document("first"), first, embedding_model=MODEL)
    assert await search() == await search() == [1.0, 0.0]
    await store.put_document(
        document("second"), indexed_chunks([({"x": 1}, E1)]), embedding_model=MODEL
    )
    assert await search() == [1.0, 1.0, 0.0]
    with pytest.raises(EmbeddingModelMismatch):
        await search(unit_vector(1, 2))
    with pytest.raises(EmbeddingModelMismatch):
        await search(model="other-model")
    await store.delete_collection("acme", "manuals")
    with pytest.raises(CollectionNotFound):
        await search()
    await store.create_collection("acme", "manuals")
    assert await search() == await search() == []
    longer = indexed_chunks([({"x": 1}, unit_vector(1, 0, 0, 0))])
    await store.put_document(document("first"), longer, embedding_model="other-model")
    with pytest.raises(EmbeddingModelMismatch):
        await search()
    assert await search(unit_vector(1, 0, 0, 0), "other-model") == [1.0]


async def test_a_collection_that_was_small_is_searched_by_its_index_once_it_has_grown(
    database_dsn: str,
) -> None:
    pool = PostgresPool(database_dsn, size=1)
    store = PostgresDocumentStore(pool, exact_scan_chunk_count=50)
    asked: list[str] = []
    async with pool.connection() as connection:
        connection.add_query_logger(lambda record: asked.append(record.query))

    async def search() -> tuple[float, bool, bool]:
        asked.clear()
        hits = await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=10)
        assert len(hits) == 10
        begins = any(text.startswith("BEGIN") for text in asked)
        return round(hits[0].score, 2), begins, any("hnsw" in text for text in asked)

    vectors = [E1, *random_vectors(49, 3, 5)]
    await store.put_document(
        document("first"),
        indexed_chunks([({}, vector) for vector in vectors]),
        embedding_model=MODEL,
    )
    assert await search() == (1.0, True, False)
    assert await search() == (1.0, False, False)
    vectors = random_vectors(60, 3, 6)
    await store.put_document(
        document("second"),
        indexed_chunks([({}, vector) for vector in vectors]),
        embedding_model=MODEL,
    )
    indexes = VectorIndexes(pool, clock=UnusedClock(), least_chunk_count=50)
    assert await indexes.keep() == 1
    assert await search() == (1.0, False, False)
    assert await search() == await search() == (1.0, True, True)
    await pool.close()
