"""What the cache service measures."""

from services.common.metrics import Metric, MetricKind

__all__ = ["BACKEND", "CATALOGUE", "MODES"]

BACKEND = "redis"

MODES = ("direct", "rag", "deep", "agent", "unknown")
"""Modes that lookups are counted under; whatever else a caller names counts as unknown."""

_LAYER = "embedding, inference, chunk"
# From a local hit up to twice the longest time the shared store is waited for.
_LOOKUP_BUCKETS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.12, 0.25, 0.5, 1.0,
)  # fmt: skip
# The three times to live, 24 h, 7 d and 30 d, are edges.
_AGE_BUCKETS_SECONDS = (
    1, 10, 60, 300, 900, 3_600, 14_400, 43_200, 86_400, 259_200, 604_800, 1_209_600, 2_592_000,
)  # fmt: skip

CATALOGUE = (
    Metric(
        "cache_lookups_total",
        MetricKind.COUNTER,
        "Items looked up; an error is a miss while the shared store was away.",
        {"layer": _LAYER, "mode": ", ".join(MODES), "result": "hit, miss, error"},
    ),
    Metric(
        "cache_hits_total",
        MetricKind.COUNTER,
        "Items found, by where.",
        {"layer": _LAYER, "level": "local, shared"},
    ),
    Metric(
        "cache_lookup_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of a lookup call; a hit only where every item was found.",
        {"layer": _LAYER, "result": "hit, miss, error"},
        _LOOKUP_BUCKETS_SECONDS,
    ),
    Metric(
        "cache_hit_age_seconds",
        MetricKind.HISTOGRAM,
        "Time since the values found were stored.",
        {"layer": _LAYER},
        _AGE_BUCKETS_SECONDS,
    ),
    Metric(
        "cache_rejected_values_total",
        MetricKind.COUNTER,
        "Values found in the shared store that failed their check and were taken for misses.",
        {"layer": _LAYER},
    ),
    Metric(
        "cache_writes_total",
        MetricKind.COUNTER,
        "Items handed over to be kept.",
        {"layer": _LAYER, "outcome": "stored, dropped, refused, too_large, not_reusable"},
    ),
    Metric(
        "cache_evictions_total",
        MetricKind.COUNTER,
        "Items that left the local level.",
        {"layer": _LAYER, "reason": "capacity, expired"},
    ),
    Metric("cache_entries", MetricKind.GAUGE, "Items in the local level.", {"layer": _LAYER}),
    Metric("cache_memory_bytes", MetricKind.GAUGE, "Bytes in the local level.", {"layer": _LAYER}),
    Metric(
        "cache_memory_limit_bytes",
        MetricKind.GAUGE,
        "Most bytes the local level may hold.",
        {"layer": _LAYER},
    ),
    Metric(
        "cache_saved_tokens_total",
        MetricKind.COUNTER,
        "Tokens of model calls that hits have saved.",
        {"kind": "prompt, completion"},
    ),
    Metric(
        "cache_saved_seconds_total",
        MetricKind.COUNTER,
        "Generation time that hits have saved.",
        {},
    ),
    Metric(
        "cache_backend_up",
        MetricKind.GAUGE,
        "Whether the shared store is in use.",
        {"backend": BACKEND},
    ),
    Metric(
        "cache_backend_failures_total",
        MetricKind.COUNTER,
        "Failed calls to the shared store.",
        {"backend": BACKEND},
    ),
    Metric(
        "cache_degraded",
        MetricKind.GAUGE,
        "Whether lookups do without the shared store.",
        {},
    ),
)
"""All metrics of the service, apart from those that every service has."""
