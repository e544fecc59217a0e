"""Alerts about the cache."""

from tools.monitoring import thresholds
from tools.monitoring.rules.model import Alert, Channel, Group, Panel, Severity

__all__ = ["GROUP"]

_BUDGET = thresholds.FALSE_HIT_BUDGET_RATIO

GROUP = Group(
    "caching",
    (
        Alert(
            name="LowCacheHitRate",
            expr='sum(rate(cache_lookups_total{result="hit"}[5m]))'
            '\n  / sum(rate(cache_lookups_total{result=~"hit|miss"}[5m]))'
            f" < {thresholds.LOW_CACHE_HIT_RATIO:g}",
            limit=f"fewer than {thresholds.LOW_CACHE_HIT_RATIO:.0%} of lookups are hits",
            minutes=15,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="cache",
            summary="The cache rarely helps",
            description="{{ $value | humanizePercentage }} of the lookups of the last 5 minutes "
            "were hits.",
            panel=Panel("performance-overview", 6),
        ),
        Alert(
            name="CacheNearCapacity",
            # A layer whose limit is 0 is switched off.
            expr="max by (layer) (cache_memory_bytes / (cache_memory_limit_bytes > 0))"
            f" > {thresholds.CACHE_FULL_RATIO:g}",
            limit=f"a layer takes more than {thresholds.CACHE_FULL_RATIO:.0%} of its bytes",
            minutes=10,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="cache",
            summary="A layer of the cache is full",
            description="{{ $value | humanizePercentage }} of the room of layer "
            "{{ $labels.layer }} is taken.",
            panel=Panel("cache-performance", 3),
        ),
        Alert(
            name="HighCacheEvictionRate",
            # What leaves because its time is over makes room for nobody.
            expr='sum(rate(cache_evictions_total{reason="capacity"}[5m]))'
            f" > {thresholds.CACHE_EVICTIONS_PER_SECOND:g}",
            limit=f"more than {thresholds.CACHE_EVICTIONS_PER_SECOND:g} entries a second have to "
            "make room",
            minutes=10,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="cache",
            summary="The cache loses entries for want of room",
            description='{{ $value | printf "%.1f" }} entries a second have to make room for '
            "others in the local level.",
            panel=Panel("cache-performance", 7),
        ),
        Alert(
            name="CacheDegraded",
            expr="max by (job, instance) (cache_degraded) > 0",
            limit="lookups do without the shared store",
            minutes=5,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="cache",
            summary="The cache does without Redis",
            description="{{ $labels.instance }} answers from its own memory only.",
            panel=Panel("fleet-health", 11),
        ),
        Alert(
            name="FalseHitBudget",
            # Without a wrong one the bound is high only since too few were verified.
            expr=f"max(cache_false_hit_upper_bound) > {_BUDGET:g}"
            "\nand sum(increase(cache_verifications_total"
            '{verdict="wrong",judge!="evidence"}[1d])) > 0',
            limit=f"upper bound of wrong answers to similar questions above {_BUDGET:.0%}, and one "
            "was found wrong within a day",
            minutes=15,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="cache",
            summary="Similar questions may get wrong answers",
            description="Up to {{ $value | humanizePercentage }} of the answers given to similar "
            "questions may be wrong, and at least one was found so within the last day.",
            panel=Panel("cache-performance", 11),
        ),
        Alert(
            name="IndexInvalidationsPending",
            # While documents are taken in there are always some; what matters is that none is told.
            expr="max by (job) (rag_invalidations_pending) > 0"
            "\nand sum by (job) (increase(rag_invalidations_delivered_total[5m])) == 0",
            limit="changes of documents wait, and the cache is told of none",
            minutes=10,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="rag",
            summary="The cache does not learn of changed documents",
            description="Changes of documents that the cache waits for: {{ $value }}. "
            "It was told of none for more than 10 minutes.",
            panel=Panel("cache-performance", 15),
        ),
    ),
)
