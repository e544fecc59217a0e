import asyncio
import logging

from services.common.tasks import in_background


async def test_loops_are_cancelled_and_waited_for_at_the_end():
    ended = []

    async def run(name):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with in_background(run("a"), run("b")):
        await asyncio.sleep(0)
        assert ended == []
    assert sorted(ended) == ["a", "b"]


async def test_a_loop_that_fails_is_logged_when_it_happens(caplog):
    async def fail():
        raise ValueError("broken")

    failed = asyncio.Event()
    with caplog.at_level(logging.ERROR):
        async with in_background(fail()):
            asyncio.get_running_loop().call_later(0.01, failed.set)
            await failed.wait()
            (record,) = caplog.records
            assert record.exc_info[1].args == ("broken",)
            assert record.loop.endswith("fail")


async def test_the_end_of_the_context_is_no_failure(caplog):
    async with in_background(asyncio.Event().wait()):
        pass
    assert caplog.records == []


async def test_no_loops_at_all_are_fine():
    async with in_background():
        pass
