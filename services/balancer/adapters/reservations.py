"""The replicas' meeting place in Redis or Valkey: EVALSHA, PING and a subscription.

Commands are never cancelled: the client library at times swallows a cancellation. A call that is
given up leaves its command to end by the library's own time-outs; should the server run it after
all, the number of its session shows that it is too old.
"""

import asyncio
import hashlib
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from services.balancer.adapters.reservation_script import SCRIPT
from services.balancer.core.share_ledger import Change, Holding, Occupant, Snapshot
from services.balancer.core.shares import Resource
from services.balancer.share_slots import SharedReservations, share_slots
from services.balancer.share_store import Answer, Attempt, SharingPolicy, StoreLost
from services.common.clock import Clock

__all__ = ["TIMEOUT_SECONDS", "RedisReservations", "open_reservations"]

T = TypeVar("T")

TIMEOUT_SECONDS = 0.25
"""Longer than a server hangs that forks or waits for its disk: each loss costs the patience of
`SharingPolicy`, in which nothing is taken. Shorter than its silence."""

_SCRIPT_HASH = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_NAME = "pannier:balancer:slots"
_FIELD_PREFIX = "slots "
# Commands that were given up hold their connections for a little longer.
_CONNECTION_LIMIT = 16
# The library's time-outs are a second line: they cannot tell a late reply from a late event loop.
_BACKSTOP_RATIO = 2.5
_LATE_LOOP_SECONDS = 0.02
# A subscription is silent for hours; that its server is gone must show all the same.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 5,
    socket.TCP_KEEPINTVL: 2,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 10_000,
}


class RedisReservations:
    """One hash and one channel of a Redis server.

    Args:
        url: The server, with or without a database.
        replica_id: Name of this replica, hexadecimal.
        policy: Lease, silence and settling time.
        timeout_seconds: Longest time for a call.
        connect_timeout_seconds: Longest time for making a connection.
        name: Name of the hash, one for each fleet; also of the channel, which all databases share.
    """

    def __init__(
        self,
        url: str,
        *,
        replica_id: str,
        policy: SharingPolicy,
        timeout_seconds: float = TIMEOUT_SECONDS,
        connect_timeout_seconds: float = TIMEOUT_SECONDS,
        name: str = _NAME,
    ) -> None:
        self._replica_id = replica_id
        self._timeout_seconds = timeout_seconds
        self._name = name
        self._terms = {
            "replica": replica_id,
            "lease_ms": round(policy.lease_seconds * 1000),
            "settle_ms": round(policy.settle_seconds * 1000),
            "silence_ms": round(policy.silence_seconds * 1000),
        }
        self._confirmed_at = 0
        options: dict[str, Any] = {
            "socket_connect_timeout": connect_timeout_seconds,
            # The library's own default tries again, with growing pauses.
            "retry": Retry(NoBackoff(), 0),
            # RESP2 and no introduction: a new connection costs at most one round trip.
            "protocol": 2,
            "driver_info": None,
        }
        self._client: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_seconds * _BACKSTOP_RATIO,
            max_connections=_CONNECTION_LIMIT,
            **options,
        )
        self._subscriber: Redis = Redis.from_url(
            url,
            socket_timeout=None,
            socket_keepalive=True,
            socket_keepalive_options=_KEEPALIVE,
            **options,
        )
        self._under_way: set[asyncio.Task[Any]] = set()

    async def check(self) -> None:
        """Pings the server."""
        await self._ask(self._client.ping())

    async def register(
        self, session: int, holdings: Sequence[Holding], *, away: bool
    ) -> Answer | None:
        """Replaces all that the server knows; see `ReservationStore.register`."""
        return await self._run(
            session,
            holdings=[[_field(each.resource), each.slot, quote(each.note)] for each in holdings],
            away=away,
            seen_version=-1,
        )

    async def exchange(
        self,
        session: int,
        released: Sequence[Holding],
        attempts: Sequence[Attempt],
        *,
        seen_version: int | None,
    ) -> Answer | None:
        """Gives back and takes; see `ReservationStore.exchange`."""
        version = {} if seen_version is None else {"seen_version": seen_version}
        return await self._run(
            session,
            released=[[_field(each.resource), each.slot] for each in released],
            attempts=[
                [_field(each.resource), each.slots, each.candidates, quote(each.note)]
                for each in attempts
            ],
            **version,
        )

    async def leave(self, session: int) -> None:
        """Takes this replica out of the server."""
        await self._run(session, leaving=True)

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yields what is published."""
        try:
            async with self._subscriber.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(self._name)
                async for message in subscription.listen():
                    yield _change(message["data"])
        except Exception as error:
            raise StoreLost(f"subscription ended: {type(error).__name__}") from error

    async def close(self) -> None:
        """Waits for commands under way, which is short, and ends all connections."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._client.aclose()
        await self._subscriber.aclose()

    async def _run(self, session: int, **call: Any) -> Answer | None:
        payload = {
            **self._terms,
            "session": session,
            "confirmed_at": self._confirmed_at,
            "released": [],
            "attempts": [],
            **call,
        }
        fields = orjson.loads(await self._ask(self._evaluate(orjson.dumps(payload))))
        if not fields["known"]:
            return None
        self._confirmed_at = fields["now"]
        return _answer(fields)

    async def _evaluate(self, payload: bytes) -> bytes:
        # The library's types allow for clients that decode; ours does not.
        arguments: tuple[Any, ...] = (1, self._name, self._name, payload)
        try:
            command = self._client.evalsha(_SCRIPT_HASH, *arguments)
            return await cast("Awaitable[bytes]", command)
        except NoScriptError:
            return await cast("Awaitable[bytes]", self._client.eval(SCRIPT, *arguments))

    async def _ask(self, command: Awaitable[T]) -> T:
        task = asyncio.ensure_future(command)
        self._under_way.add(task)
        task.add_done_callback(self._end)
        for patience in (self._timeout_seconds, _LATE_LOOP_SECONDS):
            await asyncio.wait({task}, timeout=patience)
            if task.done():
                break
        else:
            raise StoreLost("no answer in time")
        try:
            return task.result()
        except Exception as error:
            # Not the library's errors only: a connection that breaks at the wrong moment shows as
            # a RuntimeError of the event loop.
            raise StoreLost(f"refused: {type(error).__name__}") from error

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # The caller has seen it, or has stopped waiting for it.
            task.exception()


@asynccontextmanager
async def open_reservations(
    url: str,
    *,
    clock: Clock,
    replica_id: str | None = None,
    policy: SharingPolicy | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    connect_timeout_seconds: float = TIMEOUT_SECONDS,
    name: str = _NAME,
) -> AsyncIterator[SharedReservations]:
    """Shares the slots of the fleet through a Redis server while the context is open.

    Opens whether the server answers or not, after one attempt to reach it.

    Args:
        url: The server, with or without a database.
        clock: Time.
        replica_id: Name of this replica, hexadecimal, that no other has had; by default random.
        policy: The times of the conversation with the server.
        timeout_seconds: Longest time for a call.
        connect_timeout_seconds: Longest time for making a connection.
        name: Name of what the replicas share, one for each fleet on the server.
    """
    replica_id = replica_id or secrets.token_hex(8)
    policy = policy or SharingPolicy()
    store = RedisReservations(
        url,
        replica_id=replica_id,
        policy=policy,
        timeout_seconds=timeout_seconds,
        connect_timeout_seconds=connect_timeout_seconds,
        name=name,
    )
    async with share_slots(
        store, replica_id=replica_id, clock=clock, policy=policy
    ) as reservations:
        yield reservations


def _field(resource: Resource) -> str:
    return f"{_FIELD_PREFIX}{resource.backend_id}\n{resource.model}"


def _resource(field: str) -> Resource:
    backend_id, _, model = field.removeprefix(_FIELD_PREFIX).partition("\n")
    return Resource(backend_id, model)


def _occupants(value: str) -> tuple[Occupant, ...]:
    entries = (entry.split(":") for entry in value.split(",") if entry)
    return tuple(Occupant(int(slot), replica, unquote(note)) for slot, replica, note in entries)


def _change(data: bytes) -> Change:
    version, *rest = orjson.loads(data)
    if not rest:
        return Change(version=version, resource=None)
    field, value = rest
    return Change(version=version, resource=_resource(field), occupants=_occupants(value))


def _answer(fields: dict[str, Any]) -> Answer:
    # The server's JSON writes an empty list as an empty object, which is as empty.
    granted = tuple(None if slot < 0 else slot for slot in fields.get("granted", ()))
    snapshot = None
    if "version" in fields:
        snapshot = Snapshot(
            version=fields["version"],
            replica_ids=tuple(sorted(fields["replicas"])),
            occupants={_resource(field): _occupants(value) for field, value in fields["slots"]},
        )
    return Answer(
        settling=fields["settling"],
        silent=frozenset(fields["silent"]),
        granted=granted,
        occupants=tuple(_occupants(value) for value in fields.get("values", ())),
        snapshot=snapshot,
    )
