import asyncio

import numpy as np
import pytest

from services.common.errors import PeerUnavailable, RelayedError, StatusCode
from services.rag.chunk_vectors import VectorTarget
from services.rag.core.documents import Chunk
from tests.kit.ingestion import MODEL, FakeEmbeddings, FakeStore, make_vectors

TARGET = VectorTarget(tenant_id="acme", collection="docs", model=MODEL)
FULL = RelayedError("full", code=StatusCode.RESOURCE_EXHAUSTED, reason="QUEUE_FULL")


def chunk(text):
    return Chunk(
        ordinal=0,
        char_start=0,
        char_end=len(text),
        text=text,
        heading_path=(),
        header="",
        token_estimate=1,
        text_digest=text.encode().hex(),
    )


def chunks(*texts):
    return [chunk(text) for text in texts]


class Reports:
    def __init__(self):
        self.counts = []

    async def __call__(self, count):
        self.counts.append(count)


async def found_by(vectors, wanted, target=TARGET):
    async with vectors.found(target, wanted, Reports()) as found:
        return found


class StillClock:
    """Time goes on only while someone sleeps."""

    def __init__(self):
        self.time = 0.0
        self.slept = []

    def monotonic(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


async def test_what_is_stored_is_not_embedded_and_equal_texts_are_embedded_once():
    store, embeddings, reports = FakeStore(), FakeEmbeddings(), Reports()
    store.embeddings[chunk("b").text_digest] = np.ones(4, dtype=np.float32)
    wanted = chunks("a", "b", "a", "c")
    async with make_vectors(store, embeddings).found(TARGET, wanted, reports) as found:
        assert set(found.vectors) == {each.text_digest for each in wanted}
        assert found.computed_count == 2
    assert embeddings.batches == [["a", "c"]]
    assert reports.counts == [1, 4]


async def test_the_cache_is_asked_and_told_once_for_many_texts_embedded_in_batches():
    embeddings, reports = FakeEmbeddings(), Reports()
    texts = [f"t{number}" for number in range(50)]
    embeddings.cached = {text: np.ones(4, dtype=np.float32) for text in texts[:10]}
    vectors = make_vectors(FakeStore(), embeddings, batch_size=16)
    async with vectors.found(TARGET, chunks(*texts), reports) as found:
        assert len(found.vectors) == 50
        assert found.computed_count == 40
    assert embeddings.lookups == [texts]
    assert embeddings.batches == [texts[10:26], texts[26:42], texts[42:]]
    assert embeddings.kept == [texts[10:]]
    assert reports.counts == [0, 10, 26, 42, 50]


async def test_texts_of_a_large_document_are_asked_for_some_at_a_time():
    embeddings = FakeEmbeddings()
    texts = [f"t{number}" for number in range(200)]
    found = await found_by(make_vectors(FakeStore(), embeddings, batch_size=16), chunks(*texts))
    assert found.computed_count == 200
    assert [len(each) for each in embeddings.lookups] == [64, 64, 64, 8]
    assert sorted(text for kept in embeddings.kept for text in kept) == sorted(texts)


async def test_a_cache_that_is_away_is_not_told():
    embeddings = FakeEmbeddings()
    embeddings.outcome = "unavailable"
    found = await found_by(make_vectors(FakeStore(), embeddings), chunks("a"))
    assert (found.computed_count, embeddings.kept) == (1, [])


async def test_a_text_that_two_documents_have_at_the_same_time_is_embedded_once():
    embeddings = FakeEmbeddings()
    embeddings.permits = asyncio.Semaphore(0)
    vectors = make_vectors(FakeStore(), embeddings)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(found_by(vectors, chunks("common", "one")))
        await embeddings.begun.get()
        second = group.create_task(found_by(vectors, chunks("two", "common")))
        await embeddings.begun.get()
        embeddings.permits.release()
        embeddings.permits.release()
    assert embeddings.batches == [["common", "one"], ["two"]]
    assert len(first.result().vectors) == len(second.result().vectors) == 2
    assert second.result().computed_count == 1


async def test_a_vector_is_offered_to_others_until_it_is_stored_and_not_to_other_tenants():
    embeddings = FakeEmbeddings()
    vectors = make_vectors(FakeStore(), embeddings)
    other = VectorTarget(tenant_id="rival", collection="docs", model=MODEL)
    async with vectors.found(TARGET, chunks("a"), Reports()):
        assert (await found_by(vectors, chunks("a"))).computed_count == 0
        assert (await found_by(vectors, chunks("a"), other)).computed_count == 1
    assert (await found_by(vectors, chunks("a"))).computed_count == 1


async def test_whoever_waits_for_a_document_that_is_cancelled_embeds_for_itself():
    embeddings = FakeEmbeddings()
    embeddings.permits = asyncio.Semaphore(0)
    vectors = make_vectors(FakeStore(), embeddings)
    first = asyncio.create_task(found_by(vectors, chunks("common")))
    await embeddings.begun.get()
    second = asyncio.create_task(found_by(vectors, chunks("common")))
    await asyncio.sleep(0)
    first.cancel()
    await embeddings.begun.get()
    embeddings.permits.release()
    assert len((await asyncio.wait_for(second, 5)).vectors) == 1


@pytest.mark.parametrize(
    "fault",
    [
        PeerUnavailable("balancer", "away"),
        RelayedError("late", code=StatusCode.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED"),
    ],
)
async def test_an_outage_leaves_vectors_for_later_and_is_not_asked_about_again_at_once(fault):
    clock, embeddings = StillClock(), FakeEmbeddings()
    embeddings.fault = fault
    vectors = make_vectors(FakeStore(), embeddings, clock=clock)
    assert (await found_by(vectors, chunks("a"))).vectors == {}
    assert (await found_by(vectors, chunks("b"))).vectors == {}
    assert embeddings.batches == [["a"]]
    embeddings.fault = None
    clock.time += 60
    assert len((await found_by(vectors, chunks("a"))).vectors) == 1


async def test_a_text_that_can_never_be_embedded_fails_the_document():
    embeddings = FakeEmbeddings()
    embeddings.fault = RelayedError(
        "too long", code=StatusCode.INVALID_ARGUMENT, reason="BACKEND_REJECTED_REQUEST"
    )
    with pytest.raises(RelayedError, match="too long"):
        await found_by(make_vectors(FakeStore(), embeddings), chunks("a"))


async def test_a_full_queue_is_waited_for_and_given_up_in_the_end():
    clock, embeddings = StillClock(), FakeEmbeddings()
    embeddings.fault = FULL
    vectors = make_vectors(FakeStore(), embeddings, clock=clock)
    assert (await found_by(vectors, chunks("a"))).vectors == {}
    assert len(clock.slept) == len(embeddings.batches) - 1 > 5


async def test_eight_backends_get_work_at_once_from_one_document_and_from_several():
    for documents in (
        [[f"t{n}" for n in range(40)]],
        [[f"d{m}t{n}" for n in range(5)] for m in range(8)],
    ):
        embeddings = FakeEmbeddings()
        embeddings.permits = asyncio.Semaphore(0)
        vectors = make_vectors(FakeStore(), embeddings, batch_size=5, concurrency=8)
        async with asyncio.TaskGroup() as group:
            for texts in documents:
                group.create_task(found_by(vectors, chunks(*texts)))
            for _ in range(8):
                await embeddings.begun.get()
            for _ in range(8):
                embeddings.permits.release()
        assert embeddings.peak_count == 8


async def test_texts_that_are_no_chunks_keep_their_order():
    embeddings = FakeEmbeddings()
    texts = ["x" * length for length in range(1, 50)]
    made = await make_vectors(FakeStore(), embeddings, batch_size=4).embed(MODEL, texts)
    assert [int(each[0]) for each in made] == [len(text) for text in texts]
