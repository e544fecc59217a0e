"""Looking values up: the local level first, then the shared one in a single round trip."""

from collections.abc import Sequence

from services.cache.core import frames
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.local_level import LocalValue
from services.cache.core.model import Hit, Level, Lookup
from services.cache.levels import Levels

__all__ = ["look_up"]


async def look_up(levels: Levels, layer: Layer, keys: Sequence[bytes], *, mode: str = "") -> Lookup:
    """Looks values up; a store that is away makes misses, never an error.

    Args:
        levels: Where to look.
        layer: Layer of all the keys.
        keys: What to look for, at least one; repeated keys are looked up once.
        mode: What the caller calls the kind of its request; the lookup is counted under it.
    """
    started = levels.clock.monotonic()
    found = _find_local(levels, layer, keys, started)
    missing = [key for key in dict.fromkeys(keys) if key not in found]
    rejected_count = 0
    asked = True
    if missing:
        stored = await levels.shared.read(layer, missing)
        asked = stored is not None
        for key, data in zip(missing, stored or [None] * len(missing), strict=True):
            if data is None:
                continue
            try:
                hit = _take_over(levels, layer, key, data)
            except frames.FrameRejected:
                rejected_count += 1
                continue
            if hit is not None:
                found[key] = hit
    lookup = Lookup(
        hits=tuple(found.get(key) for key in keys),
        degraded=not asked or not levels.shared.available,
        rejected_count=rejected_count,
    )
    levels.recorder.looked_up(
        layer, lookup, mode=mode, duration_seconds=levels.clock.monotonic() - started
    )
    return lookup


def _find_local(
    levels: Levels, layer: Layer, keys: Sequence[bytes], now: float
) -> dict[bytes, Hit]:
    local = levels.local[layer]
    now_ms = levels.clock.now() * 1000
    found: dict[bytes, Hit] = {}
    for key in dict.fromkeys(keys):
        value = local.get(key, now)
        if value is not None:
            age_seconds = max(0.0, now_ms - value.created_ms) / 1000
            found[key] = Hit(payload=value.payload, age_seconds=age_seconds, level=Level.LOCAL)
    return found


def _take_over(levels: Levels, layer: Layer, key: bytes, data: bytes) -> Hit | None:
    """Checks a stored value and keeps it locally, for no longer than it is valid."""
    frame = frames.decode(data, layer=layer, key=key, pepper=levels.pepper)
    now_ms = levels.clock.now() * 1000
    left_seconds = (frame.expires_ms - now_ms) / 1000
    if left_seconds <= 0:
        return None
    kept_seconds = min(LAYER_RULES[layer].local_ttl_seconds, left_seconds)
    levels.local[layer].put(
        key,
        LocalValue(frame.payload, frame.created_ms, levels.clock.monotonic() + kept_seconds),
    )
    age_seconds = max(0.0, now_ms - frame.created_ms) / 1000
    return Hit(payload=frame.payload, age_seconds=age_seconds, level=Level.SHARED)
