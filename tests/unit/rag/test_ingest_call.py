import asyncio

import pytest

from services.common.errors import StreamProtocolViolation
from services.rag.core.intake import DocumentDone, DocumentProgress, IngestOutcome, IngestStage
from services.rag.ingest_call import WAITING_EVENT_COUNT, IngestCall, Outbox
from tests.kit.ingestion import document

DONE = DocumentDone(document_id="a", outcome=IngestOutcome.CREATED)
PROGRESS = DocumentProgress(document_id="a", stage=IngestStage.RECEIVED)


async def in_order(*documents):
    for each in documents:
        if isinstance(each, Exception):
            raise each
        yield each


async def full_outbox():
    outbox = Outbox()
    for _ in range(WAITING_EVENT_COUNT):
        await outbox.put(DONE)
    return outbox


async def read_all(outbox):
    outbox.end()
    events = []
    while (event := await outbox.get()) is not None:
        events.append(event)
    return events


async def test_a_result_waits_until_an_event_is_read():
    outbox = await full_outbox()
    waiting = asyncio.create_task(outbox.put(DONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.get()
    await waiting
    assert len(await read_all(outbox)) == WAITING_EVENT_COUNT


async def test_progress_never_waits_and_is_left_out_instead():
    outbox = await full_outbox()
    async with asyncio.timeout(30):
        await outbox.put(PROGRESS)
    assert PROGRESS not in await read_all(outbox)


async def test_progress_does_not_overtake_a_waiting_result():
    outbox = await full_outbox()
    waiting = asyncio.create_task(outbox.put(DONE))
    await asyncio.sleep(0)
    await outbox.get()
    await outbox.put(PROGRESS)
    await waiting
    assert PROGRESS not in await read_all(outbox)


async def test_the_next_version_of_a_document_waits_for_the_result_of_the_one_before():
    call = IngestCall(in_order(document("a", "old"), document("b"), document("a", "new")))
    for expected in ("a", "b"):
        assert (await call.receive()).document_id == expected
        call.begin(expected)
    waiting = asyncio.create_task(call.receive())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    call.end("b")
    await asyncio.sleep(0)
    assert not waiting.done()
    call.end("a")
    assert (await waiting).content == b"new"


@pytest.mark.parametrize("fault", [StreamProtocolViolation(expected="header", actual="content")])
async def test_after_a_fault_no_document_comes(fault):
    call = IngestCall(in_order(document("a"), fault, document("b")))
    received = [await call.receive() for _ in range(3)]
    assert [each and each.document_id for each in received] == ["a", None, None]
    assert call.fault is fault
