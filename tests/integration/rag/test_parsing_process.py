"""Work on documents in other processes, with real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from services.common.errors import ShuttingDown
from services.rag.adapters.document_worker import ProcessDocumentWorker
from services.rag.core.document_errors import DocumentBinary, DocumentEmpty, DocumentTooHard
from services.rag.core.parsing import parse_document

ROOT = Path(__file__).parents[3]
MEBIBYTE = 1024 * 1024


@pytest.fixture
async def worker() -> AsyncIterator[ProcessDocumentWorker]:
    async with ProcessDocumentWorker(
        process_count=1, time_limit_seconds=30, memory_limit_bytes=200 * MEBIBYTE
    ) as worker:
        yield worker


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children()}


async def test_results_and_errors_come_back_as_they_are(worker: ProcessDocumentWorker) -> None:
    content = "# Head\n\nwords \u00e9\n".encode()
    assert await worker.run(parse_document, content, heavy=True) == parse_document(content)
    assert await worker.run(parse_document, content, heavy=False) == parse_document(content)
    with pytest.raises(DocumentBinary) as caught:
        await worker.run(parse_document, b"a\0", heavy=True)
    assert caught.value.metadata == {"byte_offset": "1"}
    assert caught.value.message == str(caught.value)
    with pytest.raises(DocumentEmpty):
        await worker.run(parse_document, b" ", heavy=True)
    with pytest.raises(RuntimeError, match="invalid literal"):
        await worker.run(int, "x", heavy=True)


async def test_processes_start_when_they_are_needed_and_are_used_again(
    worker: ProcessDocumentWorker,
) -> None:
    before = children()
    await worker.run(os.getpid, heavy=False)
    assert children() == before
    first = await worker.run(os.getpid, heavy=True)
    assert first != os.getpid()
    assert await worker.run(os.getpid, heavy=True) == first


@pytest.mark.parametrize(
    ("function", "argument", "limit"),
    [(bytearray, 400 * MEBIBYTE, "memory_bytes"), (os._exit, 3, "process")],
)
async def test_what_takes_too_much_or_dies_fails_alone(
    worker: ProcessDocumentWorker, function, argument: int, limit: str
) -> None:
    with pytest.raises(DocumentTooHard) as caught:
        await worker.run(function, argument, heavy=True)
    assert caught.value.metadata["limit"] == limit
    assert await worker.run(len, b"next", heavy=True) == 4


async def test_work_that_takes_too_long_is_killed_with_its_process() -> None:
    before = children()
    async with ProcessDocumentWorker(
        process_count=1, time_limit_seconds=0.2, memory_limit_bytes=200 * MEBIBYTE
    ) as worker:
        with pytest.raises(DocumentTooHard) as caught:
            await worker.run(time.sleep, 600, heavy=True)
        assert caught.value.metadata == {"limit": "time_seconds", "allowed": "0.2"}
        assert children() == before


async def test_a_process_that_died_while_idle_costs_no_document(
    worker: ProcessDocumentWorker,
) -> None:
    pid = await worker.run(os.getpid, heavy=True)
    os.kill(pid, signal.SIGKILL)
    while psutil.pid_exists(pid):
        await asyncio.sleep(0.001)
    # A turn for the loop to hear of it.
    await asyncio.sleep(0.001)
    assert await worker.run(len, b"next", heavy=True) == 4


async def test_a_caller_that_leaves_ends_its_work(worker: ProcessDocumentWorker) -> None:
    before = children()
    task = asyncio.create_task(worker.run(time.sleep, 600, heavy=True))
    while children() == before:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before
    assert await worker.run(len, b"next", heavy=True) == 4


async def test_closing_ends_all_processes_and_what_runs_in_them() -> None:
    before = children()
    worker = ProcessDocumentWorker(
        process_count=2, time_limit_seconds=30, memory_limit_bytes=200 * MEBIBYTE
    )
    await worker.run(len, b"", heavy=True)
    task = asyncio.create_task(worker.run(time.sleep, 600, heavy=True))
    await asyncio.sleep(0)
    await worker.close()
    with pytest.raises(ShuttingDown):
        await task
    assert children() == before
    with pytest.raises(ShuttingDown):
        await worker.run(len, b"", heavy=True)


async def test_heavy_work_leaves_the_loop_free(worker: ProcessDocumentWorker) -> None:
    content = b"A sentence of a few words. Another one.\n\n" * 50_000
    await worker.run(len, b"", heavy=True)
    task = asyncio.create_task(worker.run(parse_document, content, heavy=True))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert task.result().text
    assert turns > 20


PARENT = """
import asyncio, signal, sys, time

# Ignored by what is started in the background, and by its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

from services.rag.adapters.document_worker import ProcessDocumentWorker

async def main():
    async with ProcessDocumentWorker(
        process_count=2, time_limit_seconds=60, memory_limit_bytes=2**28
    ) as worker:
        import os
        idle = await worker.run(os.getpid, heavy=True)
        print(idle, flush=True)
        await worker.run(time.sleep, 600, heavy=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_parent(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        os.killpg(parent.pid, ending)
        parent.wait(10)
        process.wait(10)
