"""What the span of a call says came of it: counts, ages and sizes, never what was asked."""

from opentelemetry import trace

from services.cache.core.inference import Finding, Kind
from services.cache.core.layers import Layer
from services.cache.core.model import Hit, Kept, Level, Lookup, Result, WriteOutcome
from services.cache.core.semantic.decision import SemanticOutcome
from services.cache.look_up_semantic import SemanticLookup
from services.cache.store_semantic import SemanticStored
from services.common.afterwards import done_after_answer

__all__ = [
    "describe_finding",
    "describe_hit",
    "describe_lookup",
    "describe_semantic_lookup",
    "describe_semantic_store",
    "describe_writes",
]

_LAYER = "app.cache.layer"
_RESULT = "app.cache.result"
_OUTCOME = "app.cache.outcome"
_LOCAL = "app.cache.l1"
_AGE = "app.cache.age_s"
_BYTES = "app.cache.bytes"
_DEGRADED = "app.cache.degraded"
_ITEMS = "app.cache.item_count"
_STORED = "app.cache.stored_count"

_BYPASSED = "bypassed"
_HIT_KINDS = (Kind.LOCAL, Kind.SHARED, Kind.COALESCED)
_SEMANTIC_HITS = (SemanticOutcome.EXACT, SemanticOutcome.SIMILAR)


def describe_lookup(layer: Layer, lookup: Lookup) -> None:
    """Notes what a lookup of items came to; the age is that of the oldest value found."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    hits = [hit for hit in lookup.hits if hit is not None]
    local_count = sum(hit.level is Level.LOCAL for hit in hits)
    span.set_attributes(
        {
            _LAYER: layer.value,
            _RESULT: _BYPASSED if lookup.bypassed else lookup.result.value,
            _LOCAL: local_count == len(lookup.hits),
            _ITEMS: len(lookup.hits),
            "app.cache.local_hit_count": local_count,
            "app.cache.shared_hit_count": len(hits) - local_count,
            "app.cache.invalidated_count": lookup.invalidated_count,
            _BYTES: sum(len(hit.payload) for hit in hits),
            _DEGRADED: lookup.degraded,
        }
    )
    if hits:
        span.set_attribute(_AGE, max(hit.age_seconds for hit in hits))


def describe_writes(layer: Layer, kept: Kept, size_bytes: int) -> None:
    """Notes what became of values handed over.

    Args:
        layer: Their layer.
        kept: What became of them.
        size_bytes: How large they are together.
    """
    trace.get_current_span().set_attributes(
        {
            _LAYER: layer.value,
            _ITEMS: len(kept.outcomes),
            _STORED: kept.stored_count,
            _BYTES: size_bytes,
            _DEGRADED: kept.degraded,
        }
    )


def describe_finding(finding: Finding) -> None:
    """Notes what a lookup of an answer came to, and who computes it where it was not there.

    Who waited is a follower, linked to those it waited for; who was given the right to compute the
    answer in the end is the leader.
    """
    span = trace.get_current_span()
    if not span.is_recording():
        return
    kind = finding.kind
    if kind is Kind.BYPASSED:
        result = _BYPASSED
    elif kind in _HIT_KINDS:
        result = Result.HIT.value
    else:
        result = (Result.ERROR if finding.degraded else Result.MISS).value
    span.set_attributes(
        {
            _LAYER: Layer.INFERENCE.value,
            _RESULT: result,
            _OUTCOME: kind.value,
            _LOCAL: kind is Kind.LOCAL,
            _ITEMS: 1,
            _DEGRADED: finding.degraded,
        }
    )
    if finding.lease is not None:
        span.set_attribute("app.cache.singleflight", "leader")
        # The answer is there, and is computed anew before it expires.
        span.set_attribute("app.cache.refresh", finding.hit is not None)
    elif finding.waited:
        span.set_attribute("app.cache.singleflight", "follower")
    if finding.hit is not None:
        describe_hit(finding.hit)
    if finding.question_scope is not None:
        span.set_attribute("app.cache.question_scope", finding.question_scope.value)


def describe_hit(hit: Hit) -> None:
    """Notes the age and the size of an answer found."""
    trace.get_current_span().set_attributes({_AGE: hit.age_seconds, _BYTES: len(hit.payload)})


@done_after_answer
def describe_semantic_lookup(lookup: SemanticLookup) -> None:
    """Notes what a lookup of a question came to."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    outcome, match = lookup.outcome, lookup.match
    if outcome is SemanticOutcome.BYPASSED:
        result = _BYPASSED
    elif outcome in _SEMANTIC_HITS:
        result = Result.HIT.value
    else:
        result = (Result.ERROR if lookup.degraded else Result.MISS).value
    span.set_attributes(
        {
            _LAYER: Layer.SEMANTIC.value,
            _RESULT: result,
            _OUTCOME: outcome.value,
            "app.cache.threshold": lookup.threshold,
            "app.cache.rejections": [each.guard.value for each in lookup.rejections],
            _DEGRADED: lookup.degraded,
        }
    )
    if match is not None:
        span.set_attribute("app.cache.similarity", match.similarity)
        span.set_attribute(_LOCAL, match.answer.level is Level.LOCAL)
        describe_hit(match.answer)
        if match.reason is not None:
            span.set_attribute("app.cache.candidate_reason", match.reason.value)
    elif lookup.best_similarity is not None:
        span.set_attribute("app.cache.similarity", lookup.best_similarity)
    if lookup.question_scope is not None:
        span.set_attribute("app.cache.question_scope", lookup.question_scope.value)


def describe_semantic_store(stored: SemanticStored, size_bytes: int) -> None:
    """Notes what became of the answer to a question.

    Args:
        stored: What became of it.
        size_bytes: How large it is.
    """
    span = trace.get_current_span()
    span.set_attributes(
        {
            _LAYER: Layer.SEMANTIC.value,
            _ITEMS: 1,
            _STORED: int(stored.outcome is WriteOutcome.STORED),
            _BYTES: size_bytes,
            _DEGRADED: stored.degraded,
        }
    )
    if stored.question_scope is not None:
        span.set_attribute("app.cache.question_scope", stored.question_scope.value)
