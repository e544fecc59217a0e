"""The notes of invalidations in the shared store, and its time along with them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from services.cache.core.epochs import RETENTION_MS, EpochTable, parse_table
from services.cache.core.layers import Layer
from services.cache.core.store_clock import StoreClock
from services.cache.core.tags import threshold_field
from services.cache.epoch_scripts import BUMP, CHANNEL, READ, SET_THRESHOLD, epochs_key
from services.cache.ports import Script, StoreFailure
from services.cache.shared_level import SharedLevel
from services.common.clock import Clock

__all__ = ["Change", "EpochStore"]

_logger = logging.getLogger(__name__)

# The notes live where answers live; embeddings and chunks follow them as well.
_LAYER = Layer.INFERENCE

_CLEARING_INTERVAL_MS = 86_400_000
# Seconds and microseconds of the store's clock, which each reply begins with.
_TIME_PARTS = 2


@dataclass(frozen=True, slots=True)
class Change:
    """What a change of a tenant's notes came to.

    Attributes:
        before: Version of the notes before it.
        version: Version after it; for invalidations also their time by the store's clock,
            milliseconds since the Unix epoch.
        previous: What the fields held before; `b"0"` or empty for nothing.
    """

    before: int
    version: int
    previous: tuple[bytes, ...]


class EpochStore:
    """Reads and changes the notes of tenants.

    Args:
        shared: Where they are.
        store_clock: Is told the store's time with each reply.
        clock: Time.
        clock_tolerance_ms: How far the clocks of the store's servers may differ.

    Attributes:
        contact_at: When the store last replied, or else this was made; seconds on the monotonic
            clock.
    """

    def __init__(
        self,
        shared: SharedLevel,
        *,
        store_clock: StoreClock,
        clock: Clock,
        clock_tolerance_ms: int,
    ) -> None:
        self._shared = shared
        self._store_clock = store_clock
        self._clock = clock
        self._clock_tolerance_ms = clock_tolerance_ms
        self.contact_at = clock.monotonic()

    async def read(self, tenant_id: str, version: int) -> EpochTable | None:
        """Reads a tenant's notes; makes the first one where there is none, or only older ones.

        Args:
            tenant_id: The tenant.
            version: The version known; 0 for none.

        Returns:
            The notes; None where they are still of that version.

        Raises:
            StoreFailure: The store is away, too slow or refuses, or what it holds are no notes.
        """
        reply = await self._run(tenant_id, READ, version)
        if len(reply) == _TIME_PARTS:
            return None
        try:
            table = parse_table(cast("list[bytes]", reply[_TIME_PARTS]))
        except ValueError as error:
            _logger.exception("notes of invalidations cannot be read")
            raise StoreFailure("notes of an unknown form") from error
        table.age(self._store_clock.now_ms(self._clock.monotonic()))
        return table

    async def bump(self, tenant_id: str, fields: Sequence[str], version: int) -> Change:
        """Notes an invalidation.

        Args:
            tenant_id: Whose values.
            fields: What it applies to, at least one.
            version: The version known; 0 for none.

        Raises:
            StoreFailure: The store is away, too slow or refuses; whether it was noted is not known.
        """
        names = [field.encode() for field in fields]
        periods = [RETENTION_MS, _CLEARING_INTERVAL_MS]
        return await self._change(tenant_id, BUMP, version, [*periods, *names])

    async def set_threshold(
        self, tenant_id: str, namespace: str, threshold: float | None, version: int
    ) -> Change:
        """Notes the least similarity of a namespace.

        Args:
            tenant_id: Whose namespace.
            namespace: The namespace.
            threshold: The similarity; None for none.
            version: The version known; 0 for none.

        Raises:
            StoreFailure: The store is away, too slow or refuses; whether it was noted is not known.
        """
        field = threshold_field(namespace).encode()
        value = b"" if threshold is None else repr(threshold).encode()
        return await self._change(tenant_id, SET_THRESHOLD, version, [field, value])

    async def _change(
        self, tenant_id: str, script: Script, known: int, arguments: Sequence[bytes | int]
    ) -> Change:
        reply = cast("list[bytes]", await self._run(tenant_id, script, known, arguments))
        before, version, *previous = reply[_TIME_PARTS:]
        return Change(int(before), int(version), tuple(previous))

    async def _run(
        self, tenant_id: str, script: Script, known: int, arguments: Sequence[bytes | int] = ()
    ) -> list[object]:
        common: list[bytes | int] = [tenant_id.encode(), CHANNEL, self._clock_tolerance_ms, known]
        sent_at = self._clock.monotonic()
        reply = await self._shared.run(
            _LAYER, script, [epochs_key(tenant_id)], [*common, *arguments]
        )
        answer = cast("list[object]", reply)
        seconds, microseconds = (int(cast("bytes", part)) for part in answer[:_TIME_PARTS])
        self.contact_at = self._clock.monotonic()
        self._store_clock.note(
            seconds * 1000 + microseconds / 1000, sent_at=sent_at, received_at=self.contact_at
        )
        return answer
