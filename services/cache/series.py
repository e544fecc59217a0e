"""Makes every series exist from the start: no rate can be taken of what appears at 1."""

from collections.abc import Mapping

from services.cache.core.breaker import Phase
from services.cache.core.flight_tally import FlightEvent
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.model import Level, Result, WriteOutcome
from services.cache.core.spans import HitKind
from services.cache.metrics import BACKEND, GUARDS, INVALIDATIONS, MODES, OTHER, VERDICTS
from services.common.metrics import Metrics

__all__ = ["create_series"]

# Embeddings and chunks are looked up on behalf of no mode.
_MODES = {Layer.EMBEDDING: ("unknown",), Layer.CHUNK: ("unknown",)}
_LEVELS = tuple(HitKind(level.value) for level in Level)
_KINDS = {
    Layer.EMBEDDING: _LEVELS,
    Layer.CHUNK: _LEVELS,
    Layer.INFERENCE: (*_LEVELS, HitKind.COALESCED, HitKind.NEGATIVE),
    Layer.SEMANTIC: (HitKind.EXACT, HitKind.SIMILAR, HitKind.CONFIRMED),
}


def create_series(metrics: Metrics, local: Mapping[Layer, LocalLevel], *, currency: str) -> None:
    """Creates the series whose labels are known.

    Args:
        metrics: Where.
        local: The local level of each layer.
        currency: What prices are in.
    """
    for layer in Layer:
        _create_layer_series(metrics, layer)
    for layer, level in local.items():
        metrics.set_gauge("cache_memory_limit_bytes", level.limit_bytes, layer.value)
    for name in ("cache_saved_tokens_total", "cache_coalesced_tokens_total"):
        for kind in ("prompt", "completion"):
            metrics.count(name, kind, amount=0)
    metrics.count("cache_saved_cost_total", currency, amount=0)
    for event in FlightEvent:
        metrics.count("cache_lease_total", event.value, amount=0)
    metrics.count("cache_singleflight_waits_total", Layer.INFERENCE.value, amount=0)
    for guard in (*GUARDS, OTHER):
        metrics.count("cache_guard_rejections_total", guard, amount=0)
    for verdict in VERDICTS:
        metrics.count("cache_verifications_total", verdict, amount=0)
    for reason in (*INVALIDATIONS, OTHER):
        metrics.count("cache_invalidations_total", reason, amount=0)
    metrics.set_gauge("cache_false_hit_upper_bound", 1)
    metrics.count("cache_backend_failures_total", BACKEND, amount=0)
    for phase in Phase:
        metrics.set_gauge("cache_redis_breaker_state", int(phase is Phase.NORMAL), phase.value)


def _create_layer_series(metrics: Metrics, layer: Layer) -> None:
    for mode in _MODES.get(layer, MODES):
        metrics.count("cache_bypasses_total", layer.value, mode, amount=0)
        for result in Result:
            metrics.count("cache_lookups_total", layer.value, mode, result.value, amount=0)
    for kind in _KINDS[layer]:
        metrics.count("cache_hits_total", layer.value, kind.value, amount=0)
    for outcome in WriteOutcome:
        metrics.count("cache_writes_total", layer.value, outcome.value, amount=0)
    for reason in ("capacity", "expired"):
        metrics.count("cache_evictions_total", layer.value, reason, amount=0)
    for name in (
        "cache_rejected_values_total",
        "cache_invalidated_values_total",
        "cache_dropped_writes_total",
    ):
        metrics.count(name, layer.value, amount=0)
    for name in ("cache_entries", "cache_memory_bytes"):
        metrics.set_gauge(name, 0, layer.value)
