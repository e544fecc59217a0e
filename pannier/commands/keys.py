"""Keys of a terminal, as they are pressed."""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["pressed_keys"]

_PIECE_BYTES = 64


@contextmanager
def pressed_keys(press: Callable[[str], None]) -> Iterator[bool]:
    """Hands over each key while the context is open; the terminal is as before in the end.

    Args:
        press: Receives a character, in the event loop.

    Yields:
        Whether standard input is a terminal; else nothing is read.
    """
    if not sys.stdin.isatty():
        yield False
        return
    descriptor = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        piece = os.read(descriptor, _PIECE_BYTES)
        if not piece:
            # The terminal is gone; asked again it would say so again at once.
            loop.remove_reader(descriptor)
        for each in piece.decode(errors="ignore"):
            press(each)

    try:
        # Ctrl-C goes on to be a signal.
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, read)
        yield True
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
