"""Whatever callers do in whatever order, one at a time has the lease, and only it stores."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from services.cache.core.failures import (
    COUNTED_LIMIT,
    Failure,
    FailureKind,
    KnownFailure,
    remembered_seconds,
)
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.leases import Lease
from services.cache.core.store_clock import StoreClock
from services.cache.lease_origins import new_nonce
from services.cache.lease_store import (
    MARK_BYTES,
    Fill,
    Held,
    LeaseStore,
    StoredValue,
    Unread,
)
from services.cache.ports import Script, Write
from services.common.clock import SystemClock
from tests.kit.redis import RedisServer

KEY = EntryKey(b"a" * 27)
LEASE_SECONDS = 100.0
TTL_MS = 60_000


class DirectLevel:
    """Runs scripts without anything in between."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def run(
        self, layer: Layer, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | int]
    ) -> object:
        return self._client.eval(script.source, len(keys), *keys, *arguments)


@dataclass
class Model:
    """What must be true of one entry."""

    value: bytes | None = None
    lease: str | None = None
    failure: Failure | None = None
    failure_count: int = 0
    tokens: list[str] = field(default_factory=list)


def machine_for(client: Redis) -> type[RuleBasedStateMachine]:
    runner = asyncio.Runner()

    class Protocol(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            client.flushall()
            clock = SystemClock()
            self.store = LeaseStore(
                DirectLevel(client),  # type: ignore[arg-type]  # does what is used of it
                store_clock=StoreClock(lambda: 0.0),
                clock=clock,
                origin=b"origin",
            )
            self.model = Model()

        def _token(self, index: int) -> str:
            tokens = self.model.tokens
            return tokens[index % len(tokens)] if tokens else "0000000000000000-invented"

        @rule(is_seen=st.booleans())
        def take(self, is_seen: bool) -> None:
            model = self.model
            mark = model.value[-MARK_BYTES:] if is_seen and model.value else b""
            answer = runner.run(
                self.store.take(KEY, new_nonce(), seconds=LEASE_SECONDS, unread=Unread(mark))
            )
            if model.value is not None and not mark:
                assert answer == StoredValue(model.value)
            elif model.failure is not None:
                assert isinstance(answer, KnownFailure)
                assert answer.failure == model.failure
                assert 0 < answer.remaining_seconds <= 300
            elif model.lease is not None:
                assert isinstance(answer, Held)
                assert answer.token == model.lease
                assert LEASE_SECONDS - 60 < answer.seconds <= LEASE_SECONDS
            else:
                assert isinstance(answer, Lease)
                assert all(answer.token > token for token in model.tokens)
                model.lease = answer.token
                model.tokens.append(answer.token)

        @rule(index=st.integers(0, 5), payload=st.binary(min_size=16, max_size=40))
        def fill(self, index: int, payload: bytes) -> None:
            token = self._token(index)
            filled = runner.run(self.store.fill(KEY, token, Write(KEY.value, payload, TTL_MS)))
            if token == self.model.lease:
                assert filled is Fill.KEPT
                self.model.value, self.model.lease = payload, None
                self.model.failure, self.model.failure_count = None, 0
            else:
                assert filled is Fill.LOST

        @rule(
            index=st.integers(0, 5),
            kind=st.none() | st.sampled_from(FailureKind),
            message=st.text(max_size=20),
            by_nonce=st.booleans(),
        )
        def release(
            self, index: int, kind: FailureKind | None, message: str, by_nonce: bool
        ) -> None:
            model, token = self.model, self._token(index)
            failure = None if kind is None else Failure(kind, message)
            named = token[16:] if by_nonce else token
            remembered = runner.run(self.store.release(KEY, named, failure))
            if token != model.lease:
                assert remembered is None
                return
            model.lease = None
            if failure is None:
                assert remembered == 0
                return
            seconds = remembered_seconds(failure.kind)
            if not seconds:
                # What is remembered replaces the count.
                model.failure_count = 1 if model.failure else model.failure_count + 1
                seconds = 10.0 if model.failure_count >= COUNTED_LIMIT else 0.0
            assert remembered == seconds
            if seconds:
                model.failure, model.failure_count = failure, 0
            else:
                model.failure = None

        @rule(index=st.integers(0, 5), restore=st.booleans())
        def extend(self, index: int, restore: bool) -> None:
            model, token = self.model, self._token(index)
            held = runner.run(self.store.extend(KEY, token, LEASE_SECONDS, restore=restore))
            is_forgotten = model.lease is None and model.value is None
            assert held == (token == model.lease or (restore and is_forgotten))
            if held:
                model.lease = token

        @rule(index=st.integers(0, 5))
        def take_again(self, index: int) -> None:
            """One who holds a lease that the store may have forgotten asks."""
            model, token = self.model, self._token(index)
            if model.failure is not None or model.value is not None:
                return
            restored = Held(token, LEASE_SECONDS)
            answer = runner.run(
                self.store.take(
                    KEY, new_nonce(), seconds=LEASE_SECONDS, unread=Unread(), restored=restored
                )
            )
            assert isinstance(answer, Held)
            model.lease = model.lease or token
            assert answer.token == model.lease

        @rule()
        def expire_lease(self) -> None:
            client.delete(KEY.lease)
            self.model.lease = None

        @rule()
        def expire_value(self) -> None:
            client.delete(KEY.value)
            self.model.value = None

        @rule()
        def forget_failures(self) -> None:
            client.delete(KEY.failures)
            self.model.failure, self.model.failure_count = None, 0

        @invariant()
        def the_store_holds_what_the_model_says(self) -> None:
            model = self.model
            assert client.get(KEY.value) == model.value
            assert client.get(KEY.lease) == (model.lease.encode() if model.lease else None)
            for name in (KEY.value, KEY.lease, KEY.failures, KEY.stream):
                # Nothing is there for ever.
                assert client.pttl(name) != -1

        def teardown(self) -> None:
            client.flushall()

    return Protocol


@pytest.mark.timeout(120)
def test_the_lease_protocol_keeps_its_promises(redis_server: RedisServer) -> None:
    with Redis(port=redis_server.port, db=1) as client:
        run_state_machine_as_test(
            machine_for(client),
            settings=settings(
                max_examples=60,
                stateful_step_count=30,
                suppress_health_check=list(HealthCheck),
            ),
        )
