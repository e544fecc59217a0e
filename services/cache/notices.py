"""The one subscription of the process to what other replicas have to say.

A notice may get lost: while the connection is down, nobody keeps it. So whoever relies on notices
is told of every gap, and looks for itself.
"""

import logging
from collections.abc import Callable

from services.cache.ports import Notice, SharedStore, StoreFailure
from services.common.clock import Clock

__all__ = ["GapHandler", "NoticeHandler", "Notices"]

NoticeHandler = Callable[[bytes], None]
"""Takes what was sent; quick, and never waits."""

GapHandler = Callable[[], None]
"""Is told that notices may have been missed; quick, and never waits."""

_logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


class Notices:
    """Passes notices on to those who asked for them.

    Args:
        store: Where they come from.
        clock: Time.
    """

    def __init__(self, store: SharedStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._handlers: dict[bytes, list[NoticeHandler]] = {}
        self._gap_handlers: list[GapHandler] = []
        self._connected = False

    @property
    def connected(self) -> bool:
        """Whether notices arrive at present."""
        return self._connected

    def on(self, channel: bytes, handler: NoticeHandler) -> None:
        """Asks for the notices of a channel; before `run` is started.

        Args:
            channel: Where they are sent.
            handler: Is handed each.
        """
        self._handlers.setdefault(channel, []).append(handler)

    def on_gap(self, handler: GapHandler) -> None:
        """Asks to be told of gaps; before `run` is started.

        Args:
            handler: Is called after every connection, the first included.
        """
        self._gap_handlers.append(handler)

    async def run(self) -> None:
        """Listens, and connects again for ever; never returns."""
        pause_seconds = _SHORTEST_PAUSE_SECONDS
        while True:
            started = self._clock.monotonic()
            try:
                await self._listen()
            except StoreFailure as failure:
                _logger.debug("notices are not received", extra={"cause": failure.cause})
            finally:
                self._connected = False
            # A connection that stood for a while was a good one; what broke it is news.
            lasting = self._clock.monotonic() - started >= _LONGEST_PAUSE_SECONDS
            pause_seconds = _SHORTEST_PAUSE_SECONDS if lasting else pause_seconds
            await self._clock.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    async def _listen(self) -> None:
        async with self._store.listen(list(self._handlers)) as notices:
            self._connected = True
            for tell in self._gap_handlers:
                _guarded(tell)
            async for notice in notices:
                self._pass_on(notice)

    def _pass_on(self, notice: Notice) -> None:
        for handle in self._handlers.get(notice.channel, ()):
            _guarded(handle, notice.payload)


def _guarded(handle: Callable[..., None], *arguments: bytes) -> None:
    """One handler's mistake costs nobody else the notice, nor the process its subscription."""
    try:
        handle(*arguments)
    except Exception:
        _logger.exception("a notice was not taken")
