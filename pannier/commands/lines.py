"""Lines of standard input, for a program that does other things while it waits for them."""

import asyncio
import codecs
import os
import threading
from collections.abc import Iterator
from typing import TextIO

__all__ = ["read_lines"]

_PIECE_BYTES = 64 * 1024


def read_lines(stream: TextIO) -> asyncio.Queue[str | None]:
    """Begins to read a stream, and returns the queue that gets its lines and then None.

    The thread that reads does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        try:
            for line in _lines_of(stream):
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)
        except RuntimeError:
            # The loop is closed: nobody waits for lines any more.
            return

    threading.Thread(target=read, name="lines", daemon=True).start()
    return lines


def _lines_of(stream: TextIO) -> Iterator[str]:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        yield from stream
        return
    # Reading through the stream would hold its lock, without which the interpreter cannot end.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    while piece := os.read(descriptor, _PIECE_BYTES):
        *whole, rest = (rest + decoder.decode(piece)).split("\n")
        yield from whole
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest
