"""Keeping values: locally at once, and in the shared store in a single round trip."""

from collections.abc import Sequence

from services.cache.core import frames
from services.cache.core.frames import MAXIMUM_PAYLOAD_BYTES, Frame
from services.cache.core.keys import EntryKey
from services.cache.core.layers import LAYER_RULES, Layer, shared_ttl_ms
from services.cache.core.local_level import LocalValue
from services.cache.core.model import Keeping, Kept, NewValue, Scope, WriteOutcome
from services.cache.levels import Levels
from services.cache.ports import Write

__all__ = ["AS_USUAL", "MAXIMUM_VALUE_BYTES", "keep", "prepare", "seal"]

MAXIMUM_VALUE_BYTES = MAXIMUM_PAYLOAD_BYTES
"""Larger values are not kept, and counted; their size is the data's doing and not the caller's
mistake, so that the call does not fail."""

AS_USUAL = Keeping()
"""How values are kept for callers without wishes."""


async def keep(
    levels: Levels,
    layer: Layer,
    values: Sequence[NewValue],
    *,
    scope: Scope,
    keeping: Keeping = AS_USUAL,
    delta_ms: int = 0,
) -> Kept:
    """Keeps values; a store that is away drops them, which is no error.

    Args:
        levels: Where to keep them.
        layer: Layer of all the values.
        values: What to keep, at least one; of several with the same key, the last one counts.
        scope: What all the values belong to.
        keeping: How to keep them.
        delta_ms: How long the computation took, milliseconds; 0 where that is not known.
    """
    up_to_date = await levels.epochs.ready(scope.tenant_id)
    now_ms = levels.store_now_ms()
    # Who dates his values ahead of time would make them proof against invalidation.
    created_ms = now_ms if keeping.basis_ms is None else min(keeping.basis_ms, now_ms)
    fitting = {
        value.key: value.payload for value in values if len(value.payload) <= MAXIMUM_VALUE_BYTES
    }
    asked = True
    outcomes = dict.fromkeys(fitting, WriteOutcome.INVALIDATED)
    if fitting and levels.epochs.is_valid(scope, created_ms, keeping.tags):
        writes = [
            prepare(
                levels,
                layer,
                key,
                payload,
                scope=scope,
                created_ms=created_ms,
                ttl_seconds=keeping.ttl_seconds,
                tags=keeping.tags,
                delta_ms=delta_ms,
            )
            for key, payload in fitting.items()
        ]
        taken = await levels.shared.write(layer, writes) if up_to_date else None
        asked = taken is not None
        outcomes = dict(zip(fitting, _outcomes(taken, len(writes)), strict=True))
    kept = Kept(
        tuple(
            outcomes[value.key]
            if len(value.payload) <= MAXIMUM_VALUE_BYTES
            else WriteOutcome.TOO_LARGE
            for value in values
        ),
        degraded=not asked or not levels.shared.available,
    )
    levels.recorder.wrote(layer, kept.outcomes)
    return kept


def prepare(
    levels: Levels,
    layer: Layer,
    key: EntryKey,
    payload: bytes,
    *,
    scope: Scope,
    created_ms: int,
    ttl_seconds: float | None = None,
    tags: tuple[str, ...] = (),
    delta_ms: int = 0,
) -> Write:
    """Keeps a value locally, if it counts now, and makes what is to stand in the shared store.

    Args:
        levels: Where to keep it; `levels.epochs.ready` was awaited before.
        layer: Layer of the value.
        key: Its key.
        payload: Its own encoding, at most `MAXIMUM_VALUE_BYTES`.
        scope: What it belongs to.
        created_ms: When its computation began, by the store's clock: when the lease was granted, or
            the lookup made that missed; milliseconds since the Unix epoch.
        ttl_seconds: How long to keep it; None for as long as the layer does by default. Can only
            shorten the layer's longest time.
        tags: What it depends on, at most 16.
        delta_ms: How long its computation took, milliseconds; 0 where that is not known.
    """
    frame, write = seal(
        levels,
        layer,
        key,
        payload,
        created_ms=created_ms,
        ttl_seconds=ttl_seconds,
        tags=tags,
        delta_ms=delta_ms,
    )
    if levels.epochs.is_valid(scope, created_ms, tags):
        now = levels.clock.monotonic()
        local_seconds = min(LAYER_RULES[layer].local_ttl_seconds, write.ttl_ms / 1000)
        levels.local[layer].put(
            key.value,
            LocalValue(
                payload=payload,
                created_ms=created_ms,
                expires_ms=frame.expires_ms,
                kept_at=now,
                local_until=now + local_seconds,
                scope=scope,
                tags=tags,
                delta_ms=delta_ms,
            ),
        )
    return write


def seal(
    levels: Levels,
    layer: Layer,
    key: EntryKey,
    payload: bytes,
    *,
    created_ms: int,
    ttl_seconds: float | None,
    tags: tuple[str, ...],
    delta_ms: int,
) -> tuple[Frame, Write]:
    """Makes what is to stand in the shared store, and keeps nothing; arguments as for `prepare`."""
    rules = LAYER_RULES[layer]
    wished_seconds = rules.default_ttl_seconds if ttl_seconds is None else ttl_seconds
    ttl_ms = shared_ttl_ms(min(wished_seconds, rules.ttl_seconds), levels.draw())
    frame = Frame(
        layer=layer,
        created_ms=created_ms,
        expires_ms=levels.store_now_ms() + ttl_ms,
        payload=payload,
        tags=tags,
        delta_ms=delta_ms,
    )
    data = frames.encode(frame, key=key.value, pepper=levels.pepper)
    return frame, Write(key.value, data, ttl_ms)


def _outcomes(taken: Sequence[bool] | None, count: int) -> list[WriteOutcome]:
    if taken is None:
        return [WriteOutcome.DROPPED] * count
    return [WriteOutcome.STORED if each else WriteOutcome.REFUSED for each in taken]
