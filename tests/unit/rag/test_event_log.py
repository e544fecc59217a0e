import asyncio
from contextlib import aclosing

import pytest

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable
from services.rag.core.stream_errors import QueryEventsLost, QueryReaderReplaced
from services.rag.event_log import EVENT_BYTES, EventLog, Reader


def text(value):
    return pb.StreamQueryResponse(text_delta=value)


def log_of(*texts, limit_bytes=1_000_000, keeps=True, **options):
    log = EventLog("q", limit_bytes=limit_bytes, keeps=keeps, **options)
    for each in texts:
        log.append(text(each))
    return log


async def read(log, after=0):
    return [(event.sequence, event.text_delta) async for event in log.read(Reader(), after)]


async def test_events_are_numbered_from_one_without_gaps():
    log = log_of("a", "b", "c")
    log.finish()
    assert await read(log) == [(1, "a"), (2, "b"), (3, "c")]


async def test_reading_begins_after_any_event():
    log = log_of("a", "b", "c")
    log.finish()
    assert await read(log, 2) == [(3, "c")]
    assert await read(log, 3) == []


async def test_readers_get_events_as_they_come():
    log = log_of("a")
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read(log)) for _ in range(2)]
        await asyncio.sleep(0)
        log.append(text("b"))
        await asyncio.sleep(0)
        log.finish()
    assert all(each.result() == [(1, "a"), (2, "b")] for each in readers)


async def test_readers_end_in_what_the_log_was_finished_with():
    log = log_of("a")
    log.finish(PeerUnavailable("balancer", "gone"))
    events = log.read(Reader())
    assert (await anext(events)).text_delta == "a"
    with pytest.raises(PeerUnavailable):
        await anext(events)


async def test_beyond_the_limit_the_oldest_events_go():
    log = log_of(*"abcde", limit_bytes=2 * (EVENT_BYTES + 20))
    log.finish()
    assert log.size_bytes <= 2 * (EVENT_BYTES + 20)
    assert await read(log, 3) == [(4, "d"), (5, "e")]
    with pytest.raises(QueryEventsLost) as lost:
        await read(log)
    assert lost.value.metadata["first_sequence"] == "4"


async def test_one_event_is_kept_however_large():
    log = log_of("x" * 5000, limit_bytes=1000)
    log.finish()
    assert len(await read(log)) == 1


async def test_a_reader_who_is_too_slow_ends_and_the_writer_does_not_wait():
    log = log_of("a", limit_bytes=2 * (EVENT_BYTES + 20))
    async with aclosing(log.read(Reader())) as events:
        await anext(events)
        for each in "bcdef":
            log.append(text(each))
        with pytest.raises(QueryEventsLost):
            await anext(events)


async def test_what_was_read_is_not_kept_where_nobody_reads_it_again():
    log = log_of("a", "b", keeps=False)
    log.finish()
    assert len(await read(log)) == 2
    assert log.size_bytes == 0


async def test_a_reader_can_be_sent_away():
    log, reader = log_of("a"), Reader()
    async with aclosing(log.read(reader)) as events:
        await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        log.stop(reader, QueryReaderReplaced("q"))
        with pytest.raises(QueryReaderReplaced):
            await waiting


async def test_every_byte_that_is_told_of_as_come_is_told_of_as_gone():
    sizes = []
    log = log_of(*"abcdefgh", limit_bytes=3 * (EVENT_BYTES + 20), on_resized=sizes.append)
    assert sum(sizes) == log.size_bytes > 0
    log.close()
    log.append(text("late"))
    assert sum(sizes) == log.size_bytes == 0
