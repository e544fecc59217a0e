"""A command that runs on a terminal.

with running_on_terminal("top", "--once", rows=24, columns=80) as terminal:
    terminal.wait_for("backend")
    terminal.press("q")
    assert terminal.wait_for_end() == 0
"""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["Terminal", "running_on_terminal"]

_WAIT_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal and what runs on it.

    Attributes:
        process: What runs.
        before: How the terminal was set when it began.
        shown: All that it has written.
    """

    def __init__(
        self, master: int, child: int, process: subprocess.Popen[bytes], before: list[object]
    ) -> None:
        self.process = process
        self.before = before
        self.shown = ""
        self._master, self._child = master, child
        self._seen = 0

    @property
    def settings(self) -> list[object]:
        """How the terminal is set now."""
        return termios.tcgetattr(self._child)

    @property
    def lines(self) -> list[str]:
        """What has been written, line by line, without what moves the cursor or colours."""
        return _CONTROL.sub("", self.shown).replace("\r", "\n").split("\n")

    def wait_for(self, text: str) -> None:
        """Waits until something is shown, after what was waited for before.

        Raises:
            AssertionError: It is not for long.
        """
        ends = time.monotonic() + _WAIT_SECONDS
        while (at := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < ends, self.shown[-3000:]
            self._read()
        self._seen = at + len(text)

    def wait_for_end(self) -> int:
        """Waits until the process has ended, and returns its exit status."""
        ends = time.monotonic() + _WAIT_SECONDS
        # Output is read on: a full terminal would hold the process up.
        while self.process.poll() is None:
            assert time.monotonic() < ends, self.shown[-3000:]
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def press(self, key: str) -> None:
        """Presses a key."""
        os.write(self._master, key.encode())

    def _read(self) -> bool:
        """Reads what is there, or soon is; returns whether there was anything."""
        if not select.select([self._master], [], [], _LOOK_SECONDS)[0]:
            return False
        self.shown += os.read(self._master, 65536).decode(errors="replace")
        return True


@contextmanager
def running_on_terminal(
    *arguments: str, rows: int, columns: int, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Runs `pannier` on a terminal while the context is open.

    Args:
        arguments: Its command line.
        rows: Lines of the terminal.
        columns: Characters of a line.
        environment: Variables of the process that differ.
    """
    master, child = pty.openpty()
    try:
        termios.tcsetwinsize(child, (rows, columns))
        before = termios.tcgetattr(child)
        variables = {**os.environ, "TERM": "xterm", **(environment or {})}
        # Rich would believe these more than the terminal.
        for name in ("COLUMNS", "LINES"):
            variables.pop(name, None)
        with subprocess.Popen(
            [sys.executable, "-m", "pannier.commands.main", *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            env=variables,
        ) as process:
            try:
                yield Terminal(master, child, process, before)
            finally:
                process.kill()
    finally:
        os.close(master)
        os.close(child)
