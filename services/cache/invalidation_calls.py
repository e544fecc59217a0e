"""Calls that make entries unreadable, or set from when on similar is similar enough."""

from collections.abc import Iterator

from opentelemetry import trace

from pannier.cache.v1 import cache_admin_service_pb2, invalidation_pb2
from services.cache import convert
from services.cache.core import tags
from services.cache.core.errors import StoreUnavailable, TenantMismatch
from services.cache.core.tags import TargetKind
from services.cache.invalidate import Effect, Inventory, Target, invalidate, preview
from services.cache.levels import Levels
from services.cache.ports import StoreFailure
from services.cache.validate import (
    Violations,
    check,
    digest_violations,
    length_violations,
    namespace_violations,
    tag_violations,
)
from services.common.errors import FieldViolation
from services.common.identity import current_identity
from services.common.unknown_fields import unknown_field_violations

__all__ = ["InvalidationCalls"]

_MAXIMUM_SELECTORS = 64
_MAXIMUM_COLLECTION_LENGTH = 200


class InvalidationCalls:
    """Makes entries unreadable, and sets thresholds.

    Args:
        levels: Where values are kept.
        semantic: Returns the answers that this replica holds to questions that mean the same.
        semantic_threshold: Least similarity that counts where none was set; none below can be set.
    """

    def __init__(self, levels: Levels, *, semantic: Inventory, semantic_threshold: float) -> None:
        self._levels = levels
        self._semantic = semantic
        self._threshold = semantic_threshold

    async def invalidate(
        self, request: invalidation_pb2.InvalidateRequest
    ) -> invalidation_pb2.InvalidateResponse:
        """Makes entries unreadable, or says what that would mean."""
        check(_violations(request))
        tenant_id = current_identity.get().tenant_id
        if request.tenant_id not in ("", tenant_id):
            raise TenantMismatch(request.tenant_id)
        applied = request.HasField("dry_run") and not request.dry_run
        _describe(request, applied=applied)
        targets = [_target(selector) for selector in request.selectors]
        try:
            if applied:
                effect = await invalidate(self._levels, tenant_id, targets)
            else:
                effect = await preview(self._levels, self._semantic, tenant_id, targets)
        except StoreFailure as failure:
            raise StoreUnavailable(failure.cause) from failure
        return invalidation_pb2.InvalidateResponse(
            applied=applied,
            invalidation_time=convert.timestamp_from_ms(effect.epoch_ms),
            effects=_effects(request, effect),
        )

    async def set_similarity_threshold(
        self, request: cache_admin_service_pb2.SetSimilarityThresholdRequest
    ) -> cache_admin_service_pb2.SetSimilarityThresholdResponse:
        """Sets the least similarity that counts in a namespace."""
        check(self._threshold_violations(request))
        tenant_id = current_identity.get().tenant_id
        threshold = None if request.threshold == self._threshold else request.threshold
        try:
            previous = await self._levels.epochs.set_threshold(
                tenant_id, request.namespace, threshold
            )
        except StoreFailure as failure:
            raise StoreUnavailable(failure.cause) from failure
        return cache_admin_service_pb2.SetSimilarityThresholdResponse(
            previous_threshold=max(previous or 0.0, self._threshold)
        )

    def _threshold_violations(
        self, request: cache_admin_service_pb2.SetSimilarityThresholdRequest
    ) -> Violations:
        yield from unknown_field_violations(request)
        yield from namespace_violations("namespace", request.namespace)
        # Written so that NaN breaks the rule too.
        if not self._threshold <= request.threshold <= 1.0:
            yield FieldViolation(
                "threshold", f"Must be from {self._threshold:g}, the service's own, to 1."
            )


def _violations(request: invalidation_pb2.InvalidateRequest) -> Violations:
    yield from unknown_field_violations(request)
    count = len(request.selectors)
    if not 1 <= count <= _MAXIMUM_SELECTORS:
        yield FieldViolation(
            "selectors", f"Must be from 1 to {_MAXIMUM_SELECTORS}; there are {count}."
        )
    for index, selector in enumerate(request.selectors):
        yield from _selector_violations(f"selectors[{index}]", selector)
    if not request.tenant_id and any(
        selector.WhichOneof("kind") == "everything" for selector in request.selectors
    ):
        yield FieldViolation("tenant_id", "Must be set where everything is to be invalidated.")


def _selector_violations(field: str, selector: invalidation_pb2.Selector) -> Violations:
    match selector.WhichOneof("kind"):
        case "everything":
            if not selector.everything:
                yield FieldViolation(f"{field}.everything", "Must be true where it is set.")
        case "namespace":
            yield from namespace_violations(f"{field}.namespace", selector.namespace)
        case "model_digest":
            yield from digest_violations(f"{field}.model_digest", selector.model_digest)
        case "tag":
            yield from tag_violations(f"{field}.tag", selector.tag)
        case "grown_collection":
            yield from length_violations(
                f"{field}.grown_collection", selector.grown_collection, _MAXIMUM_COLLECTION_LENGTH
            )
        case _:
            yield FieldViolation(field, "Must say what is meant.")


def _target(selector: invalidation_pb2.Selector) -> Target:
    match selector.WhichOneof("kind"):
        case "everything":
            return Target(kind=TargetKind.EVERYTHING, field=tags.EVERYTHING)
        case "namespace":
            return Target(
                kind=TargetKind.NAMESPACE,
                field=tags.namespace_field(selector.namespace),
                name=selector.namespace,
            )
        case "model_digest":
            return Target(
                kind=TargetKind.MODEL_DIGEST,
                field=tags.model_field(selector.model_digest),
                name=selector.model_digest.lower(),
            )
        case "grown_collection":
            return Target(
                kind=TargetKind.GROWN_COLLECTION,
                field=tags.grown_field(selector.grown_collection),
                name=tags.collection_tag(selector.grown_collection),
            )
        case _:
            tag = convert.tag(selector.tag)
            kind = TargetKind(selector.tag.WhichOneof("kind"))
            return Target(kind=kind, field=tag, name=tag)


def _effects(
    request: invalidation_pb2.InvalidateRequest, effect: Effect
) -> Iterator[invalidation_pb2.SelectorEffect]:
    for selector, count, previous_ms in zip(
        request.selectors, effect.entry_counts, effect.previous_ms, strict=True
    ):
        message = invalidation_pb2.SelectorEffect(selector=selector, local_entry_count=count)
        if previous_ms:
            message.previous_invalidation_time.CopyFrom(convert.timestamp_from_ms(previous_ms))
        yield message


def _describe(request: invalidation_pb2.InvalidateRequest, *, applied: bool) -> None:
    kinds = sorted({selector.WhichOneof("kind") or "" for selector in request.selectors})
    trace.get_current_span().set_attributes(
        {
            "app.cache.invalidation.kinds": kinds,
            "app.cache.invalidation.selector_count": len(request.selectors),
            "app.cache.invalidation.applied": applied,
        }
    )
