"""Keeping values: locally at once, and in the shared store in a single round trip."""

from collections.abc import Sequence

from services.cache.core import frames
from services.cache.core.frames import Frame
from services.cache.core.layers import LAYER_RULES, Layer, shared_ttl_ms
from services.cache.core.local_level import LocalValue
from services.cache.core.model import Kept, NewValue, WriteOutcome
from services.cache.levels import Levels
from services.cache.ports import Write

__all__ = ["MAXIMUM_VALUE_BYTES", "keep"]

MAXIMUM_VALUE_BYTES = 1024 * 1024
"""Larger values are not kept, and counted; their size is the data's doing and not the caller's
mistake, so that the call does not fail."""


async def keep(levels: Levels, layer: Layer, values: Sequence[NewValue]) -> Kept:
    """Keeps values; a store that is away drops them, which is no error.

    Args:
        levels: Where to keep them.
        layer: Layer of all the values.
        values: What to keep, at least one; of several with the same key, the last one counts.
    """
    fitting = {
        value.key: value.payload for value in values if len(value.payload) <= MAXIMUM_VALUE_BYTES
    }
    outcomes: dict[bytes, WriteOutcome] = {}
    asked = True
    if fitting:
        writes = [_prepare(levels, layer, key, payload) for key, payload in fitting.items()]
        taken = await levels.shared.write(layer, writes)
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


def _prepare(levels: Levels, layer: Layer, key: bytes, payload: bytes) -> Write:
    """Keeps a value locally and makes what is to stand in the shared store."""
    rules = LAYER_RULES[layer]
    created_ms = int(levels.clock.now() * 1000)
    ttl_ms = shared_ttl_ms(rules, levels.draw())
    local_seconds = min(rules.local_ttl_seconds, ttl_ms / 1000)
    levels.local[layer].put(
        key, LocalValue(payload, created_ms, levels.clock.monotonic() + local_seconds)
    )
    frame = Frame(
        layer=layer, created_ms=created_ms, expires_ms=created_ms + ttl_ms, payload=payload
    )
    return Write(key, frames.encode(frame, key=key, pepper=levels.pepper), ttl_ms)


def _outcomes(taken: Sequence[bool] | None, count: int) -> list[WriteOutcome]:
    if taken is None:
        return [WriteOutcome.DROPPED] * count
    return [WriteOutcome.STORED if each else WriteOutcome.REFUSED for each in taken]
