"""What is sent for each thing a store can do, and following keys that have moved.

Nothing here bounds the time of a whole operation; its callers do.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError

from services.cache.adapters.redis_errors import NOT_THE_MASTER, failure_of
from services.cache.adapters.redis_node import Command, Node, Reply
from services.cache.adapters.redis_routes import Probe, Routes
from services.cache.adapters.redis_tasks import all_of
from services.cache.ports import Script, StoreFailure, StreamEntry, Write

__all__ = ["RedisCommands"]

T = TypeVar("T")

# Moved once while a cluster is re-arranged, and asked for elsewhere once.
_REDIRECTION_LIMIT = 3
# A page of a hash holds up the server for well under a millisecond.
_PAGE_FIELD_COUNT = 500


class RedisCommands:
    """The operations of a store, without limits of time.

    Args:
        routes: Which server to ask.
    """

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._digests: dict[str, str] = {}

    async def read(self, database: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Reads values, with one command for each server."""
        if self._routes.sharded:
            replies = await self._send_each(database, [("GET", key) for key in keys])
        else:
            replies = await self._send(database, keys[0], ("MGET", *keys))
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply
        return replies

    async def write(self, database: int, writes: Sequence[Write]) -> list[bool]:
        """Writes values; raises only where none was taken."""
        replies = await self._send_each(
            database, [("SET", write.key, write.data, "PX", write.ttl_ms) for write in writes]
        )
        # A server out of memory refuses some and takes others.
        if all(isinstance(reply, ResponseError) for reply in replies):
            raise replies[0]
        return [reply == b"OK" for reply in replies]

    async def run(
        self,
        database: int,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
    ) -> Reply:
        """Runs a script, by its digest where the server knows it."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await self._send(database, keys[0], ("EVALSHA", self._digest(script), *rest))
        except NoScriptError:
            # A server that was restarted or has taken over knows none.
            return await self._send(database, keys[0], ("EVAL", script.source, *rest))

    async def read_map(
        self, database: int, key: bytes, *, on_page: Callable[[], None]
    ) -> dict[bytes, bytes]:
        """Reads a hash page by page.

        Args:
            database: Number of the database.
            key: The hash.
            on_page: Is called after each page.
        """

        async def read_pages(node: Node, asking: bool) -> dict[bytes, bytes]:  # noqa: FBT001
            fields: dict[bytes, bytes] = {}
            cursor = b"0"
            while True:
                command = ("HSCAN", key, cursor, "COUNT", _PAGE_FIELD_COUNT)
                cursor, page = await self._exchange_one(node, command, asking=asking)
                fields.update(zip(page[::2], page[1::2], strict=True))
                on_page()
                if cursor == b"0":
                    return fields

        return await self._at(database, key, read_pages)

    async def read_stream(
        self, database: int, key: bytes, after_id: bytes, *, wait_seconds: float, limit: int
    ) -> list[StreamEntry]:
        """Reads a stream, or waits for it; finding out where it is kept is part of the wait."""
        ends_at = asyncio.get_running_loop().time() + wait_seconds

        def command(seconds: float) -> Command:
            # 0 would wait for ever.
            waiting = ("BLOCK", max(1, int(seconds * 1000))) if seconds > 0 else ()
            return ("XREAD", "COUNT", limit, *waiting, "STREAMS", key, after_id)

        async def read_entries(node: Node, asking: bool) -> Reply:  # noqa: FBT001
            if asking or wait_seconds <= 0:
                return await self._exchange_one(node, command(0.0), asking=asking)
            try:
                reply = await node.wait_for(command, ends_at=ends_at)
            except Exception:
                self._routes.doubt(node)
                raise
            return self._accepted(node, reply)

        reply = await self._at(database, key, read_entries)
        if reply is None:
            return []
        ((_, entries),) = reply
        return [
            StreamEntry(entry_id, dict(zip(fields[::2], fields[1::2], strict=True)))
            for entry_id, fields in entries
            if fields is not None
        ]

    async def check(self) -> None:
        """Reads a key of every server and database."""
        await all_of(self._check(probe) for probe in await self._routes.probes())

    async def _check(self, probe: Probe) -> None:
        try:
            await self._exchange_one(probe.node, ("GET", probe.key), asking=False)
        except AskError as error:
            # It answers, and tells what has changed.
            self._redirect(probe.key, probe.node, error)

    def _digest(self, script: Script) -> str:
        digest = self._digests.get(script.source)
        if digest is None:
            # What the server names scripts by; no secret hangs on it.
            digest = hashlib.sha1(script.source.encode(), usedforsecurity=False).hexdigest()
            self._digests[script.source] = digest
        return digest

    async def _send(self, database: int, key: bytes, command: Command) -> Reply:
        """Sends a command to where its key is kept, and returns the reply or raises it."""
        return await self._at(
            database,
            key,
            lambda node, asking: self._exchange_one(node, command, asking=asking),
        )

    async def _send_each(self, database: int, commands: Sequence[Command]) -> list[Reply]:
        """Sends commands of one key each, all those for the same server in one go.

        Returns:
            One reply per command, in order; errors among them.
        """
        places: dict[Node, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(await self._routes.node(database, _key(command)), []).append(place)
        replies: list[Reply] = [None] * len(commands)
        groups = await all_of(
            self._exchange(node, [commands[place] for place in of_node])
            for node, of_node in places.items()
        )
        for (node, of_node), group in zip(places.items(), groups, strict=True):
            for place, reply in zip(of_node, group, strict=True):
                replies[place] = reply
                if isinstance(reply, AskError):
                    self._redirect(_key(commands[place]), node, reply)
                    replies[place] = await self._send(
                        database, _key(commands[place]), commands[place]
                    )
        return replies

    async def _at(
        self, database: int, key: bytes, operation: Callable[[Node, bool], Awaitable[T]]
    ) -> T:
        """Does something at the server that keeps a key, and anew where it turns out to be another.

        Args:
            database: Number of the database.
            key: The key.
            operation: Is told the server, and whether the key is on its way there.
        """
        node, asking = await self._routes.node(database, key), False
        for _ in range(_REDIRECTION_LIMIT):
            try:
                return await operation(node, asking)
            except AskError as error:
                node, asking = self._redirect(key, node, error), not isinstance(error, MovedError)
        raise StoreFailure("sent from node to node")

    def _redirect(self, key: bytes, node: Node, error: AskError) -> Node:
        # A server that does not know its own name means itself.
        host = error.host or node.place[0]
        for_good = isinstance(error, MovedError)
        return self._routes.moved(key, (host, int(error.port)), for_good=for_good)

    async def _exchange_one(self, node: Node, command: Command, *, asking: bool) -> Reply:
        (reply,) = await self._exchange(node, [command], asking=asking)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def _exchange(
        self, node: Node, commands: Sequence[Command], *, asking: bool = False
    ) -> list[Reply]:
        try:
            replies = await node.exchange(commands, asking=asking)
        except Exception:
            self._routes.doubt(node)
            raise
        for reply in replies:
            if isinstance(reply, ResponseError):
                self._heed(node, reply)
        return replies

    def _accepted(self, node: Node, reply: Reply) -> Reply:
        if isinstance(reply, ResponseError):
            self._heed(node, reply)
            raise reply
        return reply

    def _heed(self, node: Node, error: ResponseError) -> None:
        """Looks for another server where this one says that it is not the one to ask."""
        if failure_of(error).cause in NOT_THE_MASTER:
            self._routes.doubt(node)


def _key(command: Command) -> bytes:
    return cast("bytes", command[1])
