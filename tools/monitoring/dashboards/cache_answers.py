"""Two sections on the cache: answers shared between questions, and the store between replicas."""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Section
from tools.monitoring.dashboards.expressions import occurring, quantile, rate, ratio, total
from tools.monitoring.dashboards.kinds import events, lines, on_the_right, stat
from tools.monitoring.dashboards.panels import Query, Why, above

__all__ = ["ANSWERS", "SHARED_STORE"]

_REUSED = 'rag_answer_reuse_total{outcome=~"exact|similar|confirmed|unchecked"}'
_LOOKED_FOR = 'rag_answer_reuse_total{outcome!~"bypassed|unavailable"}'

ANSWERS = Section(
    "Answers shared between questions",
    (
        lines(
            16,
            "Answers given before",
            Why(
                "Questions in modes rag and deep by what came of looking for an answer given "
                "before; on the right the share that got one, of those that could be looked for.",
                "An answer given again costs nothing and is there at once.",
                "Many outdated ones: documents change faster than answers live. Many unconfirmed "
                "ones: questions are alike, and their sources are not. Unchecked ones were given "
                "while the store was away.",
            ),
            Query(occurring("rag_answer_reuse_total", "outcome"), "{{outcome}}"),
            Query(ratio(rate(_REUSED), rate(_LOOKED_FOR)), "share given again"),
            unit="ops",
            overrides=(on_the_right("B", "percentunit", most=1),),
        ),
        lines(
            17,
            "Similar questions refused",
            Why(
                "Similar questions each second that were told apart, by what told them apart.",
                "These guards are what keeps a wrong answer from being given for a similar "
                "question.",
                "One guard far above the others: read a few of those traces; its rule may be too "
                "strict for your questions.",
            ),
            *events("cache_guard_rejections_total", "guard", "{{guard}}"),
            unit="ops",
        ),
        lines(
            18,
            "Verified semantic matches",
            Why(
                "Verdicts on matches of similar questions each second. Evidence says whether a "
                "candidate may be given; a recomputation, a model or a person, whether an answer "
                "that was given is right.",
                "It is the only measurement of whether shared answers are right.",
                "Any wrong ones but by evidence: look at the bound beside it, and raise the "
                "threshold if it rises. Many by evidence: most candidates are of no use.",
            ),
            Query(rate("cache_verifications_total", "verdict, judge"), "{{verdict}} by {{judge}}"),
            unit="ops",
        ),
        lines(
            11,
            "Error budget of semantic matches",
            Why(
                "Upper bound, at 95 % confidence, of the share of wrong answers among those given "
                "to similar questions; 1 until the first has been verified.",
                "Below the line similar questions may share answers; that is the promise.",
                f"Until {limits.FALSE_HIT_VERIFICATIONS} verdicts it is above the line for want of "
                "them. Above it after a wrong verdict: raise the threshold "
                "of similarity or switch sharing off until it is understood.",
            ),
            Query("max(cache_false_hit_upper_bound)", "upper bound"),
            unit="percentunit",
            small=5 * limits.FALSE_HIT_BUDGET_RATIO,
            limits=above(limits.FALSE_HIT_BUDGET_RATIO),
            alerts=("FalseHitBudget",),
        ),
        lines(
            20,
            "Semantic index",
            Why(
                "Questions and partitions in the index of similar questions, of the replica that "
                "holds most, since replicas hold the same; on the right its memory and the most "
                "it may take.",
                "Each lookup searches one partition; its size is what a lookup costs.",
                "If the index stays empty while questions come, embeddings are missing: look at "
                "the balancer's embed calls.",
            ),
            Query("max(cache_semantic_entries)", "questions"),
            Query("max(cache_semantic_partitions)", "partitions"),
            Query("max(cache_semantic_memory_bytes)", "memory"),
            Query("max(cache_semantic_memory_limit_bytes)", "memory, at most"),
            unit="short",
            overrides=(on_the_right("C", "bytes"), on_the_right("D", "bytes")),
        ),
        lines(
            21,
            "Leases",
            Why(
                "What became each second of leases, by which one caller computes what others "
                "wait for.",
                "Expired or rejected ones mean that callers wait for nothing and compute twice.",
                "Many expired ones: answers take longer than a lease; lengthen it.",
            ),
            *events("cache_lease_total", "event", "{{event}}"),
            unit="ops",
        ),
        lines(
            22,
            "Callers waiting for each other",
            Why(
                "Leases held and callers waiting now, and on the right how long 95 of 100 waited.",
                "Waiting is cheaper than computing twice, as long as it ends.",
                "Waiting callers without held leases: a replica has died; they go on by "
                "themselves when the lease expires.",
            ),
            Query(total("cache_held_leases"), "leases held"),
            Query(total("cache_waiting_callers"), "callers waiting"),
            Query(quantile(0.95, "cache_lease_wait_seconds"), "95 % waited at most"),
            unit="short",
            overrides=(on_the_right("C", "s"),),
        ),
        lines(
            15,
            "Invalidations on their way",
            Why(
                "Changes of documents that rag has still to tell the cache of, up to 1000 of "
                "them, and on the right those that it has told each second.",
                "Until the cache knows of a change, an old answer may be given again.",
                "If they pile up, the cache cannot be reached from rag.",
            ),
            Query("max(rag_invalidations_pending)", "pending"),
            Query(rate("rag_invalidations_delivered_total"), "delivered"),
            unit="short",
            alerts=("IndexInvalidationsPending",),
            overrides=(on_the_right("B", "ops"),),
        ),
        lines(
            24,
            "Feed lag",
            Why(
                "How long after another replica's change this one has learned of it, the last "
                "time, by instance.",
                "For that long replicas may answer differently.",
                "Seconds and more: the shared store is slow, or a replica's event loop is late.",
            ),
            Query("max by (instance) (cache_feed_lag_seconds)", "{{instance}}"),
            unit="s",
        ),
    ),
)

SHARED_STORE = Section(
    "Shared store",
    (
        stat(
            25,
            "Phase of the breaker",
            Why(
                "How far the shared store is used: normal, slow, open or recovering. Several "
                "names mean that replicas differ.",
                "Open means that the store is left alone, and each replica has its own cache.",
                "Open or slow: check Redis itself, its memory and its network.",
            ),
            Query("max by (phase) (cache_redis_breaker_state) == 1", "{{phase}}"),
            unit="short",
            names=True,
            height=8,
            alerts=("CacheDegraded",),
        ),
        lines(
            26,
            "Failed calls to the shared store",
            Why(
                "Calls to the shared store that failed each second, by store.",
                "The breaker opens after some of them; until then each costs a lookup's time.",
                "Look at the logs of the cache for the kind of error.",
            ),
            Query(rate("cache_backend_failures_total", "backend"), "{{backend}}"),
            unit="ops",
            width=9,
            alerts=("CacheDegraded",),
        ),
        lines(
            27,
            "Lookup time by result",
            Why(
                "The time within which 95 of 100 lookup calls were done, by result.",
                "A lookup is paid by every question, hit or miss.",
                "Errors that take long: shorten the time that the store is waited for.",
            ),
            Query(quantile(0.95, "cache_lookup_duration_seconds", "result"), "{{result}}"),
            unit="s",
            width=9,
        ),
    ),
)
