"""The cache learns of every change of documents, however long it was away."""

import asyncio

import asyncpg
import pytest

from pannier.rag.v1 import corpus_service_pb2 as corpus
from services.common.errors import PeerUnavailable
from tests.integration.rag.conftest import as_tenant

ACME = as_tenant("acme")


async def told(rag):
    async with asyncio.timeout(10):
        return await rag.cache.invalidations.get()


async def delete(rag, document_id):
    request = corpus.DeleteDocumentRequest(collection="docs", document_id=document_id)
    await rag.corpus.DeleteDocument(request, metadata=ACME)


async def notes(database_dsn):
    connection = await asyncpg.connect(database_dsn)
    try:
        return await connection.fetchval("SELECT count(*) FROM rag.invalidation")
    finally:
        await connection.close()


async def test_each_kind_of_change_is_told(rag):
    await rag.ingest({"a.txt": "One."})
    assert await told(rag) == ("acme", ["growth docs"])
    await rag.ingest({"a.txt": "Two."})
    tenant, changes = await told(rag)
    assert (tenant, set(changes)) == ("acme", {"growth docs", "document docs/a.txt"})
    await delete(rag, "a.txt")
    assert await told(rag) == ("acme", ["document docs/a.txt"])


async def test_what_has_not_changed_is_not_told(rag):
    await rag.ingest({"a.txt": "One."})
    await told(rag)
    await rag.ingest({"a.txt": "One."})
    await rag.ingest({"b.txt": "One."}, tenant="rival")
    assert await told(rag) == ("rival", ["growth docs"])


async def test_a_document_that_fails_is_no_change(rag, database_dsn):
    rag.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await rag.ingest({"empty.txt": " "})
    assert await notes(database_dsn) == 0


async def test_changes_wait_for_a_cache_that_is_away(rag, database_dsn):
    rag.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await rag.ingest({"a.txt": "One."})
    await delete(rag, "a.txt")
    assert await notes(database_dsn) == 2
    while not rag.cache.calls["Invalidate"]:
        await asyncio.sleep(0.005)
    del rag.cache.faults["Invalidate"]
    changes = (await told(rag))[1]
    while len(changes) < 2:
        changes += (await told(rag))[1]
    assert set(changes) == {"growth docs", "document docs/a.txt"}
    await rag.told()


async def test_changes_outlive_the_process_that_made_them(start_rag, database_dsn):
    first = await start_rag()
    first.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await first.ingest({"a.txt": "One."})
    await first.stop()
    assert await notes(database_dsn) == 1
    second = await start_rag()
    assert await told(second) == ("acme", ["growth docs"])
    await second.told()


async def test_many_changes_are_told_in_few_calls(rag):
    rag.cache.holds["Invalidate"] = asyncio.Event()
    names = [f"d{number:03}.txt" for number in range(100)]
    await rag.ingest({name: f"Text of {name}." for name in names})
    await rag.ingest({name: f"New text of {name}." for name in names})
    rag.cache.calls.clear()
    rag.cache.holds.clear()
    await rag.told()
    changes = []
    while not rag.cache.invalidations.empty():
        _, some = rag.cache.invalidations.get_nowait()
        assert len(some) <= 64
        changes += some
    assert {f"document docs/{name}" for name in names} <= set(changes)
    assert rag.cache.calls["Invalidate"] < 10


async def test_one_tenant_that_cannot_be_told_holds_up_no_other(rag):
    rag.cache.refused_tenants = {"acme"}
    await rag.ingest({"a.txt": "One."})
    await rag.ingest({"a.txt": "One."}, tenant="rival")
    assert (await told(rag))[0] == "rival"
    rag.cache.refused_tenants = set()
    assert (await told(rag))[0] == "acme"


async def test_a_tenant_that_is_refused_for_good_holds_up_none_behind_its_notes(rag, monkeypatch):
    monkeypatch.setattr("services.rag.invalidate._BATCH_SIZE", 1)
    rag.cache.refused_tenants = {"acme"}
    await rag.ingest({"a.txt": "One.", "b.txt": "Two."})
    await rag.ingest({"a.txt": "One.", "b.txt": "Two."}, tenant="rival")
    assert (await told(rag))[0] == "rival"


@pytest.mark.parametrize("name", ["rag_invalidations_pending"])
async def test_what_waits_is_shown_to_operators(rag, name):
    rag.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await rag.ingest({"a.txt": "One."})

    async def metric():
        reader, writer = await asyncio.open_connection("127.0.0.1", rag.http_port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return f"\n{name} 1.0\n" in text

    async with asyncio.timeout(10):
        while not await metric():
            await asyncio.sleep(0.01)
