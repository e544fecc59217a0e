"""Looking values up: the local level first, then the shared one in a single round trip.

A value counts if it is intact, its time is not up, it has not been invalidated, and its caller does
not ask for a younger one. All of that is checked at either level, each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.cache.core import frames
from services.cache.core.keys import EntryKey
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.local_level import LocalValue
from services.cache.core.model import Control, Hit, Level, Lookup, Scope
from services.cache.core.tags import handed_over_ms
from services.cache.levels import Levels

__all__ = ["ANY_VALUE", "Faults", "accept", "find_local", "look_up"]

ANY_VALUE = Control()
"""The control of callers without wishes."""


@dataclass(slots=True)
class Faults:
    """Why values that were there did not count.

    Attributes:
        rejected_count: Values that failed their check.
        invalidated_count: Values that had been invalidated.
    """

    rejected_count: int = 0
    invalidated_count: int = 0


async def look_up(
    levels: Levels,
    layer: Layer,
    keys: Sequence[EntryKey],
    *,
    scope: Scope,
    control: Control = ANY_VALUE,
    mode: str = "",
) -> Lookup:
    """Looks values up; a store that is away makes misses, never an error.

    Args:
        levels: Where to look.
        layer: Layer of all the keys.
        keys: What to look for, at least one; repeated keys are looked up once.
        scope: What all the values belong to.
        control: Which values to accept.
        mode: What the caller calls the kind of its request; the lookup is counted under it.
    """
    if control.bypass:
        levels.recorder.bypassed(layer, len(keys), mode=mode, tenant_id=scope.tenant_id)
        return Lookup(hits=(None,) * len(keys), degraded=False, bypassed=True)
    started = levels.clock.monotonic()
    up_to_date = await levels.epochs.ready(scope.tenant_id)
    read_ms = levels.store_now_ms()
    faults = Faults()
    found: dict[EntryKey, Hit | None] = {
        key: find_local(levels, layer, key, scope=scope, control=control, faults=faults)
        for key in dict.fromkeys(keys)
    }
    missing = [key for key, hit in found.items() if hit is None]
    asked = True
    if missing:
        values = [key.value for key in missing]
        stored = await levels.shared.read(layer, values) if up_to_date else None
        asked = stored is not None
        for key, data in zip(missing, stored or (), strict=asked):
            found[key] = _check(levels, layer, key, data, scope, control, faults)
    lookup = Lookup(
        hits=tuple(found[key] for key in keys),
        degraded=not asked or not levels.shared.available,
        rejected_count=faults.rejected_count,
        invalidated_count=faults.invalidated_count,
        read_ms=read_ms,
    )
    levels.recorder.looked_up(
        layer,
        lookup,
        mode=mode,
        tenant_id=scope.tenant_id,
        duration_seconds=levels.clock.monotonic() - started,
    )
    return lookup


def find_local(
    levels: Levels,
    layer: Layer,
    key: EntryKey,
    *,
    scope: Scope,
    control: Control = ANY_VALUE,
    faults: Faults | None = None,
) -> Hit | None:
    """Looks a value up in the local level.

    Args:
        levels: Where to look; `levels.epochs.ready` was awaited before.
        layer: Layer of the key.
        key: What to look for.
        scope: What the value belongs to.
        control: Whether the value will do.
        faults: Counts what was found but does not count.
    """
    now = levels.clock.monotonic()
    if not (LAYER_RULES[layer].content_addressed or levels.epochs.trusted(now)):
        return None
    value = levels.local[layer].get(key.value, now)
    if value is None:
        return None
    if not levels.epochs.is_valid(scope, value.created_ms, value.tags):
        levels.local[layer].discard(key.value)
        if faults is not None:
            faults.invalidated_count += 1
        return None
    return _hit(value, Level.LOCAL, control, levels.store_clock.now_ms(now))


def accept(
    levels: Levels,
    layer: Layer,
    key: EntryKey,
    data: bytes,
    *,
    scope: Scope,
    control: Control = ANY_VALUE,
    faults: Faults | None = None,
    for_waiters: bool = False,
) -> Hit | None:
    """Checks a value read from the shared store, and keeps it locally if it counts.

    Args:
        levels: Where to keep it; `levels.epochs.ready` was awaited before.
        layer: Layer of the key.
        key: What was looked for.
        data: What was found.
        scope: What the value belongs to.
        control: Whether the value will do; kept locally it is all the same.
        faults: Counts a value that has been invalidated.
        for_waiters: Whether a value will do that was handed over to those who waited for it; whom
            it may be given, the caller sees from the hit.

    Returns:
        The value; None where its time is up, it has been invalidated, or it will not do.

    Raises:
        FrameRejected: The bytes are no value, or not the one that was stored under this key.
    """
    frame = frames.decode(data, layer=layer, key=key.value, pepper=levels.pepper)
    now = levels.clock.monotonic()
    now_ms = levels.store_clock.now_ms(now)
    left_seconds = (frame.expires_ms - now_ms) / 1000
    if left_seconds <= 0:
        return None
    if not levels.epochs.is_valid(scope, frame.created_ms, frame.tags):
        if faults is not None:
            faults.invalidated_count += 1
        return None
    over_ms = handed_over_ms(frame.tags)
    if over_ms is not None and not for_waiters:
        return None
    value = LocalValue(
        payload=frame.payload,
        created_ms=frame.created_ms,
        expires_ms=frame.expires_ms,
        kept_at=now,
        local_until=now + min(LAYER_RULES[layer].local_ttl_seconds, left_seconds),
        scope=scope,
        tags=frame.tags,
        delta_ms=frame.delta_ms,
    )
    if over_ms is None:
        levels.local[layer].put(key.value, value)
    hit = _hit(value, Level.SHARED, control, now_ms)
    return hit if hit is None or over_ms is None else replace(hit, handed_over_ms=over_ms)


def _check(
    levels: Levels,
    layer: Layer,
    key: EntryKey,
    data: bytes | None,
    scope: Scope,
    control: Control,
    faults: Faults,
) -> Hit | None:
    if data is None:
        return None
    try:
        return accept(levels, layer, key, data, scope=scope, control=control, faults=faults)
    except frames.FrameRejected:
        faults.rejected_count += 1
        return None


def _hit(value: LocalValue, level: Level, control: Control, now_ms: int) -> Hit | None:
    if not control.accepts(value.created_ms, now_ms):
        return None
    return Hit(
        payload=value.payload,
        level=level,
        created_ms=value.created_ms,
        age_seconds=max(0, now_ms - value.created_ms) / 1000,
        remaining_seconds=max(0, value.expires_ms - now_ms) / 1000,
        delta_seconds=value.delta_ms / 1000,
    )
