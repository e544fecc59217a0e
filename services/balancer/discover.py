"""Backends that are found rather than listed: in a file, or behind a host name."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from services.balancer.core.errors import BackendNotFound
from services.balancer.membership import Membership
from services.balancer.settings import Endpoint, parse_endpoint
from services.common.clock import Clock

__all__ = ["Discovery", "Resolver", "look_up"]

_logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 10.0
_FILE_INTERVAL_SECONDS = 1.0
_LOOKUP_LIMIT_SECONDS = 5.0
_GRACE_SECONDS = 60.0
# A name server may answer with some of many addresses, each time with others.
_NAME_MISSES = 3

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, IPv6 ones without brackets; raises OSError where it cannot."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """Asks the name servers of the operating system."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_LOOKUP_LIMIT_SECONDS):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(slots=True, kw_only=True)
class _Source:
    """What one source has named so far.

    Attributes:
        misses_allowed: How many times in a row a backend must be missing before it is let go.
        misses: By backend id, how many times in a row it was missing.
        taken_in: Backends that are in the fleet because of this source.
    """

    misses_allowed: int = 1
    misses: dict[str, int] = field(default_factory=dict)
    taken_in: set[str] = field(default_factory=set)


class Discovery:
    """Keeps the fleet in step with a file and a host name.

    What cannot be read or looked up, or is empty, changes nothing: a name server that fails is no
    reason to let go of a fleet that works. Only backends that came this way leave this way.

    Args:
        membership: Takes backends in and lets them go.
        clock: The time.
        path: File with one backend per line; empty for none.
        dns_name: Host name and port; empty for none.
        resolve: Looks the host name up.
        grace_seconds: How long requests under way may take on a backend that leaves.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        clock: Clock,
        path: str,
        dns_name: str,
        resolve: Resolver = look_up,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self._membership = membership
        self._clock = clock
        self._path = path
        self._dns_name = dns_name
        self._resolve = resolve
        self._grace_seconds = grace_seconds
        self._file = _Source()
        self._name = _Source(misses_allowed=_NAME_MISSES)
        self._stamp: tuple[int, ...] | None = None
        self._removals: dict[str, asyncio.Task[None]] = {}

    async def look(self) -> None:
        """Looks once at each source."""
        if self._path:
            await self.look_at_file()
        if self._dns_name:
            await self.look_up_name()

    async def run(self) -> None:
        """Looks again and again until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                if self._path:
                    group.create_task(self._repeat(self.look_at_file, _FILE_INTERVAL_SECONDS))
                if self._dns_name:
                    group.create_task(self._repeat(self.look_up_name, _INTERVAL_SECONDS))
                # Nothing to do is not the same as being done.
                await asyncio.Event().wait()
        finally:
            removals = list(self._removals.values())
            for removal in removals:
                removal.cancel()
            if removals:
                await asyncio.wait(removals)

    async def _repeat(self, look: Callable[[], Awaitable[None]], interval_seconds: float) -> None:
        while True:
            await self._clock.sleep(interval_seconds)
            await look()

    # The file.

    async def look_at_file(self) -> None:
        """Reads the file, if it has changed since it was last read."""
        stamp = await asyncio.to_thread(self._stamp_file)
        if stamp is None or stamp == self._stamp:
            return
        # Before it is read: what is written meanwhile shows at the next look.
        self._stamp = stamp
        endpoints, garbled = await asyncio.to_thread(self._read_file)
        await self._follow(self._file, endpoints, complete=not garbled)

    def _stamp_file(self) -> tuple[int, ...] | None:
        try:
            stat = Path(self._path).stat()
        except OSError as error:
            if self._stamp is not None:
                _logger.warning("backends file not found", extra={"failure": str(error)})
            self._stamp = None
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read_file(self) -> tuple[list[Endpoint], bool]:
        """Reads the backends, and whether there is anything that makes no sense."""
        try:
            lines = Path(self._path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            _logger.warning("backends file not read", extra={"failure": str(error)})
            return [], True
        endpoints, garbled = [], False
        for number, line in enumerate(lines, start=1):
            text = line.partition("#")[0].strip()
            if text:
                try:
                    endpoints.append(parse_endpoint(text))
                except ValueError as error:
                    garbled = True
                    extra = {"line": number, "failure": str(error)}
                    _logger.warning("line of the backends file skipped", extra=extra)
        return endpoints, garbled

    # The name.

    async def look_up_name(self) -> None:
        """Looks the host name up."""
        host, _, port = self._dns_name.rpartition(":")
        try:
            addresses = await self._resolve(host, int(port))
        except (OSError, ValueError) as error:
            _logger.warning(
                "backends not looked up", extra={"dns_name": self._dns_name, "failure": str(error)}
            )
            return
        endpoints = []
        for address in sorted(set(addresses)):
            bracketed = f"[{address}]" if ":" in address else address
            # One that is valid on one link only is followed by the link's name, unlike in URLs.
            if "%" not in address:
                endpoints.append(parse_endpoint(f"http://{bracketed}:{port}"))
        await self._follow(self._name, endpoints)

    # The fleet.

    async def _follow(
        self, source: _Source, endpoints: Sequence[Endpoint], *, complete: bool = True
    ) -> None:
        if not endpoints:
            return
        named = {each.backend_id: each for each in endpoints}
        async with asyncio.TaskGroup() as group:
            for endpoint in named.values():
                group.create_task(self._take_in(source, endpoint))
        if not complete:
            return
        for backend_id in source.misses.keys() - named.keys():
            source.misses[backend_id] += 1
            if source.misses[backend_id] >= source.misses_allowed:
                del source.misses[backend_id]
                self._let_go(source, backend_id)

    async def _take_in(self, source: _Source, endpoint: Endpoint) -> None:
        backend_id = endpoint.backend_id
        removal = self._removals.pop(backend_id, None)
        if removal is not None:
            # It is back before it was gone.
            removal.cancel()
            await asyncio.wait([removal])
            with suppress(BackendNotFound):
                self._membership.resume(backend_id)
                source.taken_in.add(backend_id)
        known = backend_id in source.misses and removal is None
        source.misses[backend_id] = 0
        if known or self._membership.has(backend_id):
            # Whoever took it in, or out, may have done so by order.
            return
        try:
            await self._membership.add(endpoint)
            source.taken_in.add(backend_id)
        except ValueError as error:
            del source.misses[backend_id]
            extra = {"backend": backend_id, "failure": str(error)}
            _logger.warning("backend not taken in", extra=extra)

    def _let_go(self, source: _Source, backend_id: str) -> None:
        if backend_id not in source.taken_in:
            return
        source.taken_in.remove(backend_id)
        other = self._name if source is self._file else self._file
        if backend_id in other.misses:
            other.taken_in.add(backend_id)
            return
        removal = asyncio.get_running_loop().create_task(self._remove(backend_id))
        self._removals[backend_id] = removal

    async def _remove(self, backend_id: str) -> None:
        # An operator may have been quicker.
        with suppress(BackendNotFound):
            await self._membership.remove(backend_id, self._grace_seconds)
        self._removals.pop(backend_id, None)
