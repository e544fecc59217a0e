"""What waits between a backend and a caller."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.requests import (
    Completed,
    Completion,
    FinishReason,
    LogprobsDelta,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    ToolCallsDelta,
)
from services.balancer.event_buffer import EventBuffer

COMPLETED = Completed(
    completion=Completion(
        finish_reason=FinishReason.STOP,
        prompt_token_count=1,
        output_token_count=1,
        load_seconds=0.0,
        prompt_seconds=0.0,
        output_seconds=0.0,
    ),
    total_seconds=1.0,
    first_token_seconds=1.0,
    queue_seconds=0.0,
)
CALLS = ToolCallsDelta((ToolCall(name="f", arguments_json="{}"),))
LOGPROB = TokenLogprob(token="a", logprob=-1.0, token_bytes=b"a")


async def drain(buffer):
    return [event async for event in buffer]


async def fill(buffer, *events):
    for event in events:
        await buffer.put(event)
    buffer.end()


async def settle():
    """Lets every task run until it has nothing left to do."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_texts_that_wait_together_leave_as_one():
    buffer = EventBuffer()
    await fill(buffer, *map(TextDelta, "abc"), *map(ThinkingDelta, "de"), TextDelta("f"))
    assert await drain(buffer) == [TextDelta("abc"), ThinkingDelta("de"), TextDelta("f")]


async def test_what_is_no_text_keeps_its_place():
    buffer = EventBuffer()
    events = [TextDelta("a"), CALLS, TextDelta("b"), LogprobsDelta((LOGPROB,)), COMPLETED]
    await fill(buffer, *events)
    assert await drain(buffer) == events


async def test_a_reader_who_keeps_up_gets_each_text_by_itself():
    buffer = EventBuffer()
    seen = []

    async def reader():
        async for event in buffer:
            seen.append(event)

    async with asyncio.TaskGroup() as group:
        group.create_task(reader())
        for letter in "abc":
            await buffer.put(TextDelta(letter))
            await settle()
        buffer.end()
    assert seen == [TextDelta("a"), TextDelta("b"), TextDelta("c")]


async def test_an_end_without_anything_ends_the_reader():
    buffer = EventBuffer()
    reader = asyncio.create_task(drain(buffer))
    await settle()
    buffer.end()
    assert await reader == []


@pytest.mark.parametrize(
    "event",
    [
        TextDelta("x" * 11),
        ThinkingDelta("x" * 11),
        ToolCallsDelta((ToolCall(name="f", arguments_json='{"a":"bcde"}'),)),
        LogprobsDelta((LOGPROB,)),
    ],
)
async def test_the_writer_waits_while_too_much_is_held_whatever_it_is(event):
    buffer = EventBuffer(limit_characters=10)
    await buffer.put(event)
    writer = asyncio.create_task(buffer.put(event))
    await settle()
    assert not writer.done()
    assert await anext(aiter(buffer)) == event
    await writer


async def test_the_end_of_an_answer_waits_for_nobody():
    buffer = EventBuffer(limit_characters=1)
    await buffer.put(TextDelta("xx"))
    # Else the slot would be given back, but the answer never told from one that broke off.
    await fill(buffer, COMPLETED)
    assert await drain(buffer) == [TextDelta("xx"), COMPLETED]


async def test_a_caller_who_reads_nothing_is_given_up():
    buffer = EventBuffer(limit_characters=1, patience_seconds=0.01)
    await buffer.put(TextDelta("xx"))
    with pytest.raises(TimeoutError):
        await buffer.put(TextDelta("x"))
    buffer.end()
    assert await drain(buffer) == [TextDelta("xx")]


async def test_a_writer_that_is_cancelled_leaves_what_was_written():
    buffer = EventBuffer(limit_characters=1)
    await buffer.put(TextDelta("xx"))
    writer = asyncio.create_task(buffer.put(TextDelta("y")))
    await settle()
    writer.cancel()
    await asyncio.wait([writer])
    buffer.end()
    assert await drain(buffer) == [TextDelta("xx")]


DELTAS = st.one_of(
    st.text("ab", min_size=1, max_size=6).map(TextDelta),
    st.text("cd", min_size=1, max_size=6).map(ThinkingDelta),
    st.just(CALLS),
)


@given(
    events=st.lists(DELTAS, max_size=40),
    limit=st.integers(1, 20),
    pauses=st.lists(st.integers(0, 3), min_size=1, max_size=20),
)
def test_nothing_is_lost_repeated_or_out_of_order_and_memory_stays_bounded(events, limit, pauses):
    seen, held, most = [], 0, 0

    async def reader(buffer):
        nonlocal held
        number = 0
        async for event in buffer:
            held -= weight(event)
            seen.append(event)
            number += 1
            for _ in range(pauses[number % len(pauses)]):
                await asyncio.sleep(0)

    async def run():
        nonlocal held, most
        buffer = EventBuffer(limit_characters=limit)
        async with asyncio.TaskGroup() as group:
            group.create_task(reader(buffer))
            for event in events:
                await buffer.put(event)
                held += weight(event)
                most = max(most, held)
            buffer.end()

    asyncio.run(run())
    assert flat(seen) == flat(events)
    # One more than the limit allows is taken before anybody has to wait.
    assert most <= limit + 6


def weight(event):
    return len(event.text) if isinstance(event, TextDelta | ThinkingDelta) else 2


def flat(events):
    return [
        letter
        for event in events
        for letter in (event.text if isinstance(event, TextDelta | ThinkingDelta) else [event])
    ]
