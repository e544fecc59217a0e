"""What the cache service measures.

The values of labels are those of the enumerations that the code works with.
"""

from enum import Enum

from services.cache.core.breaker import Phase
from services.cache.core.flight_tally import FlightEvent
from services.cache.core.layers import Layer
from services.cache.core.local_level import Departure
from services.cache.core.model import Result, WriteOutcome
from services.cache.core.semantic.guards import Guard
from services.cache.core.semantic.verdict import Judge, Verdict
from services.cache.core.spans import HitKind
from services.cache.core.tags import TargetKind
from services.common.metrics import (
    LATENCY_BUCKETS_SECONDS,
    Label,
    Metric,
    MetricKind,
    one_of,
    up_to,
)

__all__ = ["BACKEND", "CATALOGUE", "MODES"]

BACKEND = "redis"

MODES = ("direct", "rag", "deep", "agent", "unknown")
"""Modes that lookups are counted under; whatever else a caller names counts as unknown."""


def _each(values: type[Enum]) -> Label:
    return one_of(*(each.value for each in values))


_LAYER = _each(Layer)
_MODE = one_of(*MODES)
_RESULT = _each(Result)
_TOKENS = one_of("prompt", "completion")
# From a local hit up to twice the longest time the shared store is waited for.
_LOOKUP_BUCKETS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.12, 0.25, 0.5, 1.0,
)  # fmt: skip
# The times to live, 1 h, 24 h, 7 d and 30 d, are edges.
_AGE_BUCKETS_SECONDS = (
    1, 10, 60, 300, 900, 3_600, 14_400, 43_200, 86_400, 259_200, 604_800, 1_209_600, 2_592_000,
)  # fmt: skip
# The times to live in the local level, 60 s and 10 min, are edges.
_LIFETIME_BUCKETS_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 120, 300, 450, 600)
# 0.95 and 0.97 are the thresholds for known and for unknown embedders.
_SIMILARITY_BUCKETS = (
    0.5, 0.6, 0.7, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0,
)  # fmt: skip

_LOOKUPS = (
    Metric(
        "cache_lookups_total",
        MetricKind.COUNTER,
        "Items looked up; an error is a miss while the shared store was away.",
        {"layer": _LAYER, "mode": _MODE, "result": _RESULT},
    ),
    Metric(
        "cache_bypasses_total",
        MetricKind.COUNTER,
        "Items not looked up, as their callers wished or since their answers are never shared.",
        {"layer": _LAYER, "mode": _MODE},
    ),
    Metric(
        "cache_hits_total",
        MetricKind.COUNTER,
        "Items found, by how. Those that were coalesced or confirmed have counted as misses "
        "before; negative ones are failures remembered.",
        {"layer": _LAYER, "level": _each(HitKind)},
    ),
    Metric(
        "cache_lookup_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of a lookup call; a hit only where every item was found.",
        {"layer": _LAYER, "result": _RESULT},
        _LOOKUP_BUCKETS_SECONDS,
        has_exemplars=True,
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
        "cache_invalidated_values_total",
        MetricKind.COUNTER,
        "Values found that an invalidation had made unreadable, and were taken for misses.",
        {"layer": _LAYER},
    ),
)

_CONTENTS = (
    Metric(
        "cache_writes_total",
        MetricKind.COUNTER,
        "Items handed over to be kept.",
        {"layer": _LAYER, "outcome": _each(WriteOutcome)},
    ),
    Metric(
        "cache_dropped_writes_total",
        MetricKind.COUNTER,
        "Values not written since the shared store was away or slow.",
        {"layer": _LAYER},
    ),
    Metric(
        "cache_evictions_total",
        MetricKind.COUNTER,
        "Items that left the local level; one whose time was up when its room was needed has "
        "expired.",
        {"layer": _LAYER, "reason": _each(Departure)},
    ),
    Metric(
        "cache_entry_lifetime_seconds",
        MetricKind.HISTOGRAM,
        "How long items that were evicted or have expired were of use in the local level.",
        {"layer": _LAYER},
        _LIFETIME_BUCKETS_SECONDS,
    ),
    Metric(
        "cache_invalidations_total",
        MetricKind.COUNTER,
        "Times that entries were made unreadable, by what they had in common.",
        {"reason": _each(TargetKind)},
    ),
    Metric(
        "cache_entries",
        MetricKind.GAUGE,
        "Items in the local level; what nobody asks for any more leaves by and by once expired.",
        {"layer": _LAYER},
    ),
    Metric("cache_memory_bytes", MetricKind.GAUGE, "Bytes in the local level.", {"layer": _LAYER}),
    Metric(
        "cache_memory_limit_bytes",
        MetricKind.GAUGE,
        "Most bytes the local level may hold.",
        {"layer": _LAYER},
    ),
)

_SAVINGS = (
    Metric(
        "cache_saved_tokens_total",
        MetricKind.COUNTER,
        "Tokens of model calls that hits have saved.",
        {"kind": _TOKENS},
    ),
    Metric(
        "cache_coalesced_tokens_total",
        MetricKind.COUNTER,
        "Tokens that callers have saved who got an answer that another one computed.",
        {"kind": _TOKENS},
    ),
    Metric(
        "cache_saved_seconds_total",
        MetricKind.COUNTER,
        "Generation time that hits have saved.",
        {},
    ),
    Metric(
        "cache_saved_cost_total",
        MetricKind.COUNTER,
        "What the tokens that hits have saved would have cost.",
        {"currency": up_to(1, "one per process; none where no price is set")},
    ),
)

_FLIGHTS = (
    Metric(
        "cache_lease_total",
        MetricKind.COUNTER,
        "What became of leases, and of callers who wanted the same answer.",
        {"event": _each(FlightEvent)},
    ),
    Metric(
        "cache_singleflight_waits_total",
        MetricKind.COUNTER,
        "Callers who began to wait for an answer that another one computed.",
        {"layer": one_of(Layer.INFERENCE.value)},
    ),
    Metric(
        "cache_lease_wait_seconds",
        MetricKind.HISTOGRAM,
        "How long callers waited for an answer that another one computed.",
        {},
        LATENCY_BUCKETS_SECONDS,
    ),
    Metric("cache_waiting_callers", MetricKind.GAUGE, "Callers waiting now.", {}),
    Metric("cache_held_leases", MetricKind.GAUGE, "Leases held now through this replica.", {}),
)

_SEMANTIC = (
    Metric(
        "cache_semantic_similarity_ratio",
        MetricKind.HISTOGRAM,
        "Similarity of the most similar question to each that was looked up.",
        {},
        _SIMILARITY_BUCKETS,
    ),
    Metric(
        "cache_guard_rejections_total",
        MetricKind.COUNTER,
        "Similar questions that were refused, by what told them apart.",
        {"guard": _each(Guard)},
    ),
    Metric(
        "cache_verifications_total",
        MetricKind.COUNTER,
        "Verdicts on matches of similar questions, by who judged: evidence says whether a "
        "candidate may be given, the others whether an answer that was given is right.",
        {"verdict": _each(Verdict), "judge": _each(Judge)},
    ),
    Metric(
        "cache_false_hit_upper_bound",
        MetricKind.GAUGE,
        "Upper bound of the share of wrong answers among those given to similar questions, at "
        "95 %; 1 before the first was verified.",
        {},
    ),
    Metric("cache_semantic_entries", MetricKind.GAUGE, "Questions in the index.", {}),
    Metric("cache_semantic_partitions", MetricKind.GAUGE, "Partitions in the index.", {}),
    Metric("cache_semantic_memory_bytes", MetricKind.GAUGE, "Bytes of the index.", {}),
    Metric(
        "cache_semantic_memory_limit_bytes",
        MetricKind.GAUGE,
        "Most bytes the index may take.",
        {},
    ),
    Metric(
        "cache_feed_lag_seconds",
        MetricKind.GAUGE,
        "How long after another replica's change this one has learned of it, the last time; 0 "
        "before the first.",
        {},
    ),
)

_STORE = (
    Metric(
        "cache_backend_up",
        MetricKind.GAUGE,
        "Whether the shared store is in use.",
        {"backend": one_of(BACKEND)},
    ),
    Metric(
        "cache_backend_failures_total",
        MetricKind.COUNTER,
        "Failed calls to the shared store.",
        {"backend": one_of(BACKEND)},
    ),
    Metric(
        "cache_redis_breaker_state",
        MetricKind.GAUGE,
        "How far the shared store is used: 1 for the phase that it is in, 0 for the others.",
        {"phase": _each(Phase)},
    ),
    Metric(
        "cache_degraded",
        MetricKind.GAUGE,
        "Whether lookups do without the shared store.",
        {},
    ),
)

CATALOGUE = (*_LOOKUPS, *_CONTENTS, *_SAVINGS, *_FLIGHTS, *_SEMANTIC, *_STORE)
"""All metrics of the service, apart from those that every service has."""
