"""Cache performance: what is found, what is kept, and is it right?"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.cache_answers import ANSWERS, SHARED_STORE
from tools.monitoring.dashboards.expressions import (
    PICKED,
    increase,
    mean,
    occurring,
    rate,
    ratio,
    total,
)
from tools.monitoring.dashboards.kinds import (
    events,
    heatmap,
    lines,
    on_the_right,
    pie,
    stat,
)
from tools.monitoring.dashboards.panels import Limits, Query, Why, above, below
from tools.monitoring.dashboards.tables import Column, table

__all__ = ["CACHE_PERFORMANCE"]

_LOOKUPS = "cache_lookups_total"
_HITS = f'{_LOOKUPS}{{result="hit"}}'
_ANSWERED = f'{_LOOKUPS}{{result=~"hit|miss"}}'
_MISSES = f'{_LOOKUPS}{{result="miss"}}'


_FULLEST = f"max by (layer) ({ratio('cache_memory_bytes', 'cache_memory_limit_bytes')})"

_FOUND = Section(
    "What is found",
    (
        lines(
            1,
            "Cache hit rate over time",
            Why(
                "Hits among hits and misses of each layer, and of all together, which is what the "
                "alert watches. Shared and confirmed answers count as misses here.",
                "Embeddings, answers and chunks return at different rates; a mean of all hides a "
                "layer that has stopped working.",
                "If one layer falls to 0, look at Invalidation events and at new versions of "
                "models; if all do, at the shared store.",
            ),
            Query(ratio(rate(_HITS, "layer"), rate(_ANSWERED, "layer")), "{{layer}}"),
            Query(ratio(rate(_HITS), rate(_ANSWERED)), "all"),
            unit="percentunit",
            width=10,
            limits=below(limits.LOW_CACHE_HIT_RATIO, limits.GOOD_CACHE_HIT_RATIO),
            alerts=("LowCacheHitRate",),
        ),
        lines(
            2,
            "Cache operations breakdown",
            Why(
                "Items looked up by result, stored, gone from the local level for any reason, and "
                "changes that made entries unreadable, each second.",
                "A cache that stores more than it hits works for nobody.",
                "Errors among the lookups: the shared store is away. Misses far above what is "
                "stored: see Writes by outcome.",
            ),
            Query(rate(_LOOKUPS, "result"), "{{result}}"),
            Query(rate('cache_writes_total{outcome="stored"}'), "stored"),
            Query(rate("cache_evictions_total"), "gone"),
            Query(rate("cache_invalidations_total"), "invalidation"),
            unit="ops",
            width=8,
        ),
        pie(
            6,
            "Hit/miss ratio",
            Why(
                "Hits and misses of all layers within the chosen range.",
                "It is the same as the rate, over a longer time, and so steadier.",
                "Compare ranges: a share that shrinks over days means that questions return "
                "less, or that entries live too short.",
            ),
            Query(increase(_ANSWERED, "result"), "{{result}}"),
            width=6,
        ),
        lines(
            19,
            "Hits by level",
            Why(
                "How items were found: in the service's own memory, in the shared store, as the "
                "same or as a similar question. Coalesced and confirmed ones were misses at "
                "first, negative ones are failures remembered: they are in no hit rate.",
                "Local hits are a hundred times faster than shared ones, and similar ones "
                "depend on a judgement.",
                "Few local hits: give the local level more memory. Many negative ones: failures "
                "are being remembered; look for their cause.",
            ),
            Query(rate("cache_hits_total", "level"), "{{level}}"),
            unit="ops",
            stacked=True,
        ),
        lines(
            12,
            "Lookups bypassed",
            Why(
                "Items not looked up, as their callers wished or since their answers are never "
                "shared, by layer.",
                "What is bypassed is computed as after a miss, and shows in no hit rate.",
                "If it grows, find the client that asks for fresh answers each time.",
            ),
            Query(rate("cache_bypasses_total", "layer"), "{{layer}}"),
            unit="ops",
        ),
        table(
            9,
            "Per-mode cache stats",
            Why(
                "Hits, misses and hit rate of each mode within the chosen range.",
                "Modes ask differently: an agent's steps seldom return, direct questions often.",
                "A mode with many misses and a low rate gains most from longer times to live.",
            ),
            Query(increase(_HITS, "mode")),
            Query(increase(_MISSES, "mode")),
            Query(ratio(increase(_HITS, "mode"), increase(_ANSWERED, "mode"))),
            labels={"mode": "Mode"},
            columns=(
                Column("Hits", decimals=0),
                Column("Misses", decimals=0),
                Column(
                    "Hit rate",
                    "percentunit",
                    Limits(below(limits.LOW_CACHE_HIT_RATIO, limits.GOOD_CACHE_HIT_RATIO).steps),
                    decimals=1,
                ),
            ),
            width=8,
            sort_by="Hits",
        ),
    ),
)

_KEPT = Section(
    "What is kept",
    (
        lines(
            3,
            "Cache size",
            Why(
                "Items in the local level of each layer, of all replicas together; on the right "
                "how full the fullest replica is by its bytes, which are what is limited.",
                "A full level throws out what is still good.",
                "Near the limit: raise the layer's limit, or shorten its time to live.",
            ),
            Query(total("cache_entries", "layer"), "{{layer}}"),
            Query(_FULLEST, "{{layer}}, fullest"),
            unit="short",
            alerts=("CacheNearCapacity",),
            overrides=(
                on_the_right("B", "percentunit", most=1, limits=above(limits.CACHE_FULL_RATIO)),
            ),
        ),
        lines(
            4,
            "Cache memory usage",
            Why(
                "Bytes in the local level of each layer, of all replicas together, and the sum of "
                "their limits.",
                "Memory is what usually bounds the local level.",
                "At its limit with many evictions: give it more, or expect fewer local hits.",
            ),
            Query(total("cache_memory_bytes", "layer"), "{{layer}}"),
            Query(total("cache_memory_limit_bytes", "layer"), "{{layer}}, at most"),
            unit="bytes",
            alerts=("CacheNearCapacity",),
        ),
        lines(
            13,
            "Memory in use",
            Why(
                "Bytes in the local level in relation to their limit, by layer, of the fullest "
                "replica.",
                "From its limit on each new item pushes out another.",
                "Above the line for long: raise the layer's limit of bytes.",
            ),
            Query(_FULLEST, "{{layer}}"),
            unit="percentunit",
            limits=above(limits.CACHE_FULL_RATIO),
            alerts=("CacheNearCapacity",),
        ),
        heatmap(
            5,
            "Cache entry age",
            Why(
                "Hits each second by how old the entries were, over time.",
                "If hits are much younger than the time to live, it could be shorter at no loss.",
                "If they pile up at the oldest edge, longer times to live would give more hits.",
            ),
            Query(rate("cache_hit_age_seconds_bucket", "le"), "{{le}}"),
            unit="s",
            width=9,
        ),
        lines(
            7,
            "Evictions rate",
            Why(
                "Items that left the local level each second, by layer and reason, and those of "
                "all layers together that left for want of room, which the alert watches.",
                "Those that expired have done their work; those that left for want of room "
                "have not.",
                "Above the line: raise the limit of the layer that capacity is short in.",
            ),
            Query(occurring("cache_evictions_total", "layer, reason"), "{{layer}}, {{reason}}"),
            Query(rate('cache_evictions_total{reason="capacity"}'), "all, capacity"),
            unit="ops",
            width=9,
            limits=above(limits.CACHE_EVICTIONS_PER_SECOND),
            alerts=("HighCacheEvictionRate",),
        ),
        stat(
            8,
            "Average entry lifetime",
            Why(
                "How long what left the local level within the chosen range was of use there, on "
                "average, by layer.",
                "Far below the layer's time in the local level, a minute or ten, means that room "
                "and not time decides what stays.",
                "If it shrinks while the memory is full, the layer needs more of it.",
            ),
            Query(mean("cache_entry_lifetime_seconds", "layer", window=PICKED), "{{layer}}"),
            unit="s",
            height=8,
        ),
        lines(
            14,
            "Writes by outcome",
            Why(
                "Items handed over to be kept each second, by what became of them; dropped ones "
                "were not written since the shared store was away or slow.",
                "Whatever is not stored will be computed again.",
                "Refused: the shared store is full or read-only. Dropped: see its row below. "
                "Invalidated: documents changed while the value was computed.",
            ),
            Query(rate("cache_writes_total", "outcome"), "{{outcome}}"),
            unit="ops",
        ),
        lines(
            10,
            "Invalidation events",
            Why(
                "Changes that made entries unreadable each second, by what the entries had in "
                "common.",
                "After a new document or model old answers must not come back; too many such "
                "changes leave nothing to hit.",
                "A steady stream of whole namespaces: let ingestion batch its changes.",
            ),
            *events("cache_invalidations_total", "reason", "{{reason}}"),
            unit="ops",
        ),
        lines(
            23,
            "Values refused after reading",
            Why(
                "Values found each second that failed their check, or that an invalidation had "
                "made unreadable, by layer.",
                "The first are damaged or of another format; both count as misses.",
                "Failed checks that go on: two versions share a store, or somebody writes into "
                "it. Clear that layer.",
            ),
            Query(rate("cache_rejected_values_total", "layer"), "{{layer}}, rejected"),
            Query(occurring("cache_invalidated_values_total", "layer"), "{{layer}}, invalidated"),
            unit="ops",
        ),
    ),
)

CACHE_PERFORMANCE = Dashboard(
    uid="cache-performance",
    title="Cache performance",
    question="What is found, what is kept, and are similar questions told apart?",
    group="cache",
    refresh="30s",
    span="1h",
    sections=(_FOUND, _KEPT, ANSWERS, SHARED_STORE),
)
