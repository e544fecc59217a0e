"""Shows what is known before anything happens.

Counters and histograms whose labels are all known exist by themselves; this is the rest.
"""

from collections.abc import Mapping

from services.cache.core.breaker import Phase
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.common.metrics import Metrics

__all__ = ["create_series", "show_phase"]


def create_series(metrics: Metrics, local: Mapping[Layer, LocalLevel], *, currency: str) -> None:
    """Creates the series whose first value is known.

    Args:
        metrics: Where.
        local: The local level of each layer.
        currency: What prices are in.
    """
    metrics.create_series("currency", currency)
    for layer, level in local.items():
        metrics.set_gauge("cache_memory_limit_bytes", level.limit_bytes, layer.value)
    metrics.set_gauge("cache_false_hit_upper_bound", 1)
    show_phase(metrics, Phase.NORMAL)


def show_phase(metrics: Metrics, phase: Phase) -> None:
    """Shows how far the shared store is used."""
    for each in Phase:
        metrics.set_gauge("cache_redis_breaker_state", int(each is phase), each.value)
